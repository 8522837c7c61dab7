"""Schedules: monitoring once a day, materialisation once an hour; off until someone turns them on."""

from __future__ import annotations

from dagster import DefaultScheduleStatus, ScheduleDefinition

from mlplatform.config import DatasetConfig, ExperimentConfig


def monitor_schedule(experiment: ExperimentConfig) -> ScheduleDefinition:
    """Return the daily monitoring schedule of an experiment."""
    return ScheduleDefinition(
        name=f"monitor_{experiment.name}_daily",
        job_name=f"monitor_{experiment.name}",
        cron_schedule="15 4 * * *",
        default_status=DefaultScheduleStatus.STOPPED,
        description="Off by default; turn it on in the Dagster page once the experiment is served.",
    )


def materialize_schedule(dataset: DatasetConfig) -> ScheduleDefinition:
    """Return the hourly schedule that brings the online store up to date with the raw rows of a dataset."""
    return ScheduleDefinition(
        name=f"materialize_{dataset.name}_hourly",
        job_name=f"materialize_{dataset.name}",
        cron_schedule="5 * * * *",
        default_status=DefaultScheduleStatus.STOPPED,
        description="Off by default; turn it on where rows arrive that no sensor sees.",
    )
