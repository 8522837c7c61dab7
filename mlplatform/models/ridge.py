"""Closed-form ridge regression on last-value-normalised windows: NLinear without gradient descent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples, WindowSamples
from mlplatform.models.base import DirectFitModel, FitResult, Iterations, ModelParams, ProgressCallback, as_float32
from mlplatform.plugins import MODELS

# Windows per block when the normal equations are summed: bounds memory, whatever the number of samples.
BLOCK = 8192


class RidgeParams(ModelParams):
    """`alpha` is the L2 penalty per training window."""

    alpha: float = Field(default=0.01, gt=0)


@MODELS.register("ridge")
class Ridge(DirectFitModel):
    """The linear map of NLinear (Zeng et al., Are Transformers Effective for Time Series Forecasting?, AAAI 2023).

    The last value is subtracted from window and target, one (lookback, horizon) matrix with intercept is shared by all
    targets, and the least-squares problem is solved exactly from its normal equations in double precision.
    """

    tasks = frozenset({"forecast"})
    Params = RidgeParams
    params: RidgeParams

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the penalty."""
        del task
        return {"alpha": SearchDimension(type="float", low=1e-4, high=1.0, log=True)}

    def fit(
        self,
        train: Samples,
        validation: Samples | None,
        *,
        iterations: Iterations | None = None,
        seed: int = 0,
        on_progress: ProgressCallback | None = None,
    ) -> FitResult:
        """Solve (X'X + n alpha I) W = X'Y, with the intercept left out of the penalty."""
        del validation, iterations, seed, on_progress
        assert isinstance(train, WindowSamples)
        size = self.spec.lookback + 1
        gram, moment = np.zeros((size, size)), np.zeros((size, self.spec.horizon))
        count = 0
        for target in self.spec.targets:
            for start in range(0, len(train), BLOCK):
                block = train.origins[start : start + BLOCK]
                inputs, outputs = _normalised(train, block, target)
                design = np.hstack([inputs.astype(np.float64), np.ones((len(inputs), 1))])
                gram += design.T @ design
                moment += design.T @ outputs
                count += len(inputs)
        penalty = np.full(size, count * self.params.alpha)
        penalty[-1] = 0.0
        gram[np.diag_indices(size)] += penalty
        solution = np.linalg.solve(gram, moment)
        self.weights_, self.intercept_ = as_float32(solution[:-1]), as_float32(solution[-1])
        return FitResult()

    def predict(self, samples: Samples) -> Float32:
        """Return the forecast."""
        assert isinstance(samples, WindowSamples)
        out = np.empty((len(samples), self.spec.horizon, len(self.spec.targets)), dtype=np.float32)
        for position, target in enumerate(self.spec.targets):
            windows = _windows(samples, target, 0, self.spec.lookback)
            for start in range(0, len(samples), BLOCK):
                rows = samples.origins[start : start + BLOCK]
                inputs = windows[rows - (self.spec.lookback - 1)]
                last = inputs[:, -1:].copy()
                out[start : start + BLOCK, :, position] = (inputs - last) @ self.weights_ + self.intercept_ + last
        return out

    def save(self, folder: Path) -> None:
        """Write the linear map."""
        np.save(folder / "weights.npy", self.weights_, allow_pickle=False)
        np.save(folder / "intercept.npy", self.intercept_, allow_pickle=False)

    def restore(self, folder: Path) -> None:
        """Read the linear map."""
        self.weights_ = np.load(folder / "weights.npy", allow_pickle=False)
        self.intercept_ = np.load(folder / "intercept.npy", allow_pickle=False)


def _windows(samples: WindowSamples, channel: int, start: int, length: int) -> Float32:
    column = np.ascontiguousarray(samples.values[start:, channel])
    return np.lib.stride_tricks.sliding_window_view(column, length)


def _normalised(samples: WindowSamples, origins: np.ndarray, channel: int) -> tuple[Float32, Float32]:
    """Return inputs (n, lookback) and outputs (n, horizon) of one channel, less the last input value."""
    inputs = _windows(samples, channel, 0, samples.lookback)[origins - (samples.lookback - 1)]
    outputs = _windows(samples, channel, 1, samples.horizon)[origins]
    last = inputs[:, -1:].copy()
    return inputs - last, outputs - last
