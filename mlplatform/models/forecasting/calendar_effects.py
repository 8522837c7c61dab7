"""Effects of the calendar on a series, as a linear model has them: so much more or less on days like these.

A series is taken for the sum of such effects and of a rest, which a linear map of windows forecasts. The effects are
found beforehand, from how far every step is from the one a season before in the window, against what the calendar says
differently of the two: a regression with seasonally differenced errors (Box and Jenkins). What recurs with the season
has no effect of its own, because windows show it. Where windows are scaled one by one, effects are shares of a window's
mean absolute value: a holiday inside a window would double its scale, but hardly changes that.

Here: the effects and their values. Not here: the map of the rest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlplatform.calendars import TimeFeatures, ns_of
from mlplatform.datamodule import Float32, ModelSpec, WindowSamples
from mlplatform.models.window_scale import observed_means

Float64 = npt.NDArray[np.float64]

# Penalty per window and step: holds effects still that the rows hardly show.
PENALTY = 1e-3
# Windows per block: bounds memory, whatever the number of samples.
BLOCK = 4096


def fit_effects(samples: WindowSamples, spec: ModelSpec) -> Float64:
    """Return the effect of every column of `waves`, of shape (columns,); where windows are scaled, as such shares."""
    features = _features(spec)
    width = 2 * len(features.wave_names()) + len(features.event_names)
    described = features.waves(ns_of(samples.timestamps))
    gram, moment, count = np.zeros((width, width)), np.zeros(width), 0
    for start in range(0, len(samples), BLOCK):
        block = samples.select(np.arange(start, min(start + BLOCK, len(samples))))
        rows = block.origins[:, None] + np.arange(1, spec.horizon + 1)
        before = rows - _back(spec)
        told = (described[rows].astype(np.float64) - described[before]).reshape(-1, width)
        for target in spec.targets:
            column = _column(block, target).astype(np.float64)
            changes = ((column[rows] - column[before]) / _units(block, spec, target)).ravel()
            is_known = np.isfinite(changes)
            differences = told[is_known]
            gram += differences.T @ differences
            moment += differences.T @ changes[is_known]
            count += int(is_known.sum())
    return np.asarray(np.linalg.solve(gram + max(count, 1) * PENALTY * np.eye(width), moment), dtype=np.float64)


def past_effects(samples: WindowSamples, spec: ModelSpec, effects: Float64, channel: int) -> Float64:
    """Return the effects on the steps of every window of a channel, of shape (samples, lookback), in its units.

    Of a target that is a difference, they are those on the difference; so are those ahead.
    """
    rows = samples.origins[:, None] + np.arange(1 - samples.lookback, 1)
    found = _at(samples.timestamps[rows], spec, effects)
    if samples.period:
        found = found - _at(samples.timestamps[rows - samples.period], spec, effects)
    return found * _units(samples, spec, channel)


def effects_ahead(samples: WindowSamples, spec: ModelSpec, effects: Float64, channel: int) -> Float64:
    """Return the effects on the steps of every horizon of a channel, of shape (samples, horizon), in its units."""
    times = spec.calendar.ahead(samples.origin_times[:, None], np.arange(1, spec.horizon + 1))
    found = _at(times, spec, effects)
    if samples.period:
        back = -np.arange(1, spec.horizon + 1) % samples.period
        found = found - _at(samples.timestamps[samples.origins[:, None] - back], spec, effects)
    return found * _units(samples, spec, channel)


def _at(times: npt.NDArray[np.datetime64], spec: ModelSpec, effects: Float64) -> Float64:
    # Windows overlap: every moment is described once. Rows are added up one by one, so that the sum of a moment does
    # not depend on how many there are.
    moments, places = np.unique(ns_of(times), return_inverse=True)
    sums = (_features(spec).waves(moments).astype(np.float64) * effects).sum(axis=1)
    found: Float64 = sums[places.reshape(times.shape)]
    return found


def _units(samples: WindowSamples, spec: ModelSpec, channel: int) -> Float64:
    """Return what effects are multiples of, of shape (samples, 1): above 0, and 1 where windows are not scaled."""
    if not spec.scaling:
        return np.ones((len(samples), 1))
    windows = np.lib.stride_tricks.sliding_window_view(_column(samples, channel), samples.lookback)
    found = observed_means(np.abs(windows[samples.origins - (samples.lookback - 1)]))[:, None]
    return np.where(found > np.finfo(np.float32).tiny, found, 1)


def _column(samples: WindowSamples, channel: int) -> Float32:
    """Return a target as it was before it was differenced."""
    if samples.levels is None:
        return np.ascontiguousarray(samples.values[:, channel])
    return np.ascontiguousarray(samples.levels[:, samples.targets.index(channel)])


def _features(spec: ModelSpec) -> TimeFeatures:
    assert spec.time_features is not None
    return spec.time_features


def _back(spec: ModelSpec) -> npt.NDArray[np.int64]:
    """Return how many steps before each step of the horizon the window has the same position of the season."""
    ahead = np.arange(1, spec.horizon + 1)
    if not 1 < spec.season <= spec.lookback:
        return ahead
    return -(-ahead // spec.season) * spec.season
