"""Naive forecasts: the floor that any model worth promoting must beat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples, WindowSamples
from mlplatform.models.base import DEFAULT_OPTIONS, DirectFitModel, FitOptions, FitResult, ModelParams
from mlplatform.plugins import MODELS


class _RuleModel(DirectFitModel):
    """A forecast rule without fitted state."""

    tasks = frozenset({"forecast"})
    is_naive = True

    def fit(
        self,
        train: Samples,
        validation: Samples | None,
        options: FitOptions = DEFAULT_OPTIONS,
    ) -> FitResult:
        """A rule learns nothing."""
        del train, validation, options
        return FitResult()

    def save(self, folder: Path) -> None:
        """A rule has no state."""

    def restore(self, folder: Path) -> None:
        """A rule has no state."""


@MODELS.register("repeat_last")
class RepeatLast(_RuleModel):
    """Every future step equals the last observed one."""

    Params = ModelParams

    def predict(self, samples: Samples) -> Float32:
        """Return the last value of each target, repeated over the horizon."""
        assert isinstance(samples, WindowSamples)
        last = samples.values[samples.origins][:, list(self.spec.targets)]
        return np.repeat(last[:, None, :], self.spec.horizon, axis=1)


class SeasonalNaiveParams(ModelParams):
    """`season` is the length of the season in steps."""

    season: int = Field(default=24, ge=1)


@MODELS.register("seasonal_naive")
class SeasonalNaive(_RuleModel):
    """Every future step equals the value one season earlier (the latest known one, for horizons beyond a season)."""

    Params = SeasonalNaiveParams
    params: SeasonalNaiveParams

    @classmethod
    def least_lookback(cls, params: SeasonalNaiveParams) -> int:
        """A whole season must lie inside the window."""
        return params.season

    def predict(self, samples: Samples) -> Float32:
        """Return the last season of each target, repeated over the horizon.

        Raises:
            ValueError: if the season is longer than the lookback.
        """
        assert isinstance(samples, WindowSamples)
        season = self.params.season
        if season > self.spec.lookback:
            raise ValueError(f"season {season} is longer than the lookback {self.spec.lookback}")
        ahead = np.arange(self.spec.horizon)
        rows = samples.origins[:, None] - (season - 1) + (ahead % season)[None, :]
        forecast: Float32 = samples.values[:, list(self.spec.targets)][rows]
        return forecast
