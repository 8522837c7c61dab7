"""Windows as rows of a table: the features that forecasting families without a notion of time are fitted on.

Numbers enter as differences to their last value, which makes trees independent of the level; the last value itself is
beside them. Static columns and categories (as codes) enter as they are at the origin. Missing values stay NaN. A
window has the same bits alone as in a batch.

Where windows are scaled one by one, differences and last values of measured numbers are divided by the window's scale,
and what is missing counts as the last value that is there.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field

from mlplatform.datamodule import Float32, ModelSpec, WindowSamples
from mlplatform.models.base import ModelParams, as_float32
from mlplatform.models.forecasting.calendar_inputs import (
    calendar_values,
    calendar_width,
    event_names,
    event_steps,
    events_ahead,
)
from mlplatform.models.sample_cache import keep_latest
from mlplatform.models.window_scale import observed_means, scaled_channels, window_scales, windows_of

# Windows per block: bounds the memory beside the matrix itself, whatever the number of samples.
BLOCK = 8192

# Steps into the past. A negative lag would read the future.
Steps = Annotated[int, Field(ge=1)]


class LagFeatureParams(ModelParams):
    """The features cut from a window.

    Lags count steps before the origin; those behind the lookback are left out. Means are lengths, in steps, of trailing
    averages. Those that an experiment does not give follow from its season, see `for_season`. Without
    `covariate_history`, columns that are neither targets nor known nor static are not read at all. Without `levels`,
    last values serve only to take differences: for series whose level drifts out of the range that was learned from.
    `calendar` has the time read, at the origin or at the step that is forecast.
    """

    target_lags: tuple[Steps, ...] = (1, 2, 3, 4, 6, 9, 12, 18, 23, 24, 47, 48, 72, 96, 144, 167, 168)
    target_means: tuple[Steps, ...] = (6, 24, 168)
    covariate_lags: tuple[Steps, ...] = (1, 24)
    covariate_means: tuple[Steps, ...] = (24,)
    covariate_history: bool = True
    levels: bool = True
    calendar: bool = True

    def for_season(self, season: int, dense: bool = False) -> Self:
        """Return the parameters with the lags and means of a season in the place of those that were not given.

        They are the last values, parts of the season, the same position in earlier seasons and beside it; and the means
        of a quarter of a season, of one and of seven. The defaults are those of a season of 24.

        Parameters:
            dense: takes every position of the last season (24 of a longer one) and ever fewer of seven: for the many
                windows of many series, which can tell more features apart.
        """
        lags, means = _dense(season) if dense else _sparse(season)
        found: dict[str, tuple[int, ...]] = {
            "target_lags": lags,
            "target_means": means,
            "covariate_lags": tuple(sorted({1, season})),
            "covariate_means": tuple(sorted({season} - {1})),
        }
        return self.model_copy(update={key: of for key, of in found.items() if key not in self.model_fields_set})


def _sparse(season: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    short = {1, 2, 3, 4, *(season * part // 8 for part in (2, 3, 4, 6))}
    seasons = {season - 1, season, 2 * season - 1, 2 * season, *(season * count for count in (3, 4, 6, 7))}
    return _ascending({*short, *seasons, 7 * season - 1}, 1), _ascending({season // 4, season, 7 * season}, 2)


def _dense(season: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    # In parts of a twenty-fourth: every one of the last season, every third of the one before, and so on.
    parts = (*range(1, 25), *range(27, 49, 3), *range(54, 97, 6), *range(108, 169, 12))
    beside = {1, 2, 3, *(season * count + step for count in (1, 2, 7) for step in (-1, 0))}
    lags = {*beside, *(season * part // 24 for part in parts)}
    means = {season * part // 24 for part in (3, 6, 12, 24, 48, 72, 96, 120, 144, 168)}
    return _ascending(lags, 1), _ascending(means, 2)


def _ascending(steps: set[int], least: int) -> tuple[int, ...]:
    return tuple(sorted(step for step in steps if step >= least))


def origin_features(samples: WindowSamples, spec: ModelSpec, params: LagFeatureParams, with_known: bool) -> Float32:
    """Return what is known at the origin, of shape (samples, features), cached beside the samples.

    Parameters:
        with_known: adds the known columns at every step of the horizon.
    """
    chosen = params.model_dump(include=set(LagFeatureParams.model_fields))
    problem = (spec.known, spec.static, spec.cardinalities, spec.targets, spec.scaling, spec.season, spec.time_text)
    setting = (tuple(chosen.values()), with_known, *problem)
    return keep_latest(samples.cache, "lag_features", setting, lambda: _fill(samples, spec, params, with_known))


def _fill(samples: WindowSamples, spec: ModelSpec, params: LagFeatureParams, with_known: bool) -> Float32:
    plan = feature_plan(spec, params)
    widths = [len(lags) + len(means) for _, lags, means in plan]
    calendar = calendar_width(spec) if params.calendar else 0
    events = len(event_steps(spec)) * len(event_names(spec)) if with_known and params.calendar else 0
    future = spec.horizon * len(spec.known) if with_known else 0
    matrix = np.empty((len(samples), sum(widths) + calendar + events + future), dtype=np.float32)
    start, scaled = 0, scaled_channels(spec)
    for (channel, lags, means), width in zip(plan, widths, strict=True):
        own = matrix[:, start : start + width]
        if channel in scaled:
            _fill_scaled_channel(own, samples, spec, channel, lags, means)
        else:
            _fill_channel(own, samples, channel, lags, means)
        start += width
    for first in range(0, len(samples), BLOCK):
        block = slice(first, first + BLOCK)
        if params.calendar:
            times = samples.timestamps[samples.origins[block]]
            matrix[block, start : start + calendar] = calendar_values(spec, times)
            if events:
                matrix[block, start + calendar : start + calendar + events] = events_ahead(spec, times)
        for step in range(1, spec.horizon + 1) if future else ():
            column = start + calendar + events + (step - 1) * len(spec.known)
            matrix[block, column : column + len(spec.known)] = _known_change(samples, spec, step, block)
    return matrix


def feature_plan(spec: ModelSpec, params: LagFeatureParams) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Return the channels that are read, in order, each with its lags (0 is the last value itself) and its means."""
    return [(channel, *_steps(channel, spec, params)) for channel in _channels_read(spec, params)]


