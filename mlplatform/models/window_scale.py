"""The scale of single windows: what makes series of any level alike to a model, those it has not met included.

A window's scale is the mean absolute change over a season inside it, which is what MASE measures errors in, and a small
share of its mean absolute value, so that a window in which nothing moves does not outweigh all others. Values divided
by it are those that a model learns from and answers in; a window alone has the same bits as in a batch.

Here: the scale, which channels have one, and which samples can teach by it. Not here: levels, which every family
subtracts in its own way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32, ModelSpec, WindowSamples

Float64 = npt.NDArray[np.float64]

# Share of the mean absolute value, chosen on ETTh1, ETTh2 and the quarterly and yearly series of M3.
LEVEL_SHARE = 0.03
# Windows per block: bounds memory, whatever the number of samples.
BLOCK = 8192


def scaled_channels(spec: ModelSpec) -> tuple[int, ...]:
    """Return the channels that are scaled window by window: measured numbers, if the pair was fitted so."""
    if not spec.scaling:
        return ()
    still = {*spec.known, *spec.static}
    sizes = spec.cardinalities or (0,) * len(spec.channels)
    return tuple(place for place in range(len(spec.channels)) if place not in still and not sizes[place])


def window_scales(samples: WindowSamples, spec: ModelSpec, channels: tuple[int, ...]) -> Float32:
    """Return the scale of every sample's window, of shape (samples, channels): above 0, and 1 where nothing scales it.

    A season that is not shorter than the lookback counts as one step.
    """
    scales = np.ones((len(samples), len(channels)), dtype=np.float32)
    scaled = scaled_channels(spec)
    for position, channel in enumerate(channels):
        if channel in scaled:
            scales[:, position] = _cached(samples, spec, channel)
    return scales


def _cached(samples: WindowSamples, spec: ModelSpec, channel: int) -> Float32:
    key = ("window_scales", spec.season, channel)
    if key not in samples.cache:
        samples.cache[key] = seasonal_scales(samples, spec.season, channel)
    found: Float32 = samples.cache[key]
    return found


def seasonal_scales(samples: WindowSamples, season: int, channel: int) -> Float32:
    """Return the scale of every window of a channel, of shape (samples,), whether the model scales windows or not.

    That of a differenced target is the scale of what it was before.
    """
    column, lookback = samples.values[:, channel], samples.lookback
    if samples.levels is not None and channel in samples.targets:
        column, lookback = samples.levels[:, samples.targets.index(channel)], lookback + samples.period
    lag = season if 1 <= season < lookback else 1
    windows = windows_of(np.ascontiguousarray(column), lookback)
    out = np.empty(len(samples), dtype=np.float32)
    for start in range(0, len(samples), BLOCK):
        block = windows[samples.origins[start : start + BLOCK] - (lookback - 1)]
        changes = np.abs(block[:, lag:] - block[:, :-lag]) if lookback > 1 else np.zeros_like(block)
        scale = observed_means(changes, nothing=0.0) + LEVEL_SHARE * observed_means(np.abs(block), nothing=0.0)
        out[start : start + BLOCK] = np.where(scale > np.finfo(np.float32).tiny, scale, 1)
    return out


def teaching(samples: WindowSamples, spec: ModelSpec) -> WindowSamples:
    """Return the samples without those whose target is nothing all through the window, and something after it.

    Nothing scales such a window. In its own units what follows would outweigh every other sample by its level, by so
    much that one closed shop decides over all that are open. The samples themselves are returned where none is left
    out, or all would be.
    """
    if not spec.scaling:
        return samples
    key = ("teaching", spec.scaling)
    if key not in samples.cache:
        kept = np.ones(len(samples), dtype=bool)
        for position, target in enumerate(samples.targets):
            still = np.flatnonzero(_is_nothing(samples, target))
            follows = np.nan_to_num(samples.outputs(still)[:, :, position]) != 0
            kept[still[follows.any(axis=1)]] = False
        samples.cache[key] = None if kept.all() or not kept.any() else samples.select(kept)
    found: WindowSamples | None = samples.cache[key]
    return samples if found is None else found


def _is_nothing(samples: WindowSamples, target: int) -> npt.NDArray[np.bool_]:
    """Return whether a target's values inside each window are all zero or missing, of shape (samples,)."""
    column, lookback = samples.values[:, target], samples.lookback
    if samples.levels is not None:
        column, lookback = samples.levels[:, samples.targets.index(target)], lookback + samples.period
    before = np.concatenate([[0], np.cumsum(np.nan_to_num(column) != 0)])
    is_nothing: npt.NDArray[np.bool_] = before[samples.origins + 1] == before[samples.origins + 1 - lookback]
    return is_nothing


def observed_means(values: Float32, nothing: float = np.nan) -> Float64:
    """Return the means of rows over what is there, of shape (rows,); `nothing` where nothing is."""
    known = np.isfinite(values)
    if values.size and known.all():
        # Most windows have no gaps; the same sums, in half the time.
        whole: Float64 = values.sum(axis=1, dtype=np.float64) / values.shape[1]
        return whole
    sums = np.where(known, values, 0).sum(axis=1, dtype=np.float64)
    counts = known.sum(axis=1)
    means: Float64 = np.divide(sums, counts, out=np.full(len(sums), nothing), where=counts > 0)
    return means


def windows_of(column: Float32, length: int) -> Float32:
    """Return a view of all windows of a contiguous column; NumPy's own takes three times as long to make it."""
    return np.ndarray((len(column) - length + 1, length), column.dtype, column, strides=column.strides * 2)
