"""What became of the runs of a job, as the sensors' decisions need it.

Here: Dagster's run records as plain values.
Not here: what follows from them (`monitoring.retraining`).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

from mlplatform.defs.keys import ATTEMPT_TAG, CAUSES_TAG, DRIFT_DATA_TAG, DRIFT_PAIR_TAG, REQUEST_TAG

if TYPE_CHECKING:
    # What stands behind it loads pandas.
    from mlplatform.monitoring.retraining import RunFacts, RunState

# Runs that a decision looks back on.
NEWEST_RUNS = 30
# A run that was created and never launched, by a daemon that was killed for good, or that Dagster said it would repeat
# and did not, is given up after this.
ABANDONED_AFTER = dt.timedelta(hours=1)
# Dagster's own tags of a run that it repeats by itself.
WILL_RETRY, RETRIED_BY = "dagster/will_retry", "dagster/auto_retry_run_id"


def newest_runs(instance: DagsterInstance, job: str) -> list[RunRecord]:
    """Return the newest runs of a job, newest first, without those that Dagster has repeated by itself."""
    records = instance.get_run_records(RunsFilter(job_name=job), limit=NEWEST_RUNS)
    return [record for record in records if RETRIED_BY not in record.dagster_run.tags]


def state_of(record: RunRecord, now: dt.datetime) -> RunState:
    """Return whether a run is open or how it ended."""
    run = record.dagster_run
    is_young = now - created_at(record) < ABANDONED_AFTER
    if run.status == DagsterRunStatus.SUCCESS:
        return "succeeded"
    if run.status in (DagsterRunStatus.CANCELED, DagsterRunStatus.CANCELING):
        return "canceled"
    if run.status == DagsterRunStatus.FAILURE:
        is_repeated_soon = now - (ended_at(record) or created_at(record)) < ABANDONED_AFTER
        return "open" if run.tags.get(WILL_RETRY) == "true" and is_repeated_soon else "failed"
    if run.status == DagsterRunStatus.NOT_STARTED:
        return "open" if is_young else "failed"
    return "open"


def created_at(record: RunRecord) -> dt.datetime:
    """Return when a run was created, in UTC."""
    time = record.create_timestamp
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def ended_at(record: RunRecord) -> dt.datetime | None:
    """Return when a run ended; `None` while it has not."""
    return None if record.end_time is None else dt.datetime.fromtimestamp(record.end_time, dt.UTC)


def training_runs(instance: DagsterInstance, experiment: str, now: dt.datetime) -> tuple[RunFacts, ...]:
    """Return the newest training runs of an experiment, newest first."""
    return tuple(_facts(record, now) for record in newest_runs(instance, f"train_{experiment}"))


def failures_in_a_row(records: Sequence[RunRecord], now: dt.datetime) -> list[RunRecord]:
    """Return the failed runs since the last one that ended well, newest first."""
    failed: list[RunRecord] = []
    for record in records:
        if state_of(record, now) != "failed":
            break
        failed.append(record)
    return failed


def _facts(record: RunRecord, now: dt.datetime) -> RunFacts:
    from mlplatform.monitoring.retraining import RunFacts

    run, ended = record.dagster_run, ended_at(record)
    state = state_of(record, now)
    version, attempt = run.tags.get(DRIFT_PAIR_TAG, ""), run.tags.get(ATTEMPT_TAG, "")
    return RunFacts(
        run_id=run.run_id,
        state=state,
        created_at=created_at(record).isoformat(timespec="seconds"),
        ended_at=None if ended is None or state == "open" else ended.isoformat(timespec="seconds"),
        request=run.tags.get(REQUEST_TAG),
        attempt=int(attempt) if attempt.isdecimal() else 1,
        causes=tuple(json.loads(run.tags.get(CAUSES_TAG, "[]"))),
        pair_version=int(version) if version.isdecimal() else None,
        data_until=run.tags.get(DRIFT_DATA_TAG),
    )
