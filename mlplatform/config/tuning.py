"""The search for hyperparameters, and the nested cross-validation of the whole procedure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlplatform.config.base import Frozen


class TuningConfig(Frozen):
    """How many trials, for how long, where they run, and when to prune one.

    The search ends when `trials` have finished, when `timeout_s` has passed since it started or was resumed (trials
    under way end first), or when `patience_trials` in a row finished without one whose loss is smaller than the best
    before by `min_improvement`, a share of that best loss.

    `executor` names what runs the trials; by default one after another, each on all cores. Of an executor that runs
    several at a time, `workers` is their number, by default one per core.

    A trial reports after every fold, and with `prune_at: step` also after every epoch (networks) or booster (direct
    multi-horizon XGBoost). It is compared with what other trials reported at the same point: at the end of a fold all
    have spent what their parameters take, while after equally many epochs slow learners, which often end best, are
    behind. `pruner_startup_trials` run to the end before any is pruned, and none in its first `warmup_steps` reports.

    The configuration itself is kept unless the best trial gains more than `standard_errors` standard errors of the gain
    over the folds; with 0 the best trial is always chosen.

    With `alternatives`, a search of a family's own space tries next what the family names: for boosted forecasts the
    configuration on a linear model.
    """

    trials: int = Field(default=1, ge=1)
    timeout_s: float | None = Field(default=None, gt=0)
    patience_trials: int | None = Field(default=None, ge=1)
    min_improvement: float = Field(default=0.0, ge=0, lt=1)
    executor: str = "inline"
    workers: int | None = Field(default=None, ge=1)
    prune_at: Literal["fold", "step"] = "step"
    pruner_startup_trials: int = Field(default=3, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    standard_errors: float = Field(default=0.0, ge=0)
    alternatives: bool = False


class NestedConfig(Frozen):
    """Nested cross-validation: how good is the training procedure, tuning included, on rows it never saw?

    `outer_folds: 0` does without. Tables and forecasts of whole entities are split by the experiment's own scheme,
    other forecasts by expanding windows with its `validation_steps` and `gap`.
    """

    outer_folds: int = Field(default=0, ge=0, le=50)

    @property
    def fold_names(self) -> tuple[str, ...]:
        """Partition keys of the outer folds."""
        return tuple(f"outer_{k}" for k in range(self.outer_folds))
