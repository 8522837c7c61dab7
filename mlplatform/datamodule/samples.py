"""Samples: what a model is fitted on and asked to predict, as views of one contiguous matrix.

A forecast sample is identified by its origin, the last row it may look at. Windows are cut lazily: a batch gathers
only its own rows, and lag matrices gather only the lags asked for, so memory does not grow with lookback x samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.calendars import Calendar, calendar_of
from mlplatform.datamodule.panel import Float32, Int64, Panel


@dataclass(frozen=True)
class WindowSamples:
    """Windows over a preprocessed panel.

    Attributes:
        values: model inputs of shape (rows, channels).
        timestamps: of shape (rows,).
        origins: row of the last input step of every sample, of shape (samples,).
        channels: names of the columns of `values`.
        targets: positions of the target columns in `channels`.
        lookback: input steps.
        horizon: output steps.
        known: positions in `channels` of the columns whose values over the horizon may be read.
        static: positions in `channels` of the columns that are constant per entity.
        step_seconds: length of a time step, in the mean, for the times of the horizon.
        calendar_text: what counts the steps, if it is not their seconds.
        period: the targets are differences from this many steps before; 0 if they come as they are.
        levels: the targets before they were differenced, of shape (rows, targets); None if they come as they are.
        base: what a model answers changes from, of shape (samples, horizon, targets); None where it is the last value.
        cache: derived data a model wants to keep for as long as these samples live (for example a quantised matrix).
    """

    values: Float32
    timestamps: npt.NDArray[np.datetime64]
    origins: Int64
    channels: tuple[str, ...]
    targets: tuple[int, ...]
    lookback: int
    horizon: int
    known: tuple[int, ...] = ()
    static: tuple[int, ...] = ()
    step_seconds: int = 0
    cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    calendar_text: str = ""
    period: int = 0
    levels: Float32 | None = field(default=None, repr=False)
    base: Float32 | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def calendar(self) -> Calendar:
        """What counts the steps."""
        return calendar_of(self.calendar_text, self.step_seconds)

    def select(self, chosen: npt.NDArray[Any]) -> WindowSamples:
        """Return the samples at the given positions (or where the mask is true)."""
        base = None if self.base is None else self.base[chosen]
        return replace(self, origins=self.origins[chosen], base=base, cache={})

    def inputs(self, chosen: slice | Int64 = slice(None)) -> Float32:
        """Return input windows of shape (batch, lookback, channels)."""
        windows = np.lib.stride_tricks.sliding_window_view(self.values, self.lookback, axis=0)
        return np.ascontiguousarray(windows[self.origins[chosen] - (self.lookback - 1)].transpose(0, 2, 1))

    def outputs(self, chosen: slice | Int64 = slice(None)) -> Float32:
        """Return target windows of shape (batch, horizon, targets), of differences less their anchors."""
        columns = np.ascontiguousarray(self.values[:, list(self.targets)]) if self.levels is None else self.levels
        windows = np.lib.stride_tricks.sliding_window_view(columns, self.horizon, axis=0)
        outputs = np.ascontiguousarray(windows[self.origins[chosen] + 1].transpose(0, 2, 1))
        return outputs if self.levels is None else outputs - self.anchors(chosen)

    def differenced(self, period: int) -> WindowSamples:
        """Return the same samples with targets that are differences from `period` steps before, kept beside these.

        Their windows are that much shorter. What is forecast are differences from the newest values that are whole
        periods before and known at the origin, so that no step of a forecast is made of another.
        """
        key = ("differenced", period)
        if key not in self.cache:
            levels = np.ascontiguousarray(self.values[:, list(self.targets)])
            values = self.values.copy()
            # No window reaches back to the first rows of a series.
            values[:period, list(self.targets)] = 0
            values[period:, list(self.targets)] = levels[period:] - levels[:-period]
            lookback = self.lookback - period
            self.cache[key] = replace(self, values=values, lookback=lookback, period=period, levels=levels, cache={})
        found: WindowSamples = self.cache[key]
        return found

    def anchors(self, chosen: slice | Int64 = slice(None)) -> Float32:
        """Return what the outputs are differences from, of shape (batch, horizon, targets).

        A value that is missing is the one a period earlier, then the last observed one of the window, then 0.
        """
        assert self.levels is not None
        origins, period = self.origins[chosen], self.period
        back = (period - np.arange(1, self.horizon + 1)) % period
        anchors: Float32 = self.levels[origins[:, None] - back[None, :]]
        length = self.lookback + period
        for row, step, target in np.argwhere(np.isnan(anchors)):
            window = self.levels[origins[row] - (length - 1) : origins[row] + 1, target]
            same = window[length - 1 - back[step] :: -period]
            known = [each for each in (same, window[::-1]) if np.isfinite(each).any()]
            anchors[row, step, target] = known[0][np.isfinite(known[0])][0] if known else 0
        return anchors

    def future(self, chosen: slice | Int64 = slice(None)) -> Float32:
        """Return the known columns over the horizon, of shape (batch, horizon, known)."""
        origins = self.origins[chosen]
        if not self.known:
            return np.empty((len(origins), self.horizon, 0), dtype=np.float32)
        rows = origins[:, None] + np.arange(1, self.horizon + 1)
        values: Float32 = self.values[rows[:, :, None], np.asarray(self.known)]
        return values

    def static_values(self, chosen: slice | Int64 = slice(None)) -> Float32:
        """Return the static columns at the origin, of shape (batch, static)."""
        values: Float32 = self.values[self.origins[chosen]][:, list(self.static)]
        return values

    def lags(self, channel: int, lags: Sequence[int]) -> Float32:
        """Return the channel `lag` steps before the origin (0 is the origin itself), of shape (samples, len(lags))."""
        if max(lags) >= self.lookback:
            raise ValueError(f"lag {max(lags)} reaches behind the lookback of {self.lookback} steps")
        if min(lags) < 0:
            raise ValueError(f"lag {min(lags)} reaches into the future; allowed: 0 to {self.lookback - 1}")
        column = np.ascontiguousarray(self.values[:, channel])
        chosen: Float32 = column[self.origins[:, None] - np.asarray(lags, dtype=np.int64)[None, :]]
        return chosen

    @property
    def origin_times(self) -> npt.NDArray[np.datetime64]:
        """Time of every origin, of shape (samples,)."""
        return self.timestamps[self.origins]


@dataclass(frozen=True)
class TabularSamples:
    """A feature matrix and its target.

    Attributes:
        values: of shape (samples, features); missing values are NaN.
        labels: of shape (samples,): the preprocessed target, or class indices; empty where it is not known.
        channels: names of the columns of `values`.
        classes: number of classes for classification, else 0.
    """

    values: Float32
    labels: Float32
    channels: tuple[str, ...]
    classes: int = 0
    cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def select(self, chosen: npt.NDArray[Any]) -> TabularSamples:
        """Return the samples at the given positions (or where the mask is true)."""
        labels = self.labels[chosen] if len(self.labels) else self.labels
        return replace(self, values=self.values[chosen], labels=labels, cache={})


Samples = WindowSamples | TabularSamples


def complete_origins(panel: Panel, targets: Sequence[str], lookback: int, horizon: int) -> Int64:
    """Return the origins with a full lookback and fully observed targets, inside one entity.

    Parameters:
        panel: in original units, so that a missing target is visible as NaN.
        targets: columns that must be observed over the whole horizon.
    """
    observed = np.ones(panel.rows, dtype=bool)
    for target in targets:
        observed &= np.isfinite(panel.columns[target].astype(np.float32, copy=False))
    missing_before = np.concatenate([[0], np.cumsum(~observed)])
    pieces = []
    for start, end in zip(panel.offsets[:-1], panel.offsets[1:], strict=True):
        origins = np.arange(start + lookback - 1, end - horizon, dtype=np.int64)
        complete = missing_before[origins + horizon + 1] == missing_before[origins + 1]
        pieces.append(origins[complete])
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)


def last_origins(panel: Panel) -> Int64:
    """Return the last row of every entity: the origins of a forecast into the future."""
    return panel.offsets[1:] - 1
