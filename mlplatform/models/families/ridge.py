"""Closed-form ridge regression on last-value-normalised windows: NLinear without gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32, ModelSpec, WindowSamples
from mlplatform.models.base import DirectFitModel, FitOptions, FitResult, ModelParams, as_float32
from mlplatform.models.forecasting import effects_ahead, fit_effects, last_observed, past_effects
from mlplatform.models.window_scale import window_scales
from mlplatform.plugins import MODELS

Float64 = npt.NDArray[np.float64]

# Windows per block when the normal equations are summed: bounds memory, whatever the number of samples.
BLOCK = 8192
# The regularisation path, from the weakest to the strongest penalty.
ALPHAS: Float64 = np.logspace(-4, 1, 21)


class RidgeParams(ModelParams):
    """`alpha` is the L2 penalty per training window; `null` chooses it on the validation samples.

    A chosen penalty is reported as the number of steps along the regularisation path, in the place of iterations, so
    that a refit without validation data takes the one that cross-validation found.
    """

    alpha: float | None = Field(default=0.01, gt=0)


@MODELS.register("ridge")
class Ridge(DirectFitModel[WindowSamples]):
    """The linear map of NLinear (Zeng et al., Are Transformers Effective for Time Series Forecasting?, AAAI 2023).

    The last value is subtracted from window and target, one (lookback, horizon) matrix with intercept is shared by all
    targets, and the least-squares problem is solved exactly from its normal equations in double precision. These are
    summed and decomposed once per samples; every further penalty costs two products of small matrices.

    Where windows are scaled one by one, window and target are divided by the window's scale, and what is missing in a
    window counts as its last value.

    Where the calendar is read, its effects are found beforehand (`calendar_effects`), taken off window and target, and
    put back on the forecast.
    """

    tasks = frozenset({"forecast"})
    covariates = frozenset({"calendar"})
    reads_targets_only = True
    effects_: Float64 | None = None
    Params = RidgeParams
    params: RidgeParams

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the penalty."""
        return {"alpha": SearchDimension(type="float", low=1e-4, high=10.0, log=True)}

    def _fit(self, train: WindowSamples, validation: WindowSamples | None, options: FitOptions) -> FitResult:
        """Solve (X'X + n alpha I) W = X'Y, with the intercept left out of the penalty.

        Raises:
            ValueError: if `alpha` is to be chosen, but there are neither validation samples nor an earlier choice.
        """
        self.effects_ = fit_effects(train, self.spec) if self.spec.time_text else None
        equations = _equations(train, self.spec, self.effects_)
        if self.params.alpha is not None:
            self._keep(*equations.solve(self.params.alpha))
            return FitResult()
        if options.iterations:
            (step,) = options.iterations
            self._keep(*equations.solve(float(ALPHAS[min(step, len(ALPHAS)) - 1])))
            return FitResult(options.iterations)
        if validation is None:
            raise ValueError("ridge: alpha is null, which chooses it on validation samples, but there are none; set it")
        held_out = _equations(validation, self.spec, self.effects_)
        losses = [held_out.mean_squared_error(*equations.solve(float(alpha))) for alpha in ALPHAS]
        best = int(np.argmin(losses))
        self._keep(*equations.solve(float(ALPHAS[best])))
        return FitResult((best + 1,), tuple(losses))

    def _keep(self, weights: Float64, intercept: Float64) -> None:
        self.weights_, self.intercept_ = as_float32(weights), as_float32(intercept)

    def predict(self, samples: WindowSamples) -> Float32:
        """Return the forecast."""
        weights, intercept = self.weights_.astype(np.float64), self.intercept_
        out = np.empty((len(samples), self.spec.horizon, len(self.spec.targets)), dtype=np.float32)
        for position, target in enumerate(self.spec.targets):
            windows = _windows(samples, target, 0, self.spec.lookback)
            for start in range(0, len(samples), BLOCK):
                rows = samples.origins[start : start + BLOCK]
                inputs = windows[rows - (self.spec.lookback - 1)]
                block = samples.select(np.arange(start, start + len(rows)))
                if self.effects_ is not None:
                    rest, level, scale = _without_effects(inputs, block, self.spec, target, self.effects_)
                    ahead = effects_ahead(block, self.spec, self.effects_, target)
                    out[start : start + BLOCK, :, position] = (rest @ weights + intercept) * scale + level + ahead
                    continue
                if self.spec.scaling:
                    changes, last, scale = _scaled(inputs, block, self.spec, target)
                    forecast = changes.astype(np.float64) @ weights + intercept
                    out[start : start + BLOCK, :, position] = forecast * scale + last
                    continue
                last = inputs[:, -1:].copy()
                # In double precision, so that the order of BLAS's sums, which depends on the batch, does not show.
                out[start : start + BLOCK, :, position] = (
                    (inputs - last).astype(np.float64) @ weights + intercept + last
                )
        return out

    def save(self, folder: Path) -> None:
        """Write the linear map."""
        np.save(folder / "weights.npy", self.weights_, allow_pickle=False)
        np.save(folder / "intercept.npy", self.intercept_, allow_pickle=False)
        if self.effects_ is not None:
            np.save(folder / "effects.npy", self.effects_, allow_pickle=False)

    def restore(self, folder: Path) -> None:
        """Read the linear map."""
        self.weights_ = np.load(folder / "weights.npy", allow_pickle=False)
        self.intercept_ = np.load(folder / "intercept.npy", allow_pickle=False)
        if self.spec.time_text:
            self.effects_ = np.load(folder / "effects.npy", allow_pickle=False)


