"""The yard: two simulated transformers over sixty days, small enough to train on in a second.

Written as a user's configuration folder, so that tests exercise what a user does: add YAML, get assets and jobs.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dagster import AssetKey, DagsterInstance, Definitions, ExecuteInProcessResult

from mlplatform.candidates.candidate import Candidate
from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.definitions import build_defs
from mlplatform.defs.io_managers import ArtifactIOManager, ArtifactStore
from mlplatform.defs.keys import TUNED_MODEL, asset_key
from mlplatform.defs.resources import PlatformResource
from mlplatform.registry.pairs import PairStore
from mlplatform.settings import Settings, sqlite_address, sqlite_file

EXPERIMENT = "yard_xgboost"
TRAIN, MONITOR = (f"{job}_{EXPERIMENT}" for job in ("train", "monitor"))
ROLLBACK = "rollback"
# Where an installation keeps what Dagster did, beside `home` and `conf`.
HISTORY = "history"
FEATURES = ["load_pu", "ambient_c", "top_oil_c", "hot_spot_c", "cooling"]

FLEET = {
    "entities": 2,
    "start": "2024-01-01",
    "end": "2024-03-01",
    "seed": 7,
    "gap_rate": 0.01,
    "outlier_rate": 0.002,
    "faults": [],
}
GROUPS: dict[str, dict[str, Any]] = {
    "dataset": {
        "name": "yard",
        "kind": "timeseries",
        "source": {"uri": "simulation://fleet", "options": FLEET},
        "time_column": "timestamp",
        "entity_column": "transformer_id",
        "frequency": "1h",
        "window_steps": 48,
        "columns": {
            "load_pu": {"min": 0, "max": 5},
            "ambient_c": {"min": -50, "max": 60},
            "top_oil_c": {"min": -50, "max": 300},
            "hot_spot_c": {"min": -50, "max": 400},
            "cooling": {"type": "category", "nullable": False},
        },
    },
    "features": {"version": "yard", "columns": FEATURES},
    "split": {
        "version": "yard",
        "reference_steps": 168,
        "context_steps": 48,
        "cv": {"name": "expanding", "params": {"validation_steps": 168}},
        "folds": 2,
    },
    "model": {
        "version": "yard",
        "family": "xgboost",
        "params": {"num_boost_round": 15, "max_depth": 3, "learning_rate": 0.3},
        "search_space": {},
    },
}
DEFAULTS = {
    **{f"/{group}": "yard" for group in GROUPS},
    "/preprocessing": "standard",
    "/tuning": "none",
    "/promotion": "default",
    "/drift": "default",
}
VALUES: dict[str, Any] = {
    "name": EXPERIMENT,
    "task": "forecast",
    "targets": ["top_oil_c"],
    "lookback": 24,
    "horizon": 6,
    "metric": "mae",
    "extra_metrics": ["rmse"],
    "baselines": [
        {"name": "repeat_last"},
        {"name": "seasonal_naive", "params": {"season": 24}},
        {"name": "ridge"},
    ],
}


def write_conf(
    folder: Path,
    *,
    fleet: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    experiment: Mapping[str, Any] | None = None,
) -> None:
    """Write the configuration folder, or write it anew with other options of the fleet, the split or the experiment."""
    groups = {name: dict(values) for name, values in GROUPS.items()}
    groups["dataset"]["source"] = {"uri": "simulation://fleet", "options": {**FLEET, **(fleet or {})}}
    groups["split"] |= split or {}
    for group, values in groups.items():
        write_option(folder, f"{group}/yard", values)
    write_experiment(folder, EXPERIMENT, **(experiment or {}))


def write_experiment(folder: Path, name: str, **values: Any) -> None:
    """Write one experiment on the yard; `values` replace those of `VALUES`."""
    document = {"defaults": [*({group: choice} for group, choice in DEFAULTS.items()), "_self_"], **VALUES}
    write_option(folder, f"experiment/{name}", {**document, "name": name, **values}, header="# @package _global_\n")


def write_option(folder: Path, name: str, values: Mapping[str, Any], header: str = "") -> None:
    """Write one option of a configuration group; JSON is YAML."""
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + json.dumps(values))


@dataclass(frozen=True)
class Yard:
    """An installation that knows the yard, and the ways to work with it inside the test process.

    Attributes:
        environ: its environment variables; the state is in `home`, the configuration in `conf`.
        instance: Dagster's storage.
    """

    environ: dict[str, str]
    instance: DagsterInstance

    @classmethod
    def create(cls, folder: Path, mlflow_database: Path, *, has_history: bool = False, **conf: Any) -> Yard:
        """Return a new installation below `folder` with a copy of a migrated MLflow database.

        Parameters:
            has_history: whether Dagster's storage is kept in `folder`, for `clone_to` and other processes to see.
            conf: as for `write_conf`.
        """
        environ = _environ(folder)
        write_conf(folder / "conf", **conf)
        place_database(mlflow_database, Settings.from_env(environ))
        return cls(environ, _storage(folder) if has_history else DagsterInstance.ephemeral())

    @classmethod
    def at(cls, folder: Path) -> Yard:
        """Return the installation that `create` made in `folder` in another process, with a history."""
        return cls(_environ(folder), _storage(folder))

    def copy_to(self, folder: Path, mlflow_database: Path) -> Yard:
        """Return an installation with the same data, features and asset values, but an empty model registry."""
        environ = _environ(folder)
        shutil.copytree(self.conf, folder / "conf")
        for part in ("data", "feast", "assets", "optuna"):
            shutil.copytree(self.settings.home / part, folder / "home" / part, symlinks=True)
        place_database(mlflow_database, Settings.from_env(environ))
        return Yard(environ, DagsterInstance.ephemeral())

    def clone_to(self, folder: Path, *, has_history: bool = False) -> Yard:
        """Return an installation with all that this one has, its model registry included.

        Parameters:
            has_history: whether what Dagster did here comes along, if it is kept in a folder.
        """
        home = self.settings.home
        environ = _environ(folder)
        shutil.copytree(self.conf, folder / "conf")
        shutil.copytree(home, folder / "home", symlinks=True)
        database = sqlite_file(Settings.from_env(environ).mlflow_tracking_uri)
        assert database is not None
        _replace_everywhere(database, str(home), str(folder / "home"))
        if has_history:
            shutil.copytree(home.parent / HISTORY, folder / HISTORY)
        return Yard(environ, _storage(folder) if has_history else DagsterInstance.ephemeral())

    @property
    def settings(self) -> Settings:
        """The installation's settings."""
        return Settings.from_env(self.environ)

    @property
    def conf(self) -> Path:
        """The configuration folder."""
        return Path(self.environ["MLPLATFORM_CONF_DIR"])

    @property
    def config(self) -> ExperimentConfig:
        """The experiment as its YAML stands now."""
        return load_experiment(EXPERIMENT, settings=self.settings)

    @property
    def pairs(self) -> PairStore:
        """The model registry."""
        return PairStore(self.settings)

    @property
    def candidate(self) -> Candidate:
        """The stored value of the asset `tuned_model`."""
        value = ArtifactStore(self.settings.assets_dir).read(asset_key(EXPERIMENT, TUNED_MODEL), None, Candidate)
        assert isinstance(value, Candidate)
        return value

    def definitions(self) -> Definitions:
        """Return the code location with only the yard's experiment, in this installation."""
        return build_defs(
            experiments=[self.config],
            resources={
                "platform": PlatformResource(environment=self.environ),
                "io_manager": ArtifactIOManager(root=str(self.settings.assets_dir)),
            },
        )

    def run(
        self,
        job: str,
        run_config: Mapping[str, Any] | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        raise_on_error: bool = True,
    ) -> ExecuteInProcessResult:
        """Execute a job, such as `train_yard_xgboost` or `ingest_yard`."""
        definition = self.definitions().resolve_job_def(job)
        return definition.execute_in_process(
            run_config=dict(run_config or {}),
            instance=self.instance,
            raise_on_error=raise_on_error,
            tags=dict(tags or {}),
        )

    def materialize(
        self,
        *assets: str,
        partition: str | None = None,
        run_config: Mapping[str, Any] | None = None,
        raise_on_error: bool = True,
    ) -> ExecuteInProcessResult:
        """Materialise chosen assets of the experiment, with their checks, in a Dagster run of their own."""
        return (
            self.definitions()
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                asset_selection=[AssetKey([EXPERIMENT, asset]) for asset in assets],
                partition_key=partition,
                run_config=dict(run_config or {}),
                instance=self.instance,
                raise_on_error=raise_on_error,
            )
        )


