"""Sensors that tell people: what reports and runs say, and what still waits in the outbox.

Here: looking at what is stored and handing it to `mlplatform.alerts`.
Not here: promotions and rollbacks, which the run that makes them tells; what an alert says and how it travels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from mlplatform.monitoring import DriftReport

logger = logging.getLogger(__name__)

INTERVAL_S = 30
# Coverage is lost below what is meant less this; a window of autocorrelated errors strays by less.
LOST_COVERAGE = 0.2


def alerts_sensor(experiments: Sequence[ExperimentConfig]) -> SensorDefinition:
    """Return the sensor that tells what the newest drift reports found, and delivers what waits. On by default."""

    @sensor(
        name="alerts",
        minimum_interval_seconds=INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING,
        description="Tells the channels of the group `alerts` what drift reports found; skips while there are none.",
    )
    def alerts(_context: SensorEvaluationContext, platform: PlatformResource) -> SkipReason:
        try:
            return SkipReason(within_budget("alerts", lambda: _tell(experiments, platform.settings)))
        except LookTookTooLongError as error:
            return SkipReason(str(error))

    return alerts


def _tell(experiments: Sequence[ExperimentConfig], settings: Settings) -> str:
    from mlplatform.alerts import deliver_alerts, has_channels

    if not has_channels(settings):
        return "no channel has an address; set MLPLATFORM_ALERT_URLS to be told"
    failed = []
    for experiment in experiments:
        try:
            _post(experiment, settings)
        except Exception as error:
            # Of one experiment; the others' people are told all the same.
            logger.warning("%s: what monitoring says could not be read: %s", experiment.name, error)
            failed.append(f"{experiment.name}: {type(error).__name__}")
    told = f"{deliver_alerts(settings)} messages delivered"
    return f"{told}; not looked at: {', '.join(failed)}" if failed else told


def _post(experiment: ExperimentConfig, settings: Settings) -> None:
    """Post what the newest report of an experiment found."""
    from mlplatform.alerts import broken_data, coverage_lost, drifted, post_alert
    from mlplatform.monitoring import read_report

    name = experiment.name
    report = read_report(settings, name)
    if report is None:
        return
    if report.is_broken:
        breaks = list(dict.fromkeys(each.name for each in report.quality))
        post_alert(settings, broken_data(settings, name, breaks, report.data_until))
    if report.is_drifted:
        post_alert(settings, drifted(settings, name, report.causes, report.pair_version, report.data_until))
    lost = _lost_coverage(experiment, settings, report)
    if lost is not None:
        post_alert(settings, coverage_lost(settings, name, report.pair_version, *lost))


def _lost_coverage(experiment: ExperimentConfig, settings: Settings, report: DriftReport) -> tuple[float, float] | None:
    """Return the found and the meant coverage of a report's pair over its recent window, if too little is covered."""
    import pandas as pd

    from mlplatform.monitoring import summarise_errors

    if experiment.task != "forecast":
        return None
    until = pd.Timestamp(report.data_until)
    since = experiment.dataset.calendar.moment(until, -experiment.drift.recent_steps)
    found = summarise_errors(experiment, settings, ("version",), since, until)
    own = found[(found["version"] == report.pair_version) & (found["count"] >= experiment.drift.min_predictions)]
    own = own.dropna(subset=["covered", "coverage"])
    if own.empty:
        return None
    covered, meant = float(own["covered"].iloc[0]), float(own["coverage"].iloc[0])
    return (covered, meant) if covered < meant - LOST_COVERAGE else None


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
