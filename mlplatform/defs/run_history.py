"""What became of the runs of a job, as the sensors' decisions need it.

Here: Dagster's run records as plain values.
Not here: what follows from them (`monitoring.retraining`).
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter

from mlplatform.config import RetrainConfig
from mlplatform.defs.keys import (
    ATTEMPT_TAG,
    CAUSES_TAG,
    DRIFT_DATA_TAG,
    DRIFT_PAIR_TAG,
    DRIFT_ROWS_TAG,
    REQUEST_TAG,
)

if TYPE_CHECKING:
    # What stands behind it loads pandas.
    from mlplatform.monitoring.retraining import RunFacts, RunState

# Runs of any kind that a decision looks back on.
NEWEST_RUNS = 30
# The daily budget of the policy is about so much.
BUDGET_TIME = dt.timedelta(hours=24)
# Tries of a request that are looked for by their numbers; pauses of a day make years of so many.
MOST_TRIES = 1000
# A run that was created and never launched, by a daemon that was killed for good, or that Dagster said it would repeat
# and did not, is given up after this.
ABANDONED_AFTER = dt.timedelta(hours=1)
# Dagster's own tags of a run that it repeats by itself.
WILL_RETRY, RETRIED_BY = "dagster/will_retry", "dagster/auto_retry_run_id"

logger = logging.getLogger(__name__)


def newest_runs(instance: DagsterInstance, job: str) -> list[RunRecord]:
    """Return the newest runs of a job, newest first, without those that Dagster has repeated by itself."""
    return _in_order(instance.get_run_records(RunsFilter(job_name=job), limit=NEWEST_RUNS))


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


def training_runs(
    instance: DagsterInstance, experiment: str, now: dt.datetime, retrain: RetrainConfig | None = None
) -> tuple[RunFacts, ...]:
    """Return the training runs of an experiment that a retrain decision may need, newest first.

    They are the newest of any kind; those that drift asked for since what was acted on is forgotten, with every other
    try of their requests; and the last one that drift asked for, however long ago. How many other runs there are in
    between does not matter.

    Parameters:
        retrain: the policy; by default, one without any changes.
    """
    retrain, job = retrain or RetrainConfig(), f"train_{experiment}"
    since = now - max(dt.timedelta(hours=retrain.expire_hours), BUDGET_TIME)
    # Dagster finds no runs by a tag alone, so by the values that it has: which try of its request a run is.
    tries = {ATTEMPT_TAG: [str(number) for number in range(1, MOST_TRIES + 1)]}
    asked = list(instance.get_run_records(RunsFilter(job_name=job, tags=tries, created_after=since)))
    asked += instance.get_run_records(RunsFilter(job_name=job, tags=tries), limit=1)
    requests = sorted({request for each in asked if (request := each.dagster_run.tags.get(REQUEST_TAG))})
    if requests:
        older = RunsFilter(job_name=job, tags={REQUEST_TAG: requests}, created_before=since)
        asked += instance.get_run_records(older)
    return tuple(_facts(record, now) for record in _in_order([*newest_runs(instance, job), *asked]))


def _in_order(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return runs once each, newest first, without those that Dagster has repeated by itself."""
    once = {record.storage_id: record for record in records if RETRIED_BY not in record.dagster_run.tags}
    return [once[number] for number in sorted(once, reverse=True)]


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
    attempt = _number(run.tags, ATTEMPT_TAG)
    return RunFacts(
        run_id=run.run_id,
        state=state,
        created_at=created_at(record).isoformat(timespec="seconds"),
        ended_at=None if ended is None or state == "open" else ended.isoformat(timespec="seconds"),
        request=run.tags.get(REQUEST_TAG),
        attempt=1 if attempt is None else attempt,
        causes=_causes(run),
        pair_version=_number(run.tags, DRIFT_PAIR_TAG),
        data_until=_data_until(run),
        rows=_number(run.tags, DRIFT_ROWS_TAG),
    )


def _number(tags: Mapping[str, str], name: str) -> int | None:
    value = tags.get(name, "")
    return int(value) if value.isdecimal() else None


def _causes(run: DagsterRun) -> tuple[str, ...]:
    """Return the causes that a run was asked for; none, with a warning, where people have written something else."""
    text = run.tags.get(CAUSES_TAG, "[]")
    try:
        causes = json.loads(text)
    except ValueError:
        causes = None
    if isinstance(causes, list) and all(isinstance(cause, str) for cause in causes):
        return tuple(causes)
    logger.warning(
        "run %s: its tag %s is %r, not a JSON list of names; its causes are left out", run.run_id, CAUSES_TAG, text
    )
    return ()


def _data_until(run: DagsterRun) -> str | None:
    text = run.tags.get(DRIFT_DATA_TAG)
    try:
        if text is not None:
            dt.datetime.fromisoformat(text)
    except ValueError:
        logger.warning("run %s: its tag %s is %r, not an ISO 8601 time", run.run_id, DRIFT_DATA_TAG, text)
        return None
    return text
