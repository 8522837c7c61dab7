"""Exponential smoothing, window by window: a strong forecast of short series that needs no training."""

from __future__ import annotations

from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.base import ModelParams
from mlplatform.models.forecasting import RuleModel, smoothed
from mlplatform.plugins import MODELS


class SmoothingParams(ModelParams):
    """There is nothing to choose: weights follow from every window, and the season is that of the experiment."""


@MODELS.register("smoothing")
class Smoothing(RuleModel):
    """The mean of the Theta method and of a damped trend, see `models.forecasting.smoothing`.

    The season is told to models with `preprocessing.scaling` auto or window; without, none is looked for.
    """

    Params = SmoothingParams
    params: SmoothingParams
    is_exact = True
    is_naive = False
    reads_missing = True
    reads_targets_only = True

    def predict(self, samples: WindowSamples) -> Float32:
        """Return the forecast of every window."""
        return smoothed(samples, self.spec)
