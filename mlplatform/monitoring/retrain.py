"""The retrain policy: when a drift report starts a training run, and with which data."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass

from mlplatform.config import DriftConfig
from mlplatform.monitoring.report import DriftReport


@dataclass(frozen=True)
class RetrainState:
    """What the sensor remembers between ticks.

    Attributes:
        causes: ids of the causes already acted on.
        requested_at: when the last training run was requested, ISO 8601.
    """

    causes: tuple[str, ...] = ()
    requested_at: str | None = None

    def to_cursor(self) -> str:
        """Return the state as a sensor cursor."""
        return json.dumps(asdict(self))

    @classmethod
    def from_cursor(cls, cursor: str | None) -> RetrainState:
        """Read a sensor cursor; None is the empty state."""
        if not cursor:
            return cls()
        values = json.loads(cursor)
        return cls(tuple(values["causes"]), values["requested_at"])


@dataclass(frozen=True)
class RetrainDecision:
    """Whether to train, why or why not, and the state to remember.

    Attributes:
        split_version: split version of the training run: the active policy with the data up to the report's newest row.
    """

    retrain: bool
    reason: str
    state: RetrainState
    split_version: str = ""


def decide_retrain(
    report: DriftReport | None, state: RetrainState, policy: DriftConfig, now: dt.datetime
) -> RetrainDecision:
    """Decide on one report: train once per cause, and not again within the cool-down.

    While the data are broken nothing is trained, whatever has drifted.

    A drifted world needs a reference set of its own time, so the run is asked for a new split version: the same policy,
    cut at the newest row of the report. Candidate and champion are both judged on it.
    """
    if report is None:
        return RetrainDecision(False, "there is no drift report yet", state)
    if report.is_broken:
        broken = ", ".join(each.name for each in report.quality)
        return RetrainDecision(False, f"the data are broken ({broken}); nothing is trained on them", state)
    if not report.is_drifted:
        return RetrainDecision(False, f"no drift in the data up to {report.data_until}", state)
    causes = ", ".join(report.causes)
    if report.cause_id in state.causes:
        return RetrainDecision(False, f"training was already requested for {causes}", state)
    if state.requested_at is not None:
        waited = (now - dt.datetime.fromisoformat(state.requested_at)).total_seconds() / 3600
        if waited < policy.cooldown_hours:
            reason = (
                f"{causes}, but a run was requested {waited:.1f} h ago; the cool-down is {policy.cooldown_hours:g} h"
            )
            return RetrainDecision(False, reason, state)
    until = dt.datetime.fromisoformat(report.data_until).astimezone(dt.UTC)
    version = f"{report.split_version.partition('@')[0]}@{until:%Y%m%dT%H%M}"
    remembered = RetrainState((*state.causes, report.cause_id), now.isoformat(timespec="seconds"))
    return RetrainDecision(True, f"drift: {causes}", remembered, version)
