"""Resources: the installation, the runtime configuration of a training run, and its MLflow run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from dagster import AssetExecutionContext, ConfigurableResource
from pydantic import Field

from mlplatform.config import VERSION_GROUPS, ConfigError, ExperimentConfig, load_experiment
from mlplatform.promotion import remembered_versions, version_overrides
from mlplatform.settings import Settings


class PlatformResource(ConfigurableResource[Settings]):
    """Paths and addresses of this installation; `environment` overrides environment variables."""

    environment: dict[str, str] = Field(default={})

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return Settings.from_env({**os.environ, **self.environment})


class TrainingResource(ConfigurableResource[None]):
    """Runtime configuration of a training run: what to use instead of the active versions."""

    split_version: str | None = Field(default=None, description="Split version, optionally <version>@YYYYMMDDTHHMM.")
    feature_version: str | None = Field(default=None, description="Name of an option of the group features/.")
    model_version: str | None = Field(default=None, description="Name of an option of the group model/.")
    overrides: list[str] = Field(default=[], description="Hydra overrides, for example model.params.max_depth=4.")
    dry_run: bool = Field(default=False, description="Train, register and decide, but do not change what is served.")
    despite_broken_data: bool = Field(
        default=False, description="Train though the newest drift report says that the data are broken."
    )

    def resolve(self, experiment: str, settings: Settings) -> ExperimentConfig:
        """Return the configuration of this run: overrides, then requested versions, then active ones, then defaults.

        Raises:
            ConfigError: if a version or override is unknown, not allowed, or does not fit the rest.
        """
        versions = version_overrides(experiment, self.requested, settings)
        config = load_experiment(experiment, [*versions, *self.overrides], settings)
        default = load_experiment(experiment, settings=settings)
        if config.split.folds != default.split.folds:
            raise ConfigError(
                f"experiment {experiment!r}: this run asks for {config.split.folds} folds, but the asset has "
                f"{default.split.folds} partitions; change split.folds in the experiment's YAML instead"
            )
        if config.dataset != default.dataset:
            raise ConfigError(
                f"experiment {experiment!r}: a run cannot change the dataset; change it in YAML or add an experiment"
            )
        return config

    def with_dry_run(self, config: ExperimentConfig) -> ExperimentConfig:
        """Return the configuration with this run's wish for a dry run in its promotion policy."""
        if not self.dry_run:
            return config
        return config.model_copy(update={"promotion": config.promotion.model_copy(update={"dry_run": True})})

    def sources(self, experiment: str, settings: Settings) -> dict[str, str]:
        """Return for every version where this run takes it from."""
        sources = dict.fromkeys(VERSION_GROUPS, "the experiment's YAML")
        sources |= dict.fromkeys(remembered_versions(experiment, self.requested, settings), "active_config.yaml")
        return sources | dict.fromkeys(self.requested, "the request")

    @property
    def requested(self) -> dict[str, str]:
        """The versions this run asks for."""
        values = {
            "split_version": self.split_version,
            "feature_version": self.feature_version,
            "model_version": self.model_version,
        }
        return {key: value for key, value in values.items() if value is not None}


class MlflowResource(ConfigurableResource[None]):
    """The MLflow run of a training run.

    Built on `dagster_mlflow.MlFlow`, which ties one MLflow run to one Dagster run. Its end-of-run hook is not used: it
    ends the run at the topologically last op only, which is wrong as soon as assets are materialised in separate
    Dagster runs. Here every step opens the run, and closes it as finished or failed.
    """

    @contextlib.contextmanager
    def run(
        self, context: AssetExecutionContext, settings: Settings, experiment: str, run_id: str | None = None
    ) -> Iterator[Any]:
        """Open the MLflow run of this Dagster run, or the run `run_id` of an earlier one, for one step.

        Parameters:
            experiment: name of the MLflow experiment.

        Yields:
            The `dagster_mlflow.MlFlow` object, which offers MLflow's functions and `mlflow_run_id`.
        """
        import mlflow
        from dagster_mlflow.resources import MlFlow

        from mlplatform.registry import experiment_id, open_tracking

        open_tracking(settings)
        experiment_id(settings, experiment)
        resource_config = {
            "experiment_name": experiment,
            "mlflow_tracking_uri": settings.mlflow_tracking_uri,
            "mlflow_run_id": run_id,
            "extra_tags": {"experiment": experiment} | ({} if run_id is None else {"resumed_by": context.run.run_id}),
        }
        # Whether it starts a run or opens one again, it says that it starts a new one: for the event log alone.
        log = SimpleNamespace(info=context.log.debug, warning=context.log.warning, error=context.log.error)
        run = MlFlow(  # type: ignore[no-untyped-call]
            SimpleNamespace(
                log=log, dagster_run=context.run, run_id=context.run.run_id, resource_config=resource_config
            )
        )
        if run_id is None:
            active = mlflow.active_run()
            assert active is not None
            run.mlflow_run_id = active.info.run_id
        try:
            yield run
        except BaseException:
            mlflow.end_run("FAILED")
            raise
        mlflow.end_run("FINISHED")
