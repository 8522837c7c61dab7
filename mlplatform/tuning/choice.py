"""Which trial a search chooses: the best one, or the configuration itself where the best one may only be lucky."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlplatform.config import ExperimentConfig
from mlplatform.plugins import METRICS
from mlplatform.tuning.objective import FittedTrial
from mlplatform.tuning.study import from_json
from mlplatform.tuning.trials import CONFIGURED, OUTCOME, best_of, finished

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def chosen_of(config: ExperimentConfig, study: optuna.Study) -> FrozenTrial | None:
    """Return the trial whose parameters the search chooses; `None` if none completed."""
    best, configured = best_of(study), configured_of(study)
    errors = config.tuning.standard_errors
    if not errors or best is None or configured is None:
        return best
    first, second = (from_json(trial.user_attrs[OUTCOME]) for trial in (configured, best))
    return best if is_beyond_noise(first, second, config.metric, errors) else configured


def configured_of(study: optuna.Study) -> FrozenTrial | None:
    """Return the completed trial of the configuration itself."""
    trials = (trial for trial in finished(study) if trial.user_attrs.get(CONFIGURED) and trial.value is not None)
    return next((trial for trial in trials if trial.state.name == "COMPLETE"), None)


def is_beyond_noise(configured: FittedTrial, best: FittedTrial, metric: str, errors: float) -> bool:
    """Return whether the best trial's gain exceeds so many standard errors of the gain, taken over the folds.

    The one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984), on paired differences.
    """
    loss = METRICS.get(metric).loss
    gains = np.array(
        [loss(mine[metric]) - loss(its[metric])
         for mine, its in zip(configured.fold_scores, best.fold_scores, strict=True)]
    )  # fmt: skip
    if len(gains) < 2:
        return bool(gains.mean() > 0)
    return bool(gains.mean() > errors * gains.std(ddof=1) / np.sqrt(len(gains)))
