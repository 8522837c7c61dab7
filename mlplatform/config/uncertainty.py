"""Prediction intervals and the quantiles behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mlplatform.config.base import Frozen


def _shares(value: float | tuple[float, ...] | None) -> float | tuple[float, ...] | None:
    """Return one share for a list of one, so that both ways of writing it are the same configuration."""
    shares = value if isinstance(value, tuple) else () if value is None else (value,)
    if value is not None and (
        not shares or len(set(shares)) < len(shares) or not all(0 < share < 1 for share in shares)
    ):
        found = list(value) if isinstance(value, tuple) else value
        raise ValueError(f"{found} must be a share between 0 and 1, several different ones, or null for no intervals")
    return shares[0] if len(shares) == 1 else value


class UncertaintyConfig(Frozen):
    """The prediction intervals of an experiment.

    `coverage` is the share of truths that the intervals are meant to cover, or several: of these the first is what an
    answer's `interval` has and what metrics without a number are of. `null` makes no intervals. They are calibrated on
    the held-out folds for every family, and a wider coverage never has a narrower interval. With `quantiles`, ascending
    and in pairs around 0.5, a family that can is fitted to these quantiles instead of the mean; its point prediction is
    the median.

    `calibration: auto` chooses on the folds whether the bounds have margins of their own and what windows are measured
    by, and weighs later folds more; `symmetric` has one margin for both bounds. With `leave_out_folds` margins
    are judged by folds that they did not see: the folds' models are fitted once more, for the iterations that the other
    folds found, because one that was stopped early on a fold's rows errs less on them than on any others; and `auto`
    takes wider margins while those learnt from the other folds cover too little of the one left out.
    """

    coverage: Annotated[float | tuple[float, ...] | None, AfterValidator(_shares)] = 0.8
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    calibration: Literal["symmetric", "auto"] = "symmetric"
    leave_out_folds: bool = False

    @property
    def coverages(self) -> tuple[float, ...]:
        """All coverages, the main one first; empty if there are to be no intervals."""
        if self.coverage is None:
            return ()
        return self.coverage if isinstance(self.coverage, tuple) else (self.coverage,)

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
        wanted = (0.5, *(level for coverage in self.coverages for level in bound_levels(coverage)))
        missing = [level for level in wanted if not any(abs(level - q) < 1e-6 for q in self.quantiles)]
        if missing:
            asked = ", ".join(map(str, self.coverages))
            raise ValueError(f"quantiles lack {missing}, which coverage {asked} and the median need")
        return self


def bound_levels(coverage: float) -> tuple[float, float]:
    """Return the quantile levels of the lower and upper bound of a central interval."""
    # Rounded, because 0.5 - 0.8 / 2 is not 0.1.
    return round(0.5 - coverage / 2, 6), round(0.5 + coverage / 2, 6)


def bound_names(coverages: Sequence[float]) -> dict[float, tuple[str, str]]:
    """Return what follows a target's name in the columns of its lower and upper bounds, by coverage.

    Parameters:
        coverages: the main one first, whose names have no number: `_lower`, then `_lower_95`.
    """
    numbers = {coverage: f"_{percent(coverage)}" if place else "" for place, coverage in enumerate(coverages)}
    return {coverage: (f"_lower{number}", f"_upper{number}") for coverage, number in numbers.items()}


def percent(coverage: float) -> str:
    """Return a coverage as names of columns and metrics have it: 95 for 0.95, and 99.5 for 0.995."""
    return f"{round(100 * coverage, 6):g}"
