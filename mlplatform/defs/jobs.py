"""Jobs: train, monitor and roll back an experiment; ingest a dataset."""

from typing import TYPE_CHECKING

from dagster import (
    AssetSelection,
    JobDefinition,
    OpExecutionContext,
    define_asset_job,
    in_process_executor,
    job,
    op,
)

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.keys import DATASET_ASSETS, FEATURE_TABLE, MONITORING_ASSETS, RAW, TRAINING_ASSETS, asset_key
from mlplatform.defs.partitions import all_folds_tags
from mlplatform.defs.resources import PlatformResource

if TYPE_CHECKING:
    # What `define_asset_job` returns has no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def train_job(experiment: ExperimentConfig) -> "UnresolvedAssetJobDefinition":
    """Return the job that refreshes the data, trains on all folds, registers, decides and reloads, in one run."""
    keys = [asset_key(experiment.dataset.name, name) for name in DATASET_ASSETS]
    keys += [asset_key(experiment.name, name) for name in TRAINING_ASSETS]
    return define_asset_job(
        f"train_{experiment.name}",
        selection=AssetSelection.assets(*keys),
        description=f"Train, register and, if better, promote. {experiment.description}",
        tags={**all_folds_tags(experiment), "experiment": experiment.name},
        # The steps share heavy imports; a process per step would pay them again every time.
        executor_def=in_process_executor,
    )


def monitor_job(experiment: ExperimentConfig) -> "UnresolvedAssetJobDefinition":
    """Return the job that refreshes the data and writes a new drift report."""
    keys = [asset_key(experiment.dataset.name, name) for name in (RAW, FEATURE_TABLE)]
    keys += [asset_key(experiment.name, name) for name in MONITORING_ASSETS]
    return define_asset_job(
        f"monitor_{experiment.name}",
        selection=AssetSelection.assets(*keys).without_checks(),
        description=f"Compare recent data and served errors of {experiment.name} with its training rows.",
        tags={"experiment": experiment.name},
        executor_def=in_process_executor,
    )


def ingest_job(dataset: DatasetConfig) -> "UnresolvedAssetJobDefinition":
    """Return the job that refreshes the features of a dataset, offline and online."""
    keys = [asset_key(dataset.name, name) for name in DATASET_ASSETS if name != "splits"]
    return define_asset_job(
        f"ingest_{dataset.name}",
        selection=AssetSelection.assets(*keys),
        description=f"Read {dataset.name} again and refresh its features, offline and online.",
        executor_def=in_process_executor,
    )


def rollback_job(experiment: ExperimentConfig) -> JobDefinition:
    """Return the job that puts the previous production pair back."""

    @op(name=f"rollback_{experiment.name}_to_previous")
    def rollback(context: OpExecutionContext, platform: PlatformResource) -> None:
        from mlplatform.registry.active_config import write_active_config
        from mlplatform.registry.notify import notify_server
        from mlplatform.registry.pairs import PairStore

        info = PairStore(platform.settings).rollback(experiment.registered_name)
        # The next training and the drift report start from what the pair in production was trained with.
        write_active_config(experiment.name, info.tags, info.version, platform.settings)
        context.log.info(f"{info.name} version {info.version} is in production again")
        context.log.info(notify_server(platform.settings))

    @job(
        name=f"rollback_{experiment.name}",
        description=f"Point the alias production of {experiment.name} back at the previous pair.",
        tags={"experiment": experiment.name},
        executor_def=in_process_executor,
    )
    def rollback_experiment() -> None:
        rollback()

    return rollback_experiment
