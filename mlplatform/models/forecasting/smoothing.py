"""Exponential smoothing of windows: a level, a trend and a season of each by itself, with nothing learnt from others.

The forecast of a window is the mean of two. One is the Theta method (Assimakopoulos and Nikolopoulos, The theta model:
a decomposition approach to forecasting, International Journal of Forecasting 2000), simple exponential smoothing with
half the slope of a straight line as its drift (Hyndman and Billah, Unmasking the Theta method, 2003). The other is
Holt's method with a damped trend (Gardner and McKenzie, Forecasting trends in time series, Management Science 1985).
What they smooth with is what would have forecast the window itself best, one step ahead, of a few. A season is taken
off before by classical decomposition, where the autocorrelation at its length is beyond chance, and put back.

All windows are smoothed side by side; one alone has the same bits as in a batch. What is missing in a window is no
news: it moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32, ModelSpec, WindowSamples
from mlplatform.models.base import as_float32

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# Weights of the newest value, of the newest change, and what is left of a trend at the next step.
LEVEL_WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.99)
DAMPED = [(level, trend, kept) for level in (0.1, 0.3, 0.5, 0.8) for trend in (0.05, 0.2) for kept in (0.9, 0.98)]
# Standard deviations of an autocorrelation beyond which a season is one: 90 % of what chance gives lie within.
SEASONAL_DEVIATIONS = 1.645
# Windows per block: bounds memory, whatever the number of samples.
BLOCK = 2048


def smoothed(samples: WindowSamples, spec: ModelSpec) -> Float32:
    """Return the forecast of every window, of shape (samples, horizon, targets); 0 of one without any value.

    It is what models answer in: of a differenced target, differences. Made once per samples.
    """
    key = ("smoothed", spec.season, spec.reach, spec.horizon, spec.targets)
    if key not in samples.cache:
        out = np.empty((len(samples), spec.horizon, len(spec.targets)), dtype=np.float32)
        for position, target in enumerate(spec.targets):
            column = np.ascontiguousarray(samples.values[:, target])
            windows = np.lib.stride_tricks.sliding_window_view(column, spec.reach)
            for start in range(0, len(samples), BLOCK):
                block = slice(start, start + BLOCK)
                values = windows[samples.origins[block] - (spec.reach - 1)].astype(np.float64)
                out[block, :, position] = as_float32(smooth(values, spec.season, spec.horizon))
        samples.cache[key] = out
    found: Float32 = samples.cache[key]
    return found


def smooth(windows: Float64, season: int, horizon: int) -> Float64:
    """Return the forecasts of windows, of shape (windows, horizon).

    Parameters:
        windows: of shape (windows, steps); NaN is missing. They begin with their first value.
        season: its length in steps; none if it is 0 or 1, or if a window does not hold two of it and a step.
    """
    known = np.isfinite(windows)
    begins = np.where(known.any(axis=1), known.argmax(axis=1), windows.shape[1])
    seasonal = _seasons(_held(windows, begins), begins, season) if season > 1 else np.zeros((len(windows), 1))
    # Position 0 is the first step ahead.
    places = np.arange(-windows.shape[1], horizon) % seasonal.shape[1]
    rest = _held(windows - seasonal[:, places[:-horizon]], begins)
    # By time first: what is done step by step is done to neighbours in memory.
    found = (_theta(rest, begins, horizon) + _damped(rest, horizon)) / 2
    return np.asarray(found + seasonal[:, places[-horizon:]])


def _held(windows: Float64, begins: Int64) -> Float64:
    """Return the windows with the value before in the place of what is missing; before the first, that one."""
    steps = np.arange(windows.shape[1])
    latest = np.maximum.accumulate(np.where(np.isfinite(windows), steps, -1), axis=1)
    first = np.minimum(begins, windows.shape[1] - 1)
    held = np.take_along_axis(windows, np.where(latest < 0, first[:, None], latest), axis=1)
    return np.nan_to_num(held, nan=0.0)


def _seasons(held: Float64, begins: Int64, season: int) -> Float64:
    """Return what every position of a season adds, of shape (windows, season); 0 for windows that show none."""
    count, steps = held.shape
    lengths = steps - begins
    half = season // 2
    if steps < 2 * season + 1:
        return np.zeros((count, season))
    # The mean over a season around each step; of an even one, with half of the value at either end.
    ends = 0.5 if season % 2 == 0 else 1.0
    middle = slice(half, steps - half)
    trend = np.zeros((count, steps - 2 * half))
    for offset in range(2 * half + 1):
        weight = ends if offset in (0, 2 * half) else 1.0
        trend += weight * held[:, offset : offset + trend.shape[1]]
    left = held[:, middle] - trend / season
    centres = np.arange(half, steps - half)
    counts = centres >= begins[:, None] + half
    left = np.where(counts, left, 0.0)
    sums, numbers = np.zeros((count, season)), np.zeros((count, season))
    for column, place in enumerate((centres - steps) % season):
        sums[:, place] += left[:, column]
        numbers[:, place] += counts[:, column]
    means = sums / np.maximum(numbers, 1)
    means -= means.mean(axis=1, keepdims=True)
    is_shown = (lengths >= 2 * season + 1) & _is_seasonal(held, begins, season)
    return np.where(is_shown[:, None], means, 0.0)


def _is_seasonal(held: Float64, begins: Int64, season: int) -> npt.NDArray[np.bool_]:
    """Return whether the autocorrelation at a season is beyond chance, by Bartlett's formula; of shape (windows,)."""
    inside = np.arange(held.shape[1]) >= begins[:, None]
    lengths = np.maximum(held.shape[1] - begins, 1)
    centred = np.where(inside, held - np.where(inside, held, 0.0).sum(axis=1, keepdims=True) / lengths[:, None], 0.0)
    size = np.maximum((centred**2).sum(axis=1), np.finfo(np.float64).tiny)
    before = np.zeros(len(held))
    for lag in range(1, season):
        before += ((centred[:, lag:] * centred[:, :-lag]).sum(axis=1) / size) ** 2
    at_season = (centred[:, season:] * centred[:, :-season]).sum(axis=1) / size
    return np.asarray(np.abs(at_season) > SEASONAL_DEVIATIONS * np.sqrt((1 + 2 * before) / lengths))


