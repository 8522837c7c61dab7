"""Prediction intervals and the quantiles behind them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlplatform.config.base import Frozen


class UncertaintyConfig(Frozen):
    """The prediction intervals of an experiment.

    `coverage` is the share of truths that the intervals are meant to cover; `null` makes none. They are calibrated on
    the held-out folds for every family. With `quantiles`, ascending and in pairs around 0.5, a family that can is
    fitted to these quantiles instead of the mean; its point prediction is the median.

    `calibration: auto` chooses on the folds whether the bounds have margins of their own and what windows are measured
    by, and weighs later folds more; `symmetric` has one margin for both bounds.
    """

    coverage: float | None = Field(default=0.8, gt=0, lt=1)
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    calibration: Literal["symmetric", "auto"] = "symmetric"

    @model_validator(mode="after")
    def _pairs_around_the_median(self) -> UncertaintyConfig:
        if not self.quantiles:
            return self
        mirrored = tuple(round(1 - level, 6) for level in reversed(self.quantiles))
        if list(self.quantiles) != sorted(set(self.quantiles)) or mirrored != tuple(
            round(q, 6) for q in self.quantiles
        ):
            raise ValueError(
                f"quantiles must ascend and come in pairs around 0.5, such as [0.1, 0.5, 0.9], but are "
                f"{list(self.quantiles)}"
            )
        wanted = (0.5, *(bound_levels(self.coverage) if self.coverage else ()))
        missing = [level for level in wanted if not any(abs(level - q) < 1e-6 for q in self.quantiles)]
        if missing:
            raise ValueError(f"quantiles lack {missing}, which coverage {self.coverage} and the median need")
        return self


def bound_levels(coverage: float) -> tuple[float, float]:
    """Return the quantile levels of the lower and upper bound of a central interval."""
    # Rounded, because 0.5 - 0.8 / 2 is not 0.1.
    return round(0.5 - coverage / 2, 6), round(0.5 + coverage / 2, 6)
