"""Sensors: drift requests a training run as the retrain policy says; new data request an ingest.

What a sensor goes by is what is stored: reports, tables, and the runs that Dagster knows. Nothing hangs on a cursor, so
a sensor may be killed, restarted or reset at any moment.
"""

import datetime as dt
import hashlib
import json
from typing import TYPE_CHECKING

from dagster import (
    DagsterInstance,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.keys import (
    ATTEMPT_TAG,
    CAUSES_TAG,
    DRIFT_CAUSE_TAG,
    DRIFT_DATA_TAG,
    DRIFT_PAIR_TAG,
    DRIFT_ROWS_TAG,
    NEW_DATA_ID_TAG,
    NEW_DATA_TAG,
    REQUEST_TAG,
)
from mlplatform.defs.resources import PlatformResource
from mlplatform.defs.run_history import created_at, ended_at, failures_in_a_row, newest_runs, state_of, training_runs
from mlplatform.defs.switches import sensor_status
from mlplatform.defs.time_budget import LookTookTooLongError, within_budget
from mlplatform.settings import Settings

if TYPE_CHECKING:
    # What `define_asset_job` returns has no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# An ingest that failed is asked for again after a minute, then after twice as long each time, up to an hour.
INGEST_PAUSE_S, INGEST_LONGEST_PAUSE_S = 60.0, 3600.0


def drift_sensor(experiment: ExperimentConfig) -> SensorDefinition:
    """Return the sensor that turns drift of an experiment into a training run."""
    name = f"drift_{experiment.name}"

    @sensor(
        name=name,
        job_name=f"train_{experiment.name}",
        minimum_interval_seconds=experiment.automation.drift_interval_s,
        default_status=sensor_status("drift", experiment.automation.running),
        description="Requests a training run when drift reports and the retrain policy say so.",
    )
    def drift(context: SensorEvaluationContext, platform: PlatformResource) -> SensorResult | SkipReason:
        try:
            return within_budget(name, lambda: _decide(experiment, context.instance, platform.settings))
        except LookTookTooLongError as error:
            return SkipReason(str(error))

    return drift


def _decide(experiment: ExperimentConfig, instance: DagsterInstance, settings: Settings) -> SensorResult | SkipReason:
    """Decide, keep the decision with its inputs, and ask for the run."""
    from mlplatform.alerts import gave_up, post_alert, requested
    from mlplatform.monitoring.retraining import Inputs, Journal, Recorded, decide_retrain, named
    from mlplatform.promotion import read_active_pair

    now = dt.datetime.now(dt.UTC)
    journal = Journal(settings, experiment.name)
    inputs = Inputs(
        experiment=experiment.name,
        reports=journal.recent_reports(settings, now),
        runs=training_runs(instance, experiment.name, now, experiment.drift.retrain),
        window_hours=_window_hours(experiment),
        production=read_active_pair(experiment.name, settings),
    )
    decision = decide_retrain(inputs, experiment.drift, now)
    if inputs.reports:
        journal.append(Recorded(now, decision, inputs, experiment.drift))
    if decision.outcome == "gave_up":
        last = next((run.run_id for run in inputs.runs if run.request == decision.request), "")
        post_alert(settings, gave_up(settings, experiment.name, decision.causes, decision.request, last))
    if not decision.asks:
        return SkipReason(decision.reason)
    newest = inputs.reports[-1]
    # Delivered by the sensor `alerts`: a channel that is away must not hold this one up.
    alert = requested(settings, experiment.name, decision.causes, decision.request, decision.attempt)
    post_alert(settings, alert)
    request = RunRequest(
        # Dagster starts no second run with the same key, whoever asks for it again.
        run_key=f"{experiment.name}-{decision.request}-{decision.attempt}",
        run_config={"resources": {"training": {"config": {"split_version": decision.split_version}}}},
        tags={
            DRIFT_CAUSE_TAG: ", ".join(named(decision.causes)),
            DRIFT_PAIR_TAG: str(newest.pair_version),
            DRIFT_DATA_TAG: newest.data_until,
            **({} if newest.rows is None else {DRIFT_ROWS_TAG: str(newest.rows)}),
            REQUEST_TAG: decision.request,
            ATTEMPT_TAG: str(decision.attempt),
            CAUSES_TAG: json.dumps(named(decision.causes)),
        },
    )
    return SensorResult(run_requests=[request])


def _window_hours(experiment: ExperimentConfig) -> float | None:
    """Return the length of the recent window; `None` where rows have no time grid."""
    if experiment.task != "forecast":
        return None
    return experiment.drift.recent_steps * experiment.dataset.nominal_step.total_seconds() / 3600


def new_data_sensor(
    dataset: DatasetConfig, ingest: "UnresolvedAssetJobDefinition", materialize: "UnresolvedAssetJobDefinition"
) -> SensorDefinition:
    """Return the sensor that requests an ingest while a dataset's source has what its raw table was not made from.

    Rows that another process put into the raw table, such as the stream consumer, request a materialisation.

    Parameters:
        ingest, materialize: the dataset's jobs.
    """
    name = f"new_data_{dataset.name}"

    @sensor(
        name=name,
        jobs=[ingest, materialize],
        minimum_interval_seconds=dataset.automation.new_data_interval_s,
        default_status=sensor_status("new_data", dataset.automation.running),
        description="Requests an ingest while the source has news, or a materialisation while the raw table has.",
    )
    def new_data(context: SensorEvaluationContext, platform: PlatformResource) -> SensorResult | SkipReason:
        jobs = (ingest.name, materialize.name)
        try:
            return within_budget(name, lambda: _look_for_news(dataset, context.instance, platform.settings, *jobs))
        except LookTookTooLongError as error:
            return SkipReason(str(error))

    return new_data


def _look_for_news(
    dataset: DatasetConfig, instance: DagsterInstance, settings: Settings, ingest: str, materialize: str
) -> SensorResult | SkipReason:
    from mlplatform.data import open_raw, source_news
    from mlplatform.features.tables import is_behind

    news = source_news(dataset, settings)
    raw = open_raw(dataset, settings)
    if news is not None:
        job, cause = ingest, "the source has something new"
    elif is_behind(dataset, settings):
        job, cause = materialize, "the raw table has rows that are not materialised"
    else:
        return SkipReason(f"nothing new in {dataset.name}")
    found = json.dumps([dataset.name, job, news, raw.digest if raw else None])
    return _ask(job, hashlib.sha256(found.encode()).hexdigest()[:16], cause, instance)


def _ask(job: str, identity: str, cause: str, instance: DagsterInstance) -> SensorResult | SkipReason:
    """Ask for a run about some news, unless one is open or it is too soon after one that failed."""
    from mlplatform.monitoring.retraining import Attempts

    now = dt.datetime.now(dt.UTC)
    runs = newest_runs(instance, job)
    busy = next((run for run in runs if state_of(run, now) == "open"), None)
    if busy is not None:
        return SkipReason(f"{cause}, and run {busy.dagster_run.run_id} is not over yet")
    failed = failures_in_a_row(runs, now)
    if failed:
        pauses = Attempts(None, INGEST_PAUSE_S, INGEST_LONGEST_PAUSE_S)
        ready = pauses.ready_at(len(failed), ended_at(failed[0]) or created_at(failed[0]))
        if now < ready:
            run_id = failed[0].dagster_run.run_id
            return SkipReason(f"{cause}, but run {run_id} failed; it is tried again at {ready:%H:%M:%S} UTC")
    # The same news may come back after other news, so runs about it are counted; that makes the key one of its own.
    count = instance.get_runs_count(RunsFilter(job_name=job, tags={NEW_DATA_ID_TAG: identity}))
    request = RunRequest(
        run_key=f"{job}-{identity}-{count + 1}",
        job_name=job,
        tags={NEW_DATA_TAG: cause, NEW_DATA_ID_TAG: identity},
    )
    return SensorResult(run_requests=[request])
