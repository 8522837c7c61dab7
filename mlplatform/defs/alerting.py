"""Sensors that tell people: what reports and runs say, and what still waits in the outbox.

Here: looking at what is stored and handing it to `mlplatform.alerts`.
Not here: promotions and rollbacks, which the run that makes them tells; what an alert says and how it travels.
"""

from __future__ import annotations

from collections.abc import Sequence

from dagster import (
    DagsterEventType,
    DefaultSensorStatus,
    RunFailureSensorContext,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    run_failure_sensor,
    sensor,
)

from mlplatform.config import ExperimentConfig
from mlplatform.defs.resources import PlatformResource
from mlplatform.defs.time_budget import LookTookTooLongError, within_budget
from mlplatform.settings import Settings

INTERVAL_S = 30


def alerts_sensor(experiments: Sequence[ExperimentConfig]) -> SensorDefinition:
    """Return the sensor that tells what the newest drift reports found, and delivers what waits. On by default."""

    @sensor(
        name="alerts",
        minimum_interval_seconds=INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING,
        description="Tells the channels of the group `alerts` what drift reports found; skips while there are none.",
    )
    def alerts(_context: SensorEvaluationContext, platform: PlatformResource) -> SkipReason:
        names = [experiment.name for experiment in experiments]
        try:
            return SkipReason(within_budget("alerts", lambda: _tell(names, platform.settings)))
        except LookTookTooLongError as error:
            return SkipReason(str(error))

    return alerts


def _tell(experiments: Sequence[str], settings: Settings) -> str:
    from mlplatform.alerts import broken_data, deliver_alerts, drifted, has_channels, post_alert
    from mlplatform.monitoring import read_report

    if not has_channels(settings):
        return "no channel has an address; set MLPLATFORM_ALERT_URLS to be told"
    unread = []
    for name in experiments:
        try:
            report = read_report(settings, name)
        except (ValueError, KeyError, TypeError) as error:
            # Of one experiment; the others' people are told all the same.
            unread.append(f"{name}: {type(error).__name__}")
            continue
        if report is None:
            continue
        if report.is_broken:
            breaks = list(dict.fromkeys(each.name for each in report.quality))
            post_alert(settings, broken_data(settings, name, breaks, report.data_until))
        if report.is_drifted:
            post_alert(settings, drifted(settings, name, report.causes, report.pair_version, report.data_until))
    told = f"{deliver_alerts(settings)} messages delivered"
    return f"{told}; unreadable reports: {', '.join(unread)}" if unread else told


def run_failure_alerts() -> SensorDefinition:
    """Return the sensor that tells of every run that failed. On by default."""

    @run_failure_sensor(
        name="run_failures",
        default_status=DefaultSensorStatus.RUNNING,
        description="Tells the channels of the group `alerts` of runs that failed.",
    )
    def run_failures(context: RunFailureSensorContext, platform: PlatformResource) -> None:
        from mlplatform.alerts import post_alert, run_failed

        settings, run = platform.settings, context.dagster_run
        steps: list[str] = []
        errors: list[str] = []
        for event in context.get_step_failure_events():
            if event.event_type == DagsterEventType.STEP_FAILURE and event.step_key:
                steps.append(event.step_key)
                errors += _error_class(event.step_failure_data.error)
        # What an error says may hold rows; its class does not.
        post_alert(settings, run_failed(settings, run.job_name, run.run_id, steps, list(dict.fromkeys(errors))))

    return run_failures


def _error_class(error: object) -> list[str]:
    """Return the class of an error's innermost cause, as Dagster keeps it."""
    found: list[str] = []
    while error is not None:
        name = getattr(error, "cls_name", None)
        found = [name] if name else found
        error = getattr(error, "cause", None)
    return found