@dataclass(frozen=True)
class _NormalEquations:
    """Means and centred second moments of normalised windows x (lookback) and outputs y (horizon), over `count` pairs.

    Attributes:
        gram: sum of (x - mean)(x - mean)'.
        moment: sum of (x - mean)(y - mean)'.
        square: sum of |y - mean|^2.
        values, vectors: eigendecomposition of `gram`.
    """

    count: int
    mean_x: Float64
    mean_y: Float64
    gram: Float64
    moment: Float64
    square: float
    values: Float64
    vectors: Float64
    rotated: Float64

    def solve(self, alpha: float) -> tuple[Float64, Float64]:
        """Return the weights (lookback, horizon) and the intercept (horizon,) for a penalty."""
        weights = self.vectors @ (self.rotated / (self.values + self.count * alpha)[:, None])
        return weights, self.mean_y - self.mean_x @ weights

    def mean_squared_error(self, weights: Float64, intercept: Float64) -> float:
        """Return the mean squared error of a linear map on these windows, without looking at them again."""
        shift = self.mean_x @ weights + intercept - self.mean_y
        explained = np.sum(weights * (2 * self.moment - self.gram @ weights))
        total = self.square - float(explained) + self.count * float(shift @ shift)
        return float(total / (self.count * weights.shape[1]))


def _equations(samples: WindowSamples, spec: ModelSpec, effects: Float64 | None) -> _NormalEquations:
    """Return the normal equations of the samples, made once for all penalties."""
    key = ("normal_equations", spec.scaling, spec.season, None if effects is None else effects.tobytes())
    if key not in samples.cache:
        samples.cache[key] = _summed(samples, spec, effects)
    equations: _NormalEquations = samples.cache[key]
    return equations


def _summed(samples: WindowSamples, spec: ModelSpec, effects: Float64 | None) -> _NormalEquations:
    width = samples.lookback
    gram, moment = np.zeros((width, width)), np.zeros((width, samples.horizon))
    sum_x, sum_y = np.zeros(width), np.zeros(samples.horizon)
    square, count = 0.0, len(samples) * len(samples.targets)
    for target in samples.targets:
        for start in range(0, len(samples), BLOCK):
            block = samples.select(np.arange(start, min(start + BLOCK, len(samples))))
            inputs, outputs = _normalised(block, spec, target, effects)
            x, y = inputs.astype(np.float64), outputs.astype(np.float64)
            gram += x.T @ x
            moment += x.T @ y
            sum_x += x.sum(axis=0)
            sum_y += y.sum(axis=0)
            square += float(np.einsum("ij,ij->", y, y))
    mean_x, mean_y = sum_x / count, sum_y / count
    gram -= np.outer(mean_x, sum_x)
    moment -= np.outer(mean_x, sum_y)
    values, vectors = np.linalg.eigh(gram)
    # Rounding can leave the smallest eigenvalues just below zero; the true ones are not.
    return _NormalEquations(
        count,
        mean_x,
        mean_y,
        gram,
        moment,
        square - float(mean_y @ sum_y),
        np.maximum(values, 0.0),
        vectors,
        vectors.T @ moment,
    )


def _windows(samples: WindowSamples, channel: int, start: int, length: int) -> Float32:
    column = np.ascontiguousarray(samples.values[start:, channel])
    return np.lib.stride_tricks.sliding_window_view(column, length)


def _normalised(
    samples: WindowSamples, spec: ModelSpec, channel: int, effects: Float64 | None
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Return inputs (n, lookback) and outputs (n, horizon) of one target, less the last input value, and scaled."""
    inputs = _windows(samples, channel, 0, samples.lookback)[samples.origins - (samples.lookback - 1)]
    outputs = _outputs(samples, channel)
    if effects is not None:
        rest, level, scale = _without_effects(inputs, samples, spec, channel, effects)
        return rest, (outputs - effects_ahead(samples, spec, effects, channel) - level) / scale
    if spec.scaling:
        changes, last, scale = _scaled(inputs, samples, spec, channel)
        return changes, (outputs - last) / scale
    last = inputs[:, -1:].copy()
    return inputs - last, outputs - last


def _outputs(samples: WindowSamples, channel: int) -> Float32:
    """Return the outputs of one target, of shape (n, horizon)."""
    if samples.levels is not None:
        return np.ascontiguousarray(samples.outputs()[:, :, samples.targets.index(channel)])
    outputs: Float32 = _windows(samples, channel, 1, samples.horizon)[samples.origins]
    return outputs


def _without_effects(
    inputs: Float32, samples: WindowSamples, spec: ModelSpec, channel: int, effects: Float64
) -> tuple[Float64, Float64, Float32]:
    """Return what the calendar leaves of windows, less its last value and scaled; that value; the scale.

    Returns:
        of shapes (n, lookback), (n, 1) and (n, 1).
    """
    scale = window_scales(samples, spec, (channel,))
    rest = inputs - past_effects(samples, spec, effects, channel)
    is_known = np.isfinite(rest)
    if samples.levels is not None:
        # Differences are changes already.
        return np.where(is_known, rest / scale, 0), np.zeros((len(rest), 1)), scale
    newest = rest.shape[1] - 1 - np.argmax(is_known[:, ::-1], axis=1)
    last = np.where(is_known.any(axis=1), rest[np.arange(len(rest)), newest], 0)[:, None]
    return np.where(is_known, (rest - last) / scale, 0), last, scale


def _scaled(inputs: Float32, samples: WindowSamples, spec: ModelSpec, channel: int) -> tuple[Float32, Float32, Float32]:
    """Return scaled changes from the last observed value, (n, lookback), that value and the scale, both (n, 1)."""
    last, scale = last_observed(samples, (channel,)), window_scales(samples, spec, (channel,))
    changes = (inputs - last) / scale
    return np.where(np.isfinite(changes), changes, np.float32(0)), last, scale
