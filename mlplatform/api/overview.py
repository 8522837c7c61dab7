"""What is in production where, since when, why nothing newer is, and what the servers hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlplatform.api.servers import ServerStatus, ask_servers
from mlplatform.config import ConfigError, ExperimentConfig, experiment_names, load_experiment, require_experiments
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from mlplatform.registry.pairs import PairStore


# Of what is registered and has no file any more.
ORPHAN = "its YAML is gone; put it back, or delete what is registered with mlplatform delete"


@dataclass(frozen=True)
class ExperimentStatus:
    """Where one experiment stands.

    Attributes:
        family: of the model in production, else of the configured one.
        production, since, pair_id: the pair behind the alias `production`; `None` without one.
        newest: the newest complete version; `None` if none was ever registered.
        why_not_newer: what keeps the newest version out of production; `None` if it is there.
        metric, score: the deciding metric, and its value on the reference set when the production pair was trained.
        drift: what the newest drift report says in a few words; `None` without a report.
        drift_until: the newest row that report looked at, ISO 8601.
        live_error, reference_error: mean absolute error of what was served, and of the pair on its reference set.
        mistakes: why its configuration cannot be loaded.
    """

    experiment: str
    dataset: str | None = None
    task: str | None = None
    family: str | None = None
    production: int | None = None
    since: dt.datetime | None = None
    pair_id: str | None = None
    newest: int | None = None
    why_not_newer: str | None = None
    metric: str | None = None
    score: float | None = None
    drift: str | None = None
    drift_until: str | None = None
    live_error: float | None = None
    reference_error: float | None = None
    mistakes: tuple[str, ...] = ()

    @property
    def is_trained(self) -> bool:
        """Whether a training run of it ever registered a pair."""
        return self.newest is not None


@dataclass(frozen=True)
class Status:
    """Where all experiments stand, and what the servers serve.

    Attributes:
        untrained: experiments that are configured and of which nothing was ever registered, the packaged ones last.
    """

    experiments: tuple[ExperimentStatus, ...]
    servers: tuple[ServerStatus, ...] = ()
    untrained: tuple[str, ...] = field(default=())

    def to_frame(self) -> pd.DataFrame:
        """Return the experiments as a table, one row each."""
        import pandas as pd

        return pd.DataFrame([asdict(each) for each in self.experiments])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, na_rep=""))


def status(experiments: Iterable[str] = (), *, settings: Settings | None = None, with_servers: bool = True) -> Status:
    """Return where experiments stand.

    Parameters:
        experiments: their names; by default all of which something was registered.
        with_servers: ask the servers of `MLPLATFORM_SERVING_URL` what they hold.

    Raises:
        ConfigError: if a name is unknown.
        RegistryAwayError: if the registry's server does not answer.
    """
    from mlplatform.registry import require_answer
    from mlplatform.registry.pairs import LATEST, PairStore

    settings = settings or Settings.from_env()
    known, wanted = experiment_names(settings), tuple(experiments)
    require_experiments(wanted, settings)
    require_answer(settings)
    store = PairStore.for_looking(settings)
    registered = frozenset(store.names())
    # Models go by the names of their experiments, so those of which there is nothing need not be loaded.
    everywhere = set(known) | set(experiment_names(replace(settings, has_examples=True)))
    orphans = tuple(name for name in sorted(registered - everywhere) if store.find(name, LATEST)) if not wanted else ()
    shown = wanted or tuple(name for name in known if name in registered)
    own = frozenset(experiment_names(replace(settings, has_examples=False)))
    untrained = [name for name in known if name not in registered and not wanted]
    return Status(
        experiments=(
            *(_status_of(name, store, registered, settings) for name in shown),
            *(ExperimentStatus(name, **_versions(name, store), mistakes=(ORPHAN,)) for name in orphans),
        ),
        servers=ask_servers(settings) if with_servers else (),
        untrained=tuple(sorted(untrained, key=lambda name: name not in own)),
    )


def _status_of(name: str, store: PairStore, registered: frozenset[str], settings: Settings) -> ExperimentStatus:
    try:
        config = load_experiment(name, settings=settings)
    except ConfigError as error:
        # What is in production stays there, whatever becomes of the file.
        return ExperimentStatus(name, **(_versions(name, store) if name in registered else {}), mistakes=error.mistakes)
    values: dict[str, Any] = {"dataset": config.dataset.name, "task": config.task, "family": config.model.family}
    if config.registered_name in registered:
        values |= _versions(config.registered_name, store, config)
        values |= _drift(config, settings)
    return ExperimentStatus(name, **values)


def _versions(name: str, store: PairStore, config: ExperimentConfig | None = None) -> dict[str, Any]:
    """Return what the registry says; without a configuration nobody knows by which score."""
    from mlplatform.registry.pairs import LATEST, PRODUCTION

    newest, champion = store.find(name, LATEST), store.find(name, PRODUCTION)
    values: dict[str, Any] = {"newest": newest.version if newest else None}
    if newest is not None and (champion is None or champion.version != newest.version):
        values["why_not_newer"] = store.refusal(name)
    if champion is not None:
        values |= {
            "production": champion.version,
            "since": champion.promoted_at,
            "pair_id": champion.pair_id,
        }
        if family := champion.tags.get("family"):
            values["family"] = family
    if config is not None:
        values["metric"] = config.metric
        if champion is not None:
            values["score"] = _score(store, champion.run_id, config.metric)
    return values


def _score(store: PairStore, run_id: str, metric: str) -> float | None:
    """Return the score on the reference set; `None` if the run is gone."""
    from mlplatform.registry import mlflow_error
    from mlplatform.registry.runs import mlflow_name

    try:
        run = store.client.get_run(run_id)
    except mlflow_error():
        return None
    score: float | None = run.data.metrics.get(mlflow_name(f"reference_{metric}"))
    return score


def _drift(config: ExperimentConfig, settings: Settings) -> dict[str, Any]:
    from mlplatform.monitoring import read_report

    report = read_report(settings, config.name)
    if report is None:
        return {}
    if report.is_broken:
        said = f"data broken: {', '.join(each.name for each in report.quality)}"
    elif report.is_drifted:
        said = f"drift: {', '.join(cause.removeprefix('feature:') for cause in report.causes)}"
    else:
        said = f"suspected: {', '.join(report.suspects)}" if report.suspects else "steady"
    return {
        "drift": said,
        "drift_until": report.data_until,
        "live_error": report.errors.recent,
        "reference_error": report.errors.reference,
    }
