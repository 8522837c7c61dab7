"""Sensors: drift requests a training run, once per cause and within a cool-down; new data request an ingest."""

import datetime as dt
import hashlib
import json
from typing import TYPE_CHECKING

from dagster import (
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.resources import PlatformResource

if TYPE_CHECKING:
    # What `define_asset_job` returns has no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def drift_sensor(experiment: ExperimentConfig) -> SensorDefinition:
    """Return the sensor that turns drift of an experiment into a training run."""

    @sensor(
        name=f"drift_{experiment.name}",
        job_name=f"train_{experiment.name}",
        minimum_interval_seconds=experiment.automation.drift_interval_s,
        default_status=DefaultSensorStatus.STOPPED,
        description="Requests a training run when the drift report says so. Off by default.",
    )
    def drift(context: SensorEvaluationContext, platform: PlatformResource) -> SensorResult | SkipReason:
        from mlplatform.monitoring import RetrainState, decide_retrain, read_report

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


def new_data_sensor(
    dataset: DatasetConfig, ingest: "UnresolvedAssetJobDefinition", materialize: "UnresolvedAssetJobDefinition"
) -> SensorDefinition:
    """Return the sensor that requests an ingest when a dataset's source has something new.

    Rows that another process put into the raw table, such as the stream consumer, request a materialisation.

    Parameters:
        ingest, materialize: the dataset's jobs.
    """

    @sensor(
        name=f"new_data_{dataset.name}",
        jobs=[ingest, materialize],
        minimum_interval_seconds=dataset.automation.new_data_interval_s,
        default_status=DefaultSensorStatus.STOPPED,
        description="Requests an ingest when the source changed, or a materialisation when the raw table did.",
    )
    def new_data(context: SensorEvaluationContext, platform: PlatformResource) -> SensorResult | SkipReason:
        from mlplatform.data import open_raw
        from mlplatform.data.sources import open_source
        from mlplatform.features.tables import is_behind

        settings = platform.settings
        raw = open_raw(dataset, settings)
        seen = json.loads(context.cursor or "{}")
        now = {"source": open_source(dataset).fingerprint(dataset, settings), "raw": raw.digest if raw else None}
        if now["source"] is not None and now["source"] != seen.get("source"):
            job, cause = ingest, "the source has something new"
        elif is_behind(dataset, settings) and now["raw"] != seen.get("raw"):
            job, cause = materialize, "the raw table has rows that are not materialised"
        else:
            return SkipReason(f"nothing new since the last look at {dataset.name}")
        count = seen.get("count", 0) + 1
        digest = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()[:16]
        request = RunRequest(run_key=f"{dataset.name}-{count}-{digest}", job_name=job.name, tags={"new_data": cause})
        return SensorResult(run_requests=[request], cursor=json.dumps({**now, "count": count}))

    return new_data
