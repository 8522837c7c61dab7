"""The code location: every experiment's YAML becomes assets, checks, jobs, a schedule and a sensor.

This is the only place of assembly. The Dagster page, the command line and every test use what `build_defs` returns.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import Definitions, IOManager, in_process_executor

from mlplatform.config import ConfigError, DatasetConfig, ExperimentConfig, load_all_datasets, load_all_experiments
from mlplatform.defs import (
    CONSOLE,
    ArtifactIOManager,
    Broken,
    MlflowResource,
    PlatformResource,
    TrainingResource,
    alerts_sensor,
    as_reader,
    configuration_asset,
    console_logger,
    drift_sensor,
    experiment_checks,
    failing_jobs,
    forecast_job,
    forecast_schedule,
    ingest_job,
    is_valid_check,
    lifecycle_jobs,
    list_broken,
    materialize_job,
    materialize_schedule,
    monitor_job,
    monitor_schedule,
    nested_cv_job,
    new_data_sensor,
    print_runs,
    run_failure_alerts,
    train_job,
)
from mlplatform.defs.assets import (
    cv_folds_asset,
    drift_report_asset,
    feature_table_asset,
    fold_preprocessor_asset,
    forecast_errors_asset,
    forecasts_asset,
    nested_cv_asset,
    online_features_asset,
    prediction_log_asset,
    production_alias_asset,
    raw_asset,
    registered_pair_asset,
    serving_reload_asset,
    splits_asset,
    tuned_model_asset,
)
from mlplatform.settings import Settings, check_dagster_home

logger = logging.getLogger(__name__)


def build_defs(
    *, experiments: Sequence[ExperimentConfig] | None = None, resources: Mapping[str, Any] | None = None
) -> Definitions:
    """Return the definitions of a code location.

    An experiment or dataset that cannot be loaded takes nothing else along: it stays visible as an asset whose check
    fails with the reason, which is logged as a warning, too.

    Parameters:
        experiments: what to build assets for, with their datasets; default: every experiment and every dataset in the
            configuration folders.
        resources: replacements for `platform`, `training`, `mlflow` or `io_manager`; an IO manager also offers what
            `ValueReader` asks for.

    Raises:
        AddressError: if Dagster would keep its databases outside of `DAGSTER_HOME`.
        ConfigError: if a configuration folder is not there.
        TypeError: if an IO manager does not offer that.
    """
    check_dagster_home()
    print_runs()
    given = dict(resources or {})
    # One that a definition makes later is looked at when it is used.
    if isinstance(given.get("io_manager"), IOManager):
        as_reader(given["io_manager"])
    settings = Settings.from_env()
    datasets: dict[str, DatasetConfig] = {}
    broken: dict[str, list[Broken]] = {}
    broken_experiments: Mapping[str, ConfigError] = {}
    if experiments is None:
        loaded, broken_experiments = load_all_experiments(settings)
        datasets, broken_datasets = load_all_datasets(settings)
        experiments = list(loaded.values())
        broken = list_broken({"experiment": broken_experiments, "dataset": broken_datasets})
    for each in (each for group in broken.values() for each in group):
        logger.warning("%s %s is not loaded: %s", each.group, each.name, each.error)
    datasets |= {experiment.dataset.name: experiment.dataset for experiment in experiments}
    dataset_jobs = {
        name: (ingest_job(dataset), materialize_job(dataset, full=False), materialize_job(dataset, full=True))
        for name, dataset in datasets.items()
    }
    job_names = {job.name for jobs in dataset_jobs.values() for job in jobs}
    return Definitions(
        assets=[
            *(asset for dataset in datasets.values() for asset in _dataset_assets(dataset, experiments)),
            *(asset for experiment in experiments for asset in _experiment_assets(experiment)),
            *(configuration_asset(name, group) for name, group in broken.items()),
        ],
        asset_checks=[
            *(check for experiment in experiments for check in experiment_checks(experiment)),
            *(is_valid_check(name, group) for name, group in broken.items()),
        ],
        jobs=[
            *(job for jobs in dataset_jobs.values() for job in jobs),
            *(make(experiment) for experiment in experiments for make in (train_job, monitor_job, forecast_job)),
            *lifecycle_jobs(experiments, broken_experiments),
            *(nested_cv_job(experiment) for experiment in experiments if experiment.nested.outer_folds),
            *(job for group in broken.values() for job in failing_jobs(group, taken=job_names)),
        ],
        schedules=[
            *(monitor_schedule(experiment) for experiment in experiments),
            *(forecast_schedule(experiment) for experiment in experiments),
            *(materialize_schedule(dataset) for dataset in datasets.values()),
        ],
        sensors=[
            *(drift_sensor(experiment) for experiment in experiments),
            *(new_data_sensor(dataset, *dataset_jobs[name][:2]) for name, dataset in datasets.items()),
            alerts_sensor(experiments),
            run_failure_alerts(),
        ],
        # Of all jobs: their steps share heavy imports, and a process for each would pay them again.
        executor=in_process_executor,
        loggers={CONSOLE: console_logger},
        resources={
            "platform": PlatformResource(),
            "training": TrainingResource.configure_at_launch(),
            "mlflow": MlflowResource(),
            "io_manager": ArtifactIOManager(root=str(settings.assets_dir)),
            **given,
        },
    )


def _dataset_assets(dataset: DatasetConfig, experiments: Sequence[ExperimentConfig]) -> list[Any]:
    own = [experiment for experiment in experiments if experiment.dataset.name == dataset.name]
    assets = [raw_asset(dataset, own), feature_table_asset(dataset), online_features_asset(dataset, own)]
    return [*assets, splits_asset(dataset, own)] if own else assets


def _experiment_assets(experiment: ExperimentConfig) -> list[Any]:
    nested = [nested_cv_asset(experiment)] if experiment.nested.outer_folds else []
    return [
        cv_folds_asset(experiment),
        fold_preprocessor_asset(experiment),
        tuned_model_asset(experiment),
        registered_pair_asset(experiment),
        production_alias_asset(experiment),
        serving_reload_asset(experiment),
        prediction_log_asset(experiment),
        forecast_errors_asset(experiment),
        drift_report_asset(experiment),
        forecasts_asset(experiment),
        *nested,
    ]


defs = build_defs()
