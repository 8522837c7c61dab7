"""Any policy over the stored history: what would it have asked for?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from mlplatform.config import DriftConfig
from mlplatform.monitoring.retraining.facts import RunFacts, named
from mlplatform.monitoring.retraining.journal import Recorded
from mlplatform.monitoring.retraining.policy import RetrainDecision, decide_retrain


@dataclass(frozen=True)
class Replayed:
    """One moment of the history: what was decided then, and what the other policy decides."""

    at: dt.datetime
    then: RetrainDecision
    now: RetrainDecision


def replay_policy(
    history: Iterable[Recorded], policy: DriftConfig, *, runs: Literal["own", "recorded"] = "own"
) -> list[Replayed]:
    """Return what a policy decides at every moment at which something was decided.

    Parameters:
        history: decisions as `Journal.read` yields them, oldest first.
        runs: `own` forgets the runs that drift asked for and takes every request of the policy itself for a run that
            succeeds at once, which answers how often it would have trained; what was launched otherwise stays. It does
            not know what such a run would have changed: the reports stay those about the pairs that were there.
            `recorded` leaves the runs as they were; the policy of then decides as it did then.
    """
    replayed: list[Replayed] = []
    own: list[RunFacts] = []
    for record in history:
        inputs = record.inputs.known_at(record.at)
        if runs == "own":
            others = [run for run in inputs.runs if run.request is None]
            inputs = replace(inputs, runs=(*reversed(own), *others))
        decision = decide_retrain(inputs, policy, record.at)
        if decision.asks and runs == "own":
            newest, at = inputs.reports[-1], record.at.isoformat()
            own.append(
                RunFacts(
                    run_id=f"replayed-{len(own) + 1}",
                    state="succeeded",
                    created_at=at,
                    ended_at=at,
                    request=decision.request,
                    causes=named(decision.causes),
                    pair_version=newest.pair_version,
                    data_until=newest.data_until,
                    rows=newest.rows,
                )
            )
        replayed.append(Replayed(record.at, record.decision, decision))
    return replayed
