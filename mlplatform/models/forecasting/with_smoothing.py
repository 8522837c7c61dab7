"""A family whose forecast is averaged with exponential smoothing: two unlike forecasts of short series err less.

A model of many series knows what they have in common, and smoothing what the window itself shows. The mean of both is
the combination of Bates and Granger (The combination of forecasts, Operational Research Quarterly 1969) with equal
weights, which estimated ones seldom beat.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from mlplatform.datamodule import Float32, Samples, WindowSamples
from mlplatform.models.base import DirectFitModel, FitOptions, FitResult, ModelParams, Wrapped, as_float32
from mlplatform.models.explanation import Contributions, Explanation
from mlplatform.models.forecasting.smoothing import smoothed

SHARE = 0.5


class WithSmoothing(Wrapped, DirectFitModel[WindowSamples]):
    """The mean of a model's forecast and `smoothing`'s.

    Attributes:
        inner: the model, which is fitted as it is alone.
    """

    tasks = frozenset({"forecast"})
    Params = ModelParams
    inner: DirectFitModel[WindowSamples]

    def __init__(self, inner: DirectFitModel[WindowSamples]) -> None:
        super().__init__(inner.params, inner.spec)
        self.inner = inner

    def inner_samples(self, samples: WindowSamples) -> WindowSamples:
        """Return the samples as they are."""
        return samples

    @override
    def unreadable(self, samples: Samples) -> tuple[str, ...]:
        """Return the columns with missing values that the model does not read; smoothing reads them."""
        return self.inner.unreadable(samples)

    def _fit(self, train: WindowSamples, validation: WindowSamples | None, options: FitOptions) -> FitResult:
        """Fit the model; smoothing learns nothing."""
        return self.inner.fit(train, validation, options)

    def predict(self, samples: WindowSamples) -> Float32:
        """Return the forecast."""
        return as_float32(SHARE * smoothed(samples, self.spec) + (1 - SHARE) * self.inner.predict(samples))

    @override
    def predict_quantiles(self, samples: WindowSamples) -> Float32:
        """Return the model's quantiles, moved by what the forecast is moved by."""
        quantiles = self.inner.predict_quantiles(samples)
        moved = SHARE * (smoothed(samples, self.spec) - quantiles[..., self.spec.quantile_position(0.5)])
        return as_float32(quantiles + moved[..., None])

    @override
    def explain(self, samples: WindowSamples) -> Explanation:
        """Return why the model's part of the forecast is what it is; smoothing's is in the base."""
        found: Any = self.inner.explain(samples)
        if not isinstance(found, Contributions):
            raise TypeError(f"{type(self.inner).__name__} explains by weights, which are no parts of a mean")
        base = SHARE * smoothed(samples, self.spec).astype(np.float64) + (1 - SHARE) * found.base
        return replace(found, base=base, values=(1 - SHARE) * found.values)

    def save(self, folder: Path) -> None:
        """Write the model."""
        self.inner.save(folder)

    def restore(self, folder: Path) -> None:
        """Read the model."""
        self.inner.restore(folder)


def with_smoothing(inner: DirectFitModel[WindowSamples]) -> WithSmoothing:
    """Return an unfitted model whose forecast is averaged with smoothing, which can do what the inner one can."""
    kind = type(inner)
    able = {name: getattr(inner, name) for name in ("reads_missing", "explains", "has_quantiles", "covariates")}
    made: type[WithSmoothing] = type(f"{kind.__name__}WithSmoothing", (WithSmoothing,), able)
    return made(inner)
