"""Jobs: train, monitor, forecast and cross-validate an experiment; ingest and materialise a dataset."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dagster import AssetSelection, define_asset_job

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.keys import (
    DATASET_ASSETS,
    EXPERIMENT_TAG,
    FEATURE_TABLE,
    FORECASTS,
    MONITORING_ASSETS,
    NESTED_CV,
    ONLINE_FEATURES,
    RAW,
    SPLITS,
    TRAINING_ASSETS,
    asset_key,
)
from mlplatform.defs.whole_runs import all_folds_job

if TYPE_CHECKING:
    # What `define_asset_job` returns has no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def train_job(experiment: ExperimentConfig) -> "UnresolvedAssetJobDefinition":
    """Return the job that refreshes the data, trains on all folds, registers, decides and reloads, in one run."""
    return all_folds_job(
        f"train_{experiment.name}",
        _selection(experiment, DATASET_ASSETS, TRAINING_ASSETS),
        experiment.split.fold_names,
        description=f"Train, register and, if better, promote. {experiment.description}",
        tags={EXPERIMENT_TAG: experiment.name},
    )


def monitor_job(experiment: ExperimentConfig) -> "UnresolvedAssetJobDefinition":
    """Return the job that refreshes the data and writes a new drift report."""
    return define_asset_job(
        f"monitor_{experiment.name}",
        selection=_selection(experiment, (RAW, FEATURE_TABLE), MONITORING_ASSETS).without_checks(),
        description=f"Compare recent data and served errors of {experiment.name} with its training rows.",
        tags={EXPERIMENT_TAG: experiment.name},
    )


def forecast_job(experiment: ExperimentConfig) -> "UnresolvedAssetJobDefinition":
    """Return the job that refreshes the features and forecasts every entity."""
    return define_asset_job(
        f"forecast_{experiment.name}",
        selection=_selection(experiment, (RAW, FEATURE_TABLE, ONLINE_FEATURES), (FORECASTS,)),
        description=f"Refresh the features and write the forecast of every entity. {experiment.description}",
        tags={EXPERIMENT_TAG: experiment.name},
    )


def nested_cv_job(experiment: ExperimentConfig) -> "UnresolvedAssetJobDefinition":
    """Return the job that scores the training procedure on all outer folds, in one run. It registers nothing."""
    return all_folds_job(
        f"nested_cv_{experiment.name}",
        _selection(experiment, (RAW, FEATURE_TABLE, SPLITS), (NESTED_CV,)),
        experiment.nested.fold_names,
        description=f"Score the training procedure, tuning included, on rows it never saw. {experiment.description}",
        tags={EXPERIMENT_TAG: experiment.name},
    )


def ingest_job(dataset: DatasetConfig) -> "UnresolvedAssetJobDefinition":
    """Return the job that refreshes the features of a dataset, offline and online."""
    return define_asset_job(
        f"ingest_{dataset.name}",
        selection=_selection(dataset, (RAW, FEATURE_TABLE, ONLINE_FEATURES)),
        description=f"Read {dataset.name} again and refresh its features, offline and online.",
    )


def materialize_job(dataset: DatasetConfig, *, full: bool) -> "UnresolvedAssetJobDefinition":
    """Return the job that brings the feature table and the online store up to date with the raw table.

    Parameters:
        full: write every entity to the online store, not only those that changed.
    """
    op_name = asset_key(dataset.name, ONLINE_FEATURES).to_python_identifier()
    what = "every entity" if full else "the entities that changed, however late their rows came"
    return define_asset_job(
        f"materialize_{dataset.name}_full" if full else f"materialize_{dataset.name}",
        selection=_selection(dataset, (FEATURE_TABLE, ONLINE_FEATURES)),
        description=f"From the raw rows of {dataset.name} to the online store: {what}.",
        config={"ops": {op_name: {"config": {"mode": "full"}}}} if full else None,
    )


def _selection(
    owner: DatasetConfig | ExperimentConfig, of_dataset: Sequence[str], of_experiment: Sequence[str] = ()
) -> AssetSelection:
    """Return assets of a dataset, or of an experiment and its dataset."""
    dataset = owner if isinstance(owner, DatasetConfig) else owner.dataset
    return AssetSelection.assets(
        *(asset_key(dataset.name, name) for name in of_dataset),
        *(asset_key(owner.name, name) for name in of_experiment),
    )
