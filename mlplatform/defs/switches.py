"""Whether a schedule or sensor is on from the start, as the configuration says."""

from __future__ import annotations

from collections.abc import Collection

from dagster import DefaultScheduleStatus, DefaultSensorStatus


def sensor_status(name: str, running: Collection[str]) -> DefaultSensorStatus:
    """Return the status of a sensor until someone turns it on or off in the Dagster page."""
    return DefaultSensorStatus.RUNNING if name in running else DefaultSensorStatus.STOPPED


def schedule_status(name: str, running: Collection[str]) -> DefaultScheduleStatus:
    """Return the status of a schedule until someone turns it on or off in the Dagster page."""
    return DefaultScheduleStatus.RUNNING if name in running else DefaultScheduleStatus.STOPPED
