"""Deleting an experiment: first the plan of what would go, then the act."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.api.facts import facts_html
from mlplatform.config import (
    ConfigError,
    DatasetConfig,
    ExperimentConfig,
    experiment_names,
    load_all_experiments,
    load_experiment,
)
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlplatform.registry.pairs import PairStore


@dataclass(frozen=True)
class DeletionPlan:
    """What would be deleted. Files of configuration stay: they are their author's.

    Attributes:
        production: the version that is in production now; servers keep answering with it until they end.
        registered: names of registered models -> number of their versions.
        runs: of the MLflow experiment, which is renamed and marked as deleted: MLflow can restore what it says about
            them until its garbage collection, but not their files.
        folders: and the log of its last training, with their sizes in bytes.
        kept: what stays, and why.
    """

    experiment: str
    production: int | None
    registered: dict[str, int]
    runs: int
    folders: dict[str, int]
    kept: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to delete."""
        return not (self.registered or self.runs or self.folders)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return facts_html(self.to_dict())


def plan_deletion(experiment: str, *, with_data: bool = False, settings: Settings | None = None) -> DeletionPlan:
    """Return what `delete` would delete; nothing is changed.

    Parameters:
        with_data: also the raw table, feature table and splits of its dataset, which no other experiment may use.

    Raises:
        ConfigError: if the experiment is unknown.
    """
    settings = settings or Settings.from_env()
    store = _store(settings)
    return _plan(_owner(experiment, store, settings, with_data), store, settings, with_data)


def delete(experiment: str, *, with_data: bool = False, settings: Settings | None = None) -> DeletionPlan:
    """Delete the models, runs and files of an experiment, and return what that was.

    No training, promotion or rollback of it may go on meanwhile. What was interrupted is finished by calling it again.

    Raises:
        ConfigError: if the experiment is unknown, or its dataset is to go and another experiment uses it.
    """
    from mlplatform.promotion import promotion_lock

    settings = settings or Settings.from_env()
    store = _store(settings)
    owner = _owner(experiment, store, settings, with_data)
    with promotion_lock(settings, owner.registered):
        plan = _plan(owner, store, settings, with_data)
        # The alias goes first: a pair of which a part is gone must not be found.
        for model in reversed(plan.registered):
            store.client.delete_registered_model(model)
        _retire_runs(store, experiment)
        for folder in plan.folders:
            _remove(Path(folder))
    return plan


def _store(settings: Settings) -> PairStore:
    from mlplatform.registry import require_answer
    from mlplatform.registry.pairs import PairStore

    require_answer(settings)
    return PairStore(settings)


@dataclass(frozen=True)
class _Owner:
    """Whose things go.

    Attributes:
        registered: the name of its pairs.
        config: `None` of an experiment whose YAML is gone, of which nobody knows the data.
    """

    name: str
    registered: str
    config: ExperimentConfig | None


def _owner(experiment: str, store: PairStore, settings: Settings, with_data: bool) -> _Owner:
    """Return whose things go: an experiment's, also if only the registry knows it still.

    Raises:
        ConfigError: if nobody knows it, its file cannot be used, or the data of an unknown dataset are to go.
    """
    is_gone = experiment not in experiment_names(settings) and experiment in store.names()
    if not is_gone or with_data:
        config = load_experiment(experiment, settings=settings)
        return _Owner(experiment, config.registered_name, config)
    return _Owner(experiment, experiment, None)


def _plan(owner: _Owner, store: PairStore, settings: Settings, with_data: bool) -> DeletionPlan:
    from mlplatform.registry.pairs import PRODUCTION

    champion = store.find(owner.registered, PRODUCTION)
    folders = [path for path in _own_folders(owner.name, settings) if path.exists()]
    if owner.config is None:
        kept = ["tables and splits of its dataset, which only its YAML names"]
    elif with_data:
        dataset = owner.config.dataset
        _refuse_shared(owner.config, settings)
        folders += [path for path in _data_folders(dataset, settings) if path.exists() or path.is_symlink()]
        kept = ["its YAML", f"what the online store holds of the dataset {dataset.name}"]
    else:
        kept = ["its YAML", f"the tables and splits of the dataset {owner.config.dataset.name}"]
    return DeletionPlan(
        experiment=owner.name,
        production=champion.version if champion else None,
        registered=dict(_registered(store, owner.registered)),
        runs=_count_runs(store, owner.name),
        folders={str(path): _size(path) for path in folders},
        kept=tuple(kept),
    )


def _registered(store: PairStore, name: str) -> Iterator[tuple[str, int]]:
    from mlflow.exceptions import MlflowException

    from mlplatform.registry.pairs import ROLES, registered_model

    for role in ROLES:
        model = registered_model(name, role)
        try:
            store.client.get_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            continue
        yield model, len(store.client.search_model_versions(f"name='{model}'", max_results=10_000))


def _count_runs(store: PairStore, experiment: str) -> int:
    found = store.client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage != "active":
        return 0
    count, token = 0, None
    while True:
        page = store.client.search_runs([found.experiment_id], max_results=1_000, page_token=token)
        count, token = count + len(page), page.token
        if not token:
            return count


def _retire_runs(store: PairStore, experiment: str) -> None:
    """Mark the MLflow experiment as deleted, under another name: MLflow would refuse a new one of the same name."""
    found = store.client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage != "active":
        return
    now = dt.datetime.now(dt.UTC)
    store.client.rename_experiment(found.experiment_id, f"{experiment} deleted {now:%Y-%m-%dT%H:%M:%S.%fZ}")
    store.client.delete_experiment(found.experiment_id)


def _own_folders(name: str, settings: Settings) -> Iterator[Path]:
    for home in (
        settings.assets_dir,
        settings.studies_dir,
        settings.checkpoints_dir,
        settings.predictions_dir,
        settings.forecasts_dir,
        settings.forecast_errors_dir,
        settings.feedback_dir,
        settings.active_config_dir,
        settings.served_pairs_dir,
        settings.home / "monitoring",
        # Where MLflow keeps them elsewhere, they are its server's to delete.
        settings.home / "mlflow" / "artifacts",
    ):
        yield home / name
    yield settings.training_log(name)


def _data_folders(dataset: DatasetConfig, settings: Settings) -> Iterator[Path]:
    for home in (settings.raw_dir, settings.features_dir, settings.splits_dir, settings.assets_dir):
        yield home / dataset.name


def _remove(folder: Path) -> None:
    """Delete a file or a folder; of a table that is a link also its snapshots, and what is remembered of its source."""
    if not folder.is_symlink():
        folder.unlink() if folder.is_file() else shutil.rmtree(folder)
        return
    # The link goes last, so that what was interrupted is found again.
    for snapshot in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(snapshot)
    for record in folder.parent.glob(f"{folder.name}.*.json"):
        record.unlink()
    folder.unlink()


def _refuse_shared(config: ExperimentConfig, settings: Settings) -> None:
    others = load_all_experiments(settings)[0].values()
    users = [each.name for each in others if each.dataset.name == config.dataset.name and each.name != config.name]
    if users:
        raise ConfigError(
            f"the tables of the dataset {config.dataset.name!r} cannot go: {', '.join(users)} use them, too; "
            "delete without the data"
        )


def _size(path: Path) -> int:
    """Return how many bytes a file, a folder, or what a link leads to, holds."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
