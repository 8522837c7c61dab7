"""The retrain policy: whether drift reports and what became of earlier runs ask for a training run now.

A pure function of its inputs, the policy and the time. It asks for the same request as long as nothing changed, so that
whoever asks on its behalf may be killed and ask again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlplatform.config import DriftConfig
from mlplatform.monitoring.retraining.attempts import Attempts
from mlplatform.monitoring.retraining.facts import ERRORS, FEATURE, Inputs, ReportFacts, RunFacts
from mlplatform.state_files import is_ahead, moment

Outcome = Literal["train", "retry", "wait", "blocked", "warned", "unconfirmed", "done", "gave_up", "outdated", "quiet"]


@dataclass(frozen=True)
class RetrainDecision:
    """What to do, and why.

    Attributes:
        outcome: `train` and `retry` ask for a run. `wait`: a run is open, or it is too soon. `blocked`: the data are
            broken. `warned`: only what starts no run drifted. `unconfirmed`: too few reports show it. `done`: a run has
            acted on it. `gave_up`: every try failed. `outdated`: the newest report is about another pair, or too old.
        causes: what is on.
        request: the same for the same causes of the same data, as long as drift asks for no other run; with `attempt`
            it names the run.
        attempt: which try this is, from 1; 0 where no run is asked for.
        split_version: the active policy with the data up to the newest report's newest row, of rows without times
            with those that were there when the report was made.
    """

    outcome: Outcome
    reason: str
    causes: tuple[str, ...] = ()
    request: str = ""
    attempt: int = 0
    split_version: str = ""

    @property
    def asks(self) -> bool:
        """Whether a run is asked for."""
        return self.outcome in ("train", "retry")


def decide_retrain(inputs: Inputs, policy: DriftConfig, now: dt.datetime) -> RetrainDecision:
    """Decide whether to train now.

    A drifted world needs a reference set of its own time, so a run is asked for a new split version: the same policy,
    cut at the newest row of the report, or when it was made. Candidate and champion are both judged on it. Reports and
    times of runs that are further ahead of `now` than clocks differ say nothing.
    """
    inputs = inputs.known_at(now)
    if not inputs.reports:
        return RetrainDecision("quiet", "there is no drift report yet")
    newest = inputs.reports[-1]
    outdated = _outdated(newest, inputs, policy, now)
    if outdated:
        return RetrainDecision("outdated", outdated)
    if newest.broken:
        return RetrainDecision(
            "blocked", f"the data are broken ({', '.join(newest.broken)}); nothing is trained on them"
        )
    on = causes_on(inputs, policy)
    if not on:
        return _not_on(newest, policy)
    starting = tuple(cause for cause in on if _kind(cause) in policy.retrain.triggers)
    if not starting:
        return RetrainDecision(
            "warned",
            f"{_listed(on)} drifted; only {' and '.join(policy.retrain.triggers) or 'nothing'} starts a run "
            "(drift.retrain.triggers)",
            on,
        )
    return _act(newest, on, starting, inputs, policy, now)


def causes_on(inputs: Inputs, policy: DriftConfig) -> tuple[str, ...]:
    """Return the causes that are on after the reports about the pair of the newest one.

    Reports on the same newest row are one report, of rows without times those of one day, and those on broken data say
    nothing.
    """
    asked, champion = policy.retrain, inputs.reports[-1].pair_version
    sound = [each for each in inputs.reports if each.pair_version == champion and not each.broken]
    if inputs.window_hours is None:
        seen = list({each.created_at[:10]: each for each in sound}.values())
    else:
        newest = {each.data_until: each for each in sound}
        seen = sorted(newest.values(), key=lambda each: moment(each.data_until))
    on: list[str] = []
    for cause in dict.fromkeys(cause for report in seen for cause in report.causes):
        shown: list[bool] = []
        is_on, clear = False, 0
        for report in seen:
            shown = [*shown, report.shows(cause)][-asked.reports :]
            clear = clear + 1 if report.clears(cause, policy.clear_error_ratio) else 0
            if clear >= asked.clear_reports:
                is_on, shown = False, []
            elif sum(shown) >= asked.confirm:
                is_on = True
        if is_on:
            on.append(cause)
    return tuple(on)


def _outdated(newest: ReportFacts, inputs: Inputs, policy: DriftConfig, now: dt.datetime) -> str:
    age = _hours(now - moment(newest.created_at))
    if age > policy.retrain.expire_hours:
        return f"the newest drift report is {age:.0f} h old; {policy.retrain.expire_hours:g} h is the limit"
    if inputs.production not in (None, newest.pair_version):
        return (
            f"the newest drift report is about version {newest.pair_version}, but {inputs.production} is in production"
        )
    return ""


def _not_on(newest: ReportFacts, policy: DriftConfig) -> RetrainDecision:
    if newest.causes:
        asked = policy.retrain
        return RetrainDecision(
            "unconfirmed",
            f"{_listed(newest.causes)} drifted in the data up to {newest.data_until}, but not yet in {asked.confirm} "
            f"of {asked.reports} reports",
        )
    return RetrainDecision("quiet", f"no drift in the data up to {newest.data_until}")


def _act(
    newest: ReportFacts,
    on: tuple[str, ...],
    starting: tuple[str, ...],
    inputs: Inputs,
    policy: DriftConfig,
    now: dt.datetime,
) -> RetrainDecision:
    """Decide on causes that start a run: has one acted on them, and if not, is it time?"""
    busy = next((run for run in inputs.runs if run.state == "open"), None)
    if busy is not None:
        return RetrainDecision("wait", f"{_listed(on)}, but run {busy.run_id} is not over yet", on)
    asked = [run for run in inputs.runs if run.request]
    acted = [run for run in asked if run.covers(starting) and _is_about(run, newest, inputs, policy, now)]
    ended = next((run for run in acted if run.state != "failed"), None)
    if ended is not None:
        return RetrainDecision("done", f"run {ended.run_id} has {ended.state} on {_listed(starting)} already", on)
    # A request is forgotten as a whole, with its last try: one that is half forgotten would be tried without end.
    same = [run for run in asked if run.request == acted[0].request] if acted else []
    tries = [run for run in same if run.state == "failed"]
    limits = Attempts(policy.retrain.max_retries, policy.retrain.retry_minutes * 60)
    if tries and limits.are_used_up(len(tries)):
        return RetrainDecision(
            "gave_up",
            f"{len(tries)} runs for {_listed(starting)} failed, the last one is {tries[0].run_id}",
            on,
            tries[0].request or "",
        )
    too_soon = _too_soon(tries, asked, limits, policy, now)
    if too_soon:
        return RetrainDecision("wait", f"{_listed(on)}, but {too_soon}", on)
    return RetrainDecision(
        "retry" if tries else "train",
        f"run {tries[0].run_id} for {_listed(starting)} failed" if tries else f"drift: {_listed(on)}",
        on,
        tries[0].request or "" if tries else _request(inputs.experiment, newest, on, asked),
        max((run.attempt for run in same), default=0) + 1,
        f"{newest.split_version.partition('@')[0]}@{_rows_until(newest, inputs.window_hours):%Y%m%dT%H%M}",
    )


def _is_about(run: RunFacts, newest: ReportFacts, inputs: Inputs, policy: DriftConfig, now: dt.datetime) -> bool:
    """Return whether a run's request was about the same pair and about the newest report's data, for the most part."""
    if run.pair_version != newest.pair_version:
        return False
    if _hours(now - moment(run.created_at)) > policy.retrain.expire_hours:
        return False
    return new_share(newest, run, inputs.window_hours, policy.recent_steps) < policy.retrain.new_data


def new_share(newest: ReportFacts, run: RunFacts, window_hours: float | None, window_rows: int) -> float:
    """Return which share of the recent window is newer than what a run was asked for, from 0 to 1.

    Parameters:
        window_hours: length of the window; `None` for tables.
        window_rows: its length for tables, which are told apart by how many rows were added since.
    """
    if window_hours is None and newest.rows is not None and run.rows is not None:
        return min(max((newest.rows - run.rows) / window_rows, 0.0), 1.0)
    if run.data_until is None:
        return 1.0
    newer = _hours(moment(newest.data_until) - moment(run.data_until))
    if not window_hours:
        return float(newer > 0)
    return min(max(newer / window_hours, 0.0), 1.0)


def _rows_until(report: ReportFacts, window_hours: float | None) -> dt.datetime:
    """Return the moment that cuts off the rows a report has not seen; rows without times have one for all."""
    until = moment(report.data_until)
    return moment(report.created_at) if window_hours is None and until == _timeless() else until


def _timeless() -> dt.datetime:
    """Return what stands in place of the time in tables without one."""
    # What stands behind it loads pandas.
    from mlplatform.data import TIMELESS

    found: dt.datetime = TIMELESS.astype("datetime64[us]").item()
    return found.replace(tzinfo=dt.UTC)


def _too_soon(
    tries: Sequence[RunFacts], asked: Sequence[RunFacts], limits: Attempts, policy: DriftConfig, now: dt.datetime
) -> str:
    """Return why a run must wait, or nothing; a run that ended or began in the future holds up nobody until then."""
    timed = [run for run in tries if not is_ahead(moment(run.ended_at or run.created_at), now)]
    asked = [run for run in asked if not is_ahead(moment(run.created_at), now)]
    if timed:
        ready = limits.ready_at(len(tries), moment(timed[0].ended_at or timed[0].created_at))
        if now < ready:
            return f"run {timed[0].run_id} failed; it is tried again at {ready.isoformat(timespec='minutes')}"
    elif asked and not tries:
        waited = _hours(now - moment(asked[0].created_at))
        if waited < policy.cooldown_hours:
            return f"a run was requested {waited:.1f} h ago; the cool-down is {policy.cooldown_hours:g} h"
    today = [run for run in asked if _hours(now - moment(run.created_at)) < 24]
    if len(today) >= policy.retrain.max_per_day:
        return f"{len(today)} runs were requested within 24 h; {policy.retrain.max_per_day} are the limit"
    return ""


def _request(experiment: str, newest: ReportFacts, causes: Sequence[str], asked: Sequence[RunFacts]) -> str:
    """Return the name of a new request.

    The run that drift asked for before is part of it: what comes after that is another request, though neither causes
    nor data have changed. A look that is repeated before there is a run finds the same one before it.
    """
    before = asked[0].run_id if asked else None
    about = [experiment, newest.pair_version, sorted(causes), newest.data_until, newest.rows, before]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _kind(cause: str) -> str:
    return "features" if cause.startswith(FEATURE) else ERRORS


def _listed(causes: Sequence[str]) -> str:
    more = len(causes) - 5
    return ", ".join(causes[:5]) + (f" and {more} more" if more > 0 else "")


def _hours(length: dt.timedelta) -> float:
    return length.total_seconds() / 3600