def _theta(rest: Float64, begins: Int64, horizon: int) -> Float64:
    """Return the Theta method's forecast, of shape (windows, horizon)."""
    weights = np.array(LEVEL_WEIGHTS)[:, None]
    levels = np.repeat(rest[None, :, 0], len(weights), axis=0)
    errors = np.zeros_like(levels)
    for value in _by_step(rest):
        error = value - levels
        errors += error * error
        levels += weights * error
    best = errors.argmin(axis=0)
    level = np.take_along_axis(levels, best[None, :], axis=0)[0][:, None]
    weight = np.array(LEVEL_WEIGHTS)[best][:, None]
    lengths = np.maximum(rest.shape[1] - begins, 1)[:, None]
    ahead = np.arange(horizon)[None, :]
    drift = ahead + (1 - (1 - weight) ** lengths) / weight
    return np.asarray(level + _slopes(rest, begins)[:, None] / 2 * drift)


def _slopes(rest: Float64, begins: Int64) -> Float64:
    """Return the slope of the straight line through every window, of shape (windows,)."""
    steps = np.arange(rest.shape[1], dtype=np.float64)
    inside = steps >= begins[:, None]
    lengths = np.maximum(rest.shape[1] - begins, 1)
    time = np.where(inside, steps - (begins[:, None] + rest.shape[1] - 1) / 2, 0.0)
    return np.asarray((time * rest).sum(axis=1) / np.maximum((time**2).sum(axis=1), 1.0) * (lengths > 1))


def _damped(rest: Float64, horizon: int) -> Float64:
    """Return the forecast of Holt's method with a damped trend, of shape (windows, horizon)."""
    level_weights, trend_weights, kept = (np.array(each)[:, None] for each in zip(*DAMPED, strict=True))
    levels = np.repeat(rest[None, :, 0], len(DAMPED), axis=0)
    trends, errors = np.zeros_like(levels), np.zeros_like(levels)
    for value in _by_step(rest):
        trends *= kept
        levels += trends
        error = value - levels
        errors += error * error
        error *= level_weights
        levels += error
        trends += trend_weights * error
    best = errors.argmin(axis=0)[None, :]
    level, trend = (np.take_along_axis(each, best, axis=0)[0][:, None] for each in (levels, trends))
    ahead = np.cumsum(kept[best[0]] ** np.arange(1, horizon + 1), axis=1)
    return np.asarray(level + trend * ahead)


def _by_step(rest: Float64) -> Iterator[Float64]:
    """Yield the values of every step after the first, of shape (windows,)."""
    yield from np.ascontiguousarray(rest.T)[1:]