def _channels_read(spec: ModelSpec, params: LagFeatureParams) -> list[int]:
    always = {*spec.targets, *spec.known, *spec.static}
    return [channel for channel in range(len(spec.channels)) if params.covariate_history or channel in always]


def _steps(channel: int, spec: ModelSpec, params: LagFeatureParams) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the lags (0 is the last value itself) and the means of a channel that fit into the lookback."""
    if channel in spec.static or _is_category(channel, spec):
        return (0,), ()
    is_target = channel in spec.targets
    lags = params.target_lags if is_target else params.covariate_lags
    means = params.target_means if is_target else params.covariate_means
    return (
        tuple(lag for lag in ((0, *lags) if params.levels else lags) if lag < spec.lookback),
        tuple(length for length in means if length <= spec.lookback),
    )


def _is_category(channel: int, spec: ModelSpec) -> bool:
    return bool(spec.cardinalities) and spec.cardinalities[channel] > 0


def _fill_channel(
    out: Float32, samples: WindowSamples, channel: int, lags: tuple[int, ...], means: tuple[int, ...]
) -> None:
    """Write lags and trailing means, less the last value except for lag 0, into the columns of `out`.

    Each window is averaged on its own instead of from a running total: a running total carries rounding from rows
    before the window, and the same window would give other bits online.
    """
    column = np.ascontiguousarray(samples.values[:, channel])
    back = np.array(lags, dtype=np.int64)
    changes = slice(1 if 0 in lags else 0, None)
    for start in range(0, len(samples), BLOCK):
        origins = samples.origins[start : start + BLOCK]
        block = out[start : start + BLOCK]
        block[:, : len(back)] = column[origins[:, None] - back]
        for position, length in enumerate(means, len(back)):
            block[:, position] = windows_of(column, length)[origins - (length - 1)].mean(axis=1)
        block[:, changes] -= column[origins][:, None]


def _fill_scaled_channel(
    out: Float32, samples: WindowSamples, spec: ModelSpec, channel: int, lags: tuple[int, ...], means: tuple[int, ...]
) -> None:
    """Write the same in units of each window's scale; what is missing counts as the last observed value."""
    column = np.ascontiguousarray(samples.values[:, channel])
    last, scale = last_observed(samples, (channel,)), window_scales(samples, spec, (channel,))
    back = np.array(lags, dtype=np.int64)
    for start in range(0, len(samples), BLOCK):
        block = slice(start, start + BLOCK)
        origins = samples.origins[block]
        out[block, : len(back)] = column[origins[:, None] - back]
        for position, length in enumerate(means, len(back)):
            out[block, position] = observed_means(windows_of(column, length)[origins - (length - 1)])
    np.copyto(out, last, where=np.isnan(out))
    out[:, 1 if 0 in lags else 0 :] -= last
    out /= scale


def step_features(samples: WindowSamples, spec: ModelSpec, params: LagFeatureParams, step: int) -> Float32:
    """Return what is known about one step of the horizon: its number, its known columns and its calendar.

    Parameters:
        step: counted from 1.

    Returns:
        of shape (samples, features).
    """
    blocks = [np.full((len(samples), 1), step, dtype=np.float32)]
    if spec.known:
        blocks.append(_known_change(samples, spec, step, slice(None)))
    if params.calendar:
        # There may be no row, and so no timestamp, behind the origin.
        ahead = spec.calendar.ahead(samples.origin_times, step)
        blocks.append(calendar_values(spec, ahead))
    return as_float32(np.hstack(blocks))


def _known_change(samples: WindowSamples, spec: ModelSpec, step: int, block: slice) -> Float32:
    """Return known numbers at a step less their last value, and known categories as they are."""
    known = list(spec.known)
    origins = samples.origins[block]
    ahead = as_float32(samples.values[origins + step][:, known])
    numbers = np.array([not _is_category(channel, spec) for channel in known])
    ahead[:, numbers] -= samples.values[origins][:, known][:, numbers]
    return ahead


def last_observed(samples: WindowSamples, channels: tuple[int, ...] | None = None) -> Float32:
    """Return the newest value in the window of every channel that is not NaN (0 if none), of shape (samples, channels).

    Forecasts are changes from it; those of a target that is a difference already are changes from 0.

    Parameters:
        channels: by default the targets.
    """
    chosen = list(samples.targets if channels is None else channels)
    last: Float32 = samples.values[samples.origins][:, chosen]
    for row, position in np.argwhere(np.isnan(last)):
        origin = samples.origins[row]
        window = samples.values[origin - (samples.lookback - 1) : origin + 1, chosen[position]]
        observed = window[~np.isnan(window)]
        last[row, position] = observed[-1] if len(observed) else 0.0
    if samples.levels is not None:
        last[:, [channel in samples.targets for channel in chosen]] = 0
    return last
