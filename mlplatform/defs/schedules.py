"""Schedules: monitoring once a day, off until someone turns it on."""

from __future__ import annotations

from dagster import DefaultScheduleStatus, ScheduleDefinition

from mlplatform.config import ExperimentConfig


def monitor_schedule(experiment: ExperimentConfig) -> ScheduleDefinition:
    """Return the daily monitoring schedule of an experiment."""
    return ScheduleDefinition(
        name=f"monitor_{experiment.name}_daily",
        job_name=f"monitor_{experiment.name}",
        cron_schedule="15 4 * * *",
        default_status=DefaultScheduleStatus.STOPPED,
        description="Off by default; turn it on in the Dagster page once the experiment is served.",
    )
