"""Schedules: monitoring and forecasts once a day and materialisation once an hour, by default.

All are off at first, unless `automation.running` of their experiment or dataset names them.
"""

from __future__ import annotations

from dagster import RunRequest, ScheduleDefinition, ScheduleEvaluationContext

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.partitions import day_tags
from mlplatform.defs.switches import schedule_status


def monitor_schedule(experiment: ExperimentConfig) -> ScheduleDefinition:
    """Return the monitoring schedule of an experiment; its name says how often it runs by default."""

    def today(context: ScheduleEvaluationContext) -> RunRequest:
        return RunRequest(tags=day_tags(context.scheduled_execution_time))

    return ScheduleDefinition(
        name=f"monitor_{experiment.name}_daily",
        job_name=f"monitor_{experiment.name}",
        cron_schedule=experiment.automation.monitor_cron,
        execution_fn=today,
        default_status=schedule_status("monitor", experiment.automation.running),
        description="Worth turning on once the experiment is served.",
    )


def forecast_schedule(experiment: ExperimentConfig) -> ScheduleDefinition:
    """Return the schedule of an experiment's forecasts; its name says how often it runs by default."""
    return ScheduleDefinition(
        name=f"forecast_{experiment.name}_daily",
        job_name=f"forecast_{experiment.name}",
        cron_schedule=experiment.automation.forecast_cron,
        default_status=schedule_status("forecast", experiment.automation.running),
        description="Worth turning on where the table of forecasts is read.",
    )


def materialize_schedule(dataset: DatasetConfig) -> ScheduleDefinition:
    """Return the schedule that brings the online store up to date with the raw rows of a dataset."""
    return ScheduleDefinition(
        name=f"materialize_{dataset.name}_hourly",
        job_name=f"materialize_{dataset.name}",
        cron_schedule=dataset.automation.materialize_cron,
        default_status=schedule_status("materialize", dataset.automation.running),
        description="Worth turning on where rows arrive that no sensor sees.",
    )
