from .alerting import alerts_sensor, run_failure_alerts
from .broken import Broken, configuration_asset, failing_jobs, is_valid_check, list_broken
from .checks import experiment_checks
from .console import CONSOLE, console_logger, print_runs
from .io_managers import ArtifactIOManager, as_reader
from .jobs import forecast_job, ingest_job, materialize_job, monitor_job, nested_cv_job, train_job
from .lifecycle import lifecycle_jobs
from .resources import MlflowResource, PlatformResource, TrainingResource
from .schedules import forecast_schedule, materialize_schedule, monitor_schedule
from .sensors import drift_sensor, new_data_sensor

__all__ = [
    "CONSOLE",
    "ArtifactIOManager",
    "Broken",
    "MlflowResource",
    "PlatformResource",
    "TrainingResource",
    "alerts_sensor",
    "as_reader",
    "configuration_asset",
    "console_logger",
    "drift_sensor",
    "experiment_checks",
    "failing_jobs",
    "forecast_job",
    "forecast_schedule",
    "ingest_job",
    "is_valid_check",
    "lifecycle_jobs",
    "list_broken",
    "materialize_job",
    "materialize_schedule",
    "monitor_job",
    "monitor_schedule",
    "nested_cv_job",
    "new_data_sensor",
    "print_runs",
    "run_failure_alerts",
    "train_job",
]
