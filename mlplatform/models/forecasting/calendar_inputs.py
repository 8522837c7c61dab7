"""What lag features tell of the calendar: what a model's spec says, or else the time of day and of the week.

Here: which numbers, of which moments. Not here: how they are made of a moment (`calendars`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlplatform.calendars import ns_of
from mlplatform.datamodule import Float32, ModelSpec
from mlplatform.models.base import as_float32

if TYPE_CHECKING:
    import numpy.typing as npt

DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
WAVES = ("sine", "cosine")


def calendar_names(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of the columns of `calendar_values`."""
    if spec.time_features is None:
        return tuple(f"{wave} of the time of the {period}" for wave in WAVES for period in ("day", "week"))
    return spec.time_features.number_names()


def calendar_width(spec: ModelSpec) -> int:
    """Return the number of columns of `calendar_values`."""
    return len(calendar_names(spec))


def calendar_values(spec: ModelSpec, times: npt.NDArray[np.datetime64]) -> Float32:
    """Return what is read of times in UTC, of shape (n,): of shape (n, columns), events last."""
    if spec.time_features is None:
        return _day_and_week(spec.calendar.local(times))
    return spec.time_features.numbers(ns_of(times))


def event_names(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of the columns that no season foretells, so that they have to be told of the horizon as well."""
    return () if spec.time_features is None else spec.time_features.event_names


def event_steps(spec: ModelSpec) -> tuple[int, ...]:
    """Return the steps of the horizon at which events are told to a model of all steps: once a day, and the last."""
    per_day = max(1, DAY_SECONDS // spec.step_seconds) if spec.step_seconds else 1
    return tuple(sorted({*range(1, spec.horizon + 1, per_day), spec.horizon}))


def events_ahead(spec: ModelSpec, times: npt.NDArray[np.datetime64]) -> Float32:
    """Return the events at the steps of `event_steps` after times, of shape (n, steps * events), step by step."""
    assert spec.time_features is not None
    ahead = (ns_of(spec.calendar.ahead(times, step)) for step in event_steps(spec))
    return as_float32(np.hstack([spec.time_features.events(moments) for moments in ahead]))


def _day_and_week(times: npt.NDArray[np.datetime64]) -> Float32:
    seconds = times.astype("datetime64[s]").astype(np.int64)
    angles = np.column_stack([(seconds % period) / period for period in (DAY_SECONDS, WEEK_SECONDS)]) * (2 * np.pi)
    return as_float32(np.hstack([np.sin(angles), np.cos(angles)]))
