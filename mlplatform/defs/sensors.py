"""Sensors: a drift report that says so requests a training run, once per cause and within a cool-down."""

import datetime as dt

from dagster import (
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from mlplatform.config import ExperimentConfig
from mlplatform.defs.resources import PlatformResource

INTERVAL_S = 60


def drift_sensor(experiment: ExperimentConfig) -> SensorDefinition:
    """Return the sensor that turns drift of an experiment into a training run."""

    @sensor(
        name=f"drift_{experiment.name}",
        job_name=f"train_{experiment.name}",
        minimum_interval_seconds=INTERVAL_S,
        default_status=DefaultSensorStatus.STOPPED,
        description="Requests a training run when the drift report says so. Off by default.",
    )
    def drift(context: SensorEvaluationContext, platform: PlatformResource) -> SensorResult | SkipReason:
        from mlplatform.monitoring.drift import read_report
        from mlplatform.monitoring.retrain import RetrainState, decide_retrain

        report = read_report(platform.settings, experiment.name)
        state = RetrainState.from_cursor(context.cursor)
        decision = decide_retrain(report, state, experiment.drift, dt.datetime.now(dt.UTC))
        if not decision.retrain or report is None:
            return SkipReason(decision.reason)
        request = RunRequest(
            # The run key holds even if the cursor is lost: Dagster starts no second run with the same one.
            run_key=f"{experiment.name}-{report.cause_id}",
            run_config={"resources": {"training": {"config": {"split_version": decision.split_version}}}},
            tags={"drift/cause": ", ".join(report.causes), "drift/pair_version": str(report.pair_version)},
        )
        return SensorResult(run_requests=[request], cursor=decision.state.to_cursor())

    return drift
