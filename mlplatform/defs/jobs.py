"""Jobs: train, monitor and cross-validate an experiment; ingest and materialise a dataset."""

from typing import TYPE_CHECKING

from dagster import AssetSelection, define_asset_job, in_process_executor

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.keys import (
    DATASET_ASSETS,
    FEATURE_TABLE,
    MONITORING_ASSETS,
    NESTED_CV,
    ONLINE_FEATURES,
    RAW,
    SPLITS,
    TRAINING_ASSETS,
    asset_key,
)
from mlplatform.defs.partitions import all_folds_tags, all_outer_folds_tags

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


def nested_cv_job(experiment: ExperimentConfig) -> "UnresolvedAssetJobDefinition":
    """Return the job that scores the training procedure on all outer folds, in one run. It registers nothing."""
    keys = [asset_key(experiment.dataset.name, name) for name in (RAW, FEATURE_TABLE, SPLITS)]
    return define_asset_job(
        f"nested_cv_{experiment.name}",
        selection=AssetSelection.assets(*keys, asset_key(experiment.name, NESTED_CV)),
        description=f"Score the training procedure, tuning included, on rows it never saw. {experiment.description}",
        tags={**all_outer_folds_tags(experiment), "experiment": experiment.name},
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


def materialize_job(dataset: DatasetConfig, *, full: bool) -> "UnresolvedAssetJobDefinition":
    """Return the job that brings the feature table and the online store up to date with the raw table.

    Parameters:
        full: write every entity to the online store, not only those that changed.
    """
    keys = [asset_key(dataset.name, name) for name in (FEATURE_TABLE, ONLINE_FEATURES)]
    op_name = asset_key(dataset.name, ONLINE_FEATURES).to_python_identifier()
    what = "every entity" if full else "the entities that changed, however late their rows came"
    return define_asset_job(
        f"materialize_{dataset.name}_full" if full else f"materialize_{dataset.name}",
        selection=AssetSelection.assets(*keys),
        description=f"From the raw rows of {dataset.name} to the online store: {what}.",
        config={"ops": {op_name: {"config": {"mode": "full"}}}} if full else None,
        executor_def=in_process_executor,
    )
