"""The pruner: stop a trial whose latest report is worse than the median of earlier trials at the same step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna


@dataclass(frozen=True)
class Thresholds:
    """What the pruner would decide now, as plain values that can travel to where a trial runs.

    Attributes:
        medians: step -> median of the completed trials' reports at it; empty while too few completed.
        warmup_steps: steps of a trial before it can be pruned.
    """

    medians: Mapping[int, float]
    warmup_steps: int

    def stops(self, value: float, step: int) -> bool:
        """Return whether a trial that reports this value at this step should stop."""
        if math.isnan(value):
            return True
        return step >= self.warmup_steps and step in self.medians and value > self.medians[step]


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
        completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        return self._thresholds(completed, (step,)).stops(trial.intermediate_values[step], step)

    def thresholds(self, study: optuna.Study) -> Thresholds:
        """Return what every report of a trial would be compared with now."""
        completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        return self._thresholds(completed, {step for trial in completed for step in trial.intermediate_values})

    def _thresholds(self, completed: Sequence[optuna.trial.FrozenTrial], steps: Iterable[int]) -> Thresholds:
        medians = {}
        if len(completed) >= self.startup_trials:
            for step in steps:
                earlier = [t.intermediate_values[step] for t in completed if step in t.intermediate_values]
                if earlier:
                    medians[step] = float(np.median(earlier))
        return Thresholds(medians, self.warmup_steps)