def _environ(folder: Path) -> dict[str, str]:
    return {
        "MLPLATFORM_HOME": str(folder / "home"),
        "MLPLATFORM_CONF_DIR": str(folder / "conf"),
        # Spelled out, because MLflow keeps the server it was last pointed at in the environment of the whole process.
        "MLFLOW_TRACKING_URI": sqlite_address(folder / "home" / "mlflow" / "mlflow.db"),
    }


def _storage(folder: Path) -> DagsterInstance:
    (folder / HISTORY).mkdir(exist_ok=True)
    return DagsterInstance.local_temp(str(folder / HISTORY))


def _replace_everywhere(database: Path, old: str, new: str) -> None:
    """Replace a part of every text in a SQLite database, such as the folder that MLflow's addresses begin with."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for _, column, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
                connection.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) '  # noqa: S608 - the schema's own
                    f'WHERE instr("{column}", ?)',
                    (old, new, old),
                )


def place_database(mlflow_database: Path, settings: Settings) -> None:
    """Copy a migrated MLflow database to where the settings expect theirs."""
    target = sqlite_file(settings.mlflow_tracking_uri)
    assert target is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(mlflow_database, target)


def checks_of(result: ExecuteInProcessResult) -> dict[str, Any]:
    """Return the evaluated asset checks of a run by name."""
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def with_registry(settings: Settings, folder: Path, mlflow_database: Path) -> Settings:
    """Return settings with the same state but a new, empty model registry below `folder`."""
    database = folder / "mlflow.db"
    shutil.copy(mlflow_database, database)
    return replace(
        settings,
        mlflow_tracking_uri=sqlite_address(database),
        mlflow_artifact_root=(folder / "artifacts").as_uri(),
    )
