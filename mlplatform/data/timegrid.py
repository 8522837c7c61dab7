"""Order in time: duplicates, the frequency grid, and rows out of order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import Calendar, ns_of
from mlplatform.config import ENTITY, TIMESTAMP

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """Rows that repeat an earlier row's entity and time.

    Attributes:
        exact: rows that repeat the values too.
        conflicting: rows with other values.
        conflicts_with: for each of `conflicting`, the row that is kept.
    """

    exact: Int64
    conflicting: Int64
    conflicts_with: Int64


def find_duplicates(frame: pd.DataFrame, values: list[str]) -> Duplicates:
    """Compare rows with equal entity and time. The frame's index holds the row numbers, in ascending order.

    Parameters:
        values: names of the columns that decide whether a duplicate is exact; two missing values are equal.
    """
    repeated = frame[frame.duplicated([ENTITY, TIMESTAMP], keep=False)]
    if repeated.empty:
        return Duplicates(*(np.zeros(0, dtype=np.int64) for _ in range(3)))
    keys = repeated.groupby([ENTITY, TIMESTAMP], sort=False)
    numbers = repeated.index.to_series()
    first = numbers.groupby(keys.ngroup()).transform("min").to_numpy()
    later = numbers.to_numpy() != first
    kept, others = repeated.loc[first[later], values], repeated.loc[later, values]
    is_equal = np.ones(len(others), dtype=bool)
    for name in values:
        ours, theirs = others[name].to_numpy(), kept[name].to_numpy()
        is_equal &= (ours == theirs) | (pd.isna(ours) & pd.isna(theirs))
    rows = others.index.to_numpy()
    return Duplicates(rows[is_equal], rows[~is_equal], first[later][~is_equal])


def grid_phase(times: npt.NDArray[np.datetime64], calendar: Calendar, before: int | None = None) -> int | None:
    """Return the phase of the frequency grid, as the calendar counts phases; `before` if no time is on any grid.

    It is the phase that most rows have, so hourly data taken at half past are on a grid as well.

    Parameters:
        before: the phase of before, which stays if no other has more rows.
    """
    phases = calendar.phases(ns_of(times[~np.isnat(times)]))
    known, counts = np.unique(phases[phases >= 0], return_counts=True)
    if not len(known) or (before is not None and counts[known == before].sum() == counts.max()):
        return before
    return int(known[np.argmax(counts)])


def off_grid(times: npt.NDArray[np.datetime64], calendar: Calendar, phase: int | None) -> Bool:
    """Return where a time is not on the grid of a phase, of shape (rows,); missing times are not off it."""
    is_time = ~np.isnat(times)
    result = np.zeros(len(times), dtype=bool)
    result[is_time] = True if phase is None else ~calendar.is_on(ns_of(times[is_time]), phase)
    return result


def count_out_of_order(frame: pd.DataFrame) -> int:
    """Return how many rows are earlier than a row of the same entity above them."""
    times = pd.Series(frame[TIMESTAMP].to_numpy(dtype="datetime64[ns]").astype(np.int64))
    latest = times.groupby(frame[ENTITY].to_numpy()).cummax()
    return int((times < latest).sum())
