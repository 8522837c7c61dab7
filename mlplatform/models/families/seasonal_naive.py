"""The value one season ago as the forecast: the floor for series with a season."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.base import ModelParams
from mlplatform.models.forecasting import RuleModel
from mlplatform.plugins import MODELS


class SeasonalNaiveParams(ModelParams):
    """`season` is the length of the season in steps."""

    season: int = Field(default=24, ge=1)


@MODELS.register("seasonal_naive")
class SeasonalNaive(RuleModel):
    """Every future step equals the value one season earlier (the latest known one, for horizons beyond a season)."""

    Params = SeasonalNaiveParams
    params: SeasonalNaiveParams
    is_exact = True

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"season": 6}

    @classmethod
    def least_lookback(cls, params: SeasonalNaiveParams) -> int:
        """A whole season must lie inside the window."""
        return params.season

    @classmethod
    def season(cls, params: SeasonalNaiveParams) -> int:
        """The season that is repeated."""
        return params.season

    def predict(self, samples: WindowSamples) -> Float32:
        """Return the last season of each target, repeated over the horizon.

        Raises:
            ValueError: if the season is longer than the lookback.
        """
        season = self.params.season
        if season > self.spec.lookback:
            raise ValueError(f"season {season} is longer than the lookback {self.spec.lookback}")
        ahead = np.arange(self.spec.horizon)
        rows = samples.origins[:, None] - (season - 1) + (ahead % season)[None, :]
        return self.filled(samples.values[:, list(self.spec.targets)][rows], samples)
