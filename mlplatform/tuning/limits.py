"""When a search ends: enough trials, enough time, or no progress for long enough."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlplatform.config import ExperimentConfig
from mlplatform.tuning.search_space import space_of
from mlplatform.tuning.trials import finished, running

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def trial_budget(config: ExperimentConfig) -> int:
    """Return how many trials the search is to finish: one where there is nothing to search."""
    return config.tuning.trials if space_of(config) else 1


def may_start(config: ExperimentConfig, study: optuna.Study, deadline: float | None) -> bool:
    """Return whether another trial may start now.

    Parameters:
        deadline: in Unix time; it never keeps the first trial from running.
    """
    done = finished(study)
    if len(done) + len(running(study)) >= trial_budget(config):
        return False
    if done and deadline is not None and time.time() >= deadline:
        return False
    patience = config.tuning.patience_trials
    return patience is None or trials_without_progress(done, config.tuning.min_improvement) < patience


def trials_without_progress(done: Sequence[FrozenTrial], min_improvement: float) -> int:
    """Return how many trials finished since one was better than all before it by the least improvement.

    Parameters:
        done: finished trials.
        min_improvement: share of the best loss before, for example 0.01.
    """
    best = float("inf")
    since = 0
    # As they finished: workers run trials side by side.
    for trial in sorted(done, key=lambda each: (each.datetime_complete, each.number)):
        since += 1
        if trial.state.name != "COMPLETE" or trial.value is None:
            continue
        if best == float("inf") or trial.value < best - min_improvement * abs(best):
            since = 0
            best = trial.value
    return since
