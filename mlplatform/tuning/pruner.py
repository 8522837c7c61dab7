"""The pruner: stop a trial whose latest report is worse than the median of earlier trials at the same step."""

from __future__ import annotations

import math

import numpy as np
import optuna


class MedianAtStep(optuna.pruners.BasePruner):
    """The median stopping rule (Golovin et al., Google Vizier, KDD 2017) on the value reported last.

    Optuna's own `MedianPruner` compares the best value over all steps of a trial. Here steps differ in scale: within a
    fold they are losses in preprocessed space, at its end they are the metric in original units, and one easy fold
    would keep a trial alive through all the others. So a value is only ever compared with values of its own step.

    Parameters:
        startup_trials: completed trials before the first one can be pruned.
        warmup_steps: steps of a trial before it can be pruned.
    """

    def __init__(self, startup_trials: int, warmup_steps: int) -> None:
        self.startup_trials = startup_trials
        self.warmup_steps = warmup_steps

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Return whether the trial should stop now; a value that is not a number always stops it."""
        step = trial.last_step
        if step is None:
            return False
        latest = trial.intermediate_values[step]
        if math.isnan(latest):
            return True
        completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        earlier = [each.intermediate_values[step] for each in completed if step in each.intermediate_values]
        if not earlier or len(completed) < self.startup_trials or step < self.warmup_steps:
            return False
        return latest > float(np.median(earlier))
