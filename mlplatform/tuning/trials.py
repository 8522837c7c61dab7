"""The trials of a study: the attributes they bear, and what can be asked about them.

Trials only: opening a study, resuming it and its file are in `tuning.study`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

# Columns of the table of trials that are not parameters.
COLUMNS = ("number", "state", "loss", "seconds")
# Attributes of the study and of its trials.
DIGEST = "digest"
CONFIGURED = "configured"
# Changes of the configured parameters, of a trial whose values nobody suggests.
CHANGES = "changes"
RETRIES = "retries"
ATTEMPT = "attempt"
WORKER = "worker"
OUTCOME = "outcome"
FIT_SECONDS = "fit_seconds"

# A trial whose process dies this often counts as failed: its parameters may be what kills it.
ATTEMPTS = 3


def interrupted(study: optuna.Study) -> set[int]:
    """Return the numbers of the trials that were, or are to be, repeated."""
    trials = study.get_trials(deepcopy=False)
    return {trial.user_attrs[RETRIES] for trial in trials if RETRIES in trial.user_attrs}


def position_of(study: optuna.Study, number: int) -> int:
    """Return a trial's place in the study as it would be had nothing been interrupted."""
    return number - sum(earlier < number for earlier in interrupted(study))


def running(study: optuna.Study, worker: str | None = None) -> list[FrozenTrial]:
    """Return the trials under way, all or those of one worker."""
    import optuna

    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    return [trial for trial in trials if worker is None or trial.user_attrs.get(WORKER) == worker]


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count towards the number of trials, in order of their numbers."""
    repeated = interrupted(study)
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state.is_finished() and trial.number not in repeated]


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """Return the completed trial with the smallest loss, the earlier of equals; `None` if none completed."""
    import optuna

    completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return min(completed, key=rank, default=None)


def rank(trial: FrozenTrial) -> tuple[float, int]:
    """Return what completed trials are ordered by."""
    assert trial.value is not None
    return trial.value, trial.number


def row_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial as a row of the table of trials; only one that ran to its end has a `loss`.

    What a pruned trial last reported is of a part of the folds, or in preprocessed space: it would look better beside
    the others without being so. A parameter that is called like one of the columns, such as `loss`, is `params.loss`.
    """
    seconds = trial.duration.total_seconds() if trial.duration else None
    loss = trial.value if trial.state.name == "COMPLETE" else None
    tried = trial.user_attrs.get(CHANGES, {}) | trial.params
    about = dict(zip(COLUMNS, (trial.number, trial.state.name, loss, seconds), strict=True))
    return about | {f"params.{name}" if name in COLUMNS else name: value for name, value in tried.items()}


def saved_share(trials: Sequence[FrozenTrial]) -> float:
    """Return the share of the compute that pruning saved, between 0 and 1.

    A pruned trial is taken to have cost, in full, the median of the completed ones; what trials spent beyond that
    counts against the saving, so the result can be below 0.
    """
    costs = {state: [float(t.user_attrs.get(FIT_SECONDS, 0.0)) for t in trials if t.state.name == state]
             for state in ("COMPLETE", "PRUNED")}  # fmt: skip
    full = sum(costs["COMPLETE"])
    if not full:
        return 0.0
    full += len(costs["PRUNED"]) * float(np.median(costs["COMPLETE"]))
    return 1.0 - (sum(costs["COMPLETE"]) + sum(costs["PRUNED"])) / full
