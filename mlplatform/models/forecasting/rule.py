"""Forecast rules: what the naive families share. They have nothing to learn and nothing to store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typing_extensions import override

from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.base import DirectFitModel, FitOptions, FitResult
from mlplatform.models.forecasting.lag_features import last_observed


class RuleModel(DirectFitModel[WindowSamples]):
    """A forecast rule without fitted state."""

    tasks = frozenset({"forecast"})
    is_naive = True

    @override
    def _fit(self, train: WindowSamples, validation: WindowSamples | None, options: FitOptions) -> FitResult:
        """A rule learns nothing."""
        return FitResult()

    def filled(self, forecast: Float32, samples: WindowSamples) -> Float32:
        """Return a forecast, (samples, horizon, targets), with the last observed value where it repeats a gap."""
        missing = np.isnan(forecast)
        if missing.any():
            np.copyto(forecast, last_observed(samples)[:, None, :], where=missing)
        return forecast

    def save(self, folder: Path) -> None:
        """A rule has no state."""

    def restore(self, folder: Path) -> None:
        """A rule has no state."""
