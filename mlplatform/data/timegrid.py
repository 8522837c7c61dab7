"""Order in time: duplicates, the frequency grid, rows out of order and gaps."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

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


def off_grid(times: npt.NDArray[np.datetime64], step: dt.timedelta) -> Bool:
    """Return where a time is not on the grid, of shape (rows,); missing times are not off it.

    The grid is the step from the phase that most rows have, so hourly data taken at half past are on a grid as well.
    """
    is_time = ~np.isnat(times)
    # numpy's remainder takes the sign of the step, so times before 1970 have a phase of zero or more as well.
    phases = times[is_time].astype("datetime64[ns]").astype(np.int64) % np.timedelta64(step, "ns").astype(np.int64)
    result = np.zeros(len(times), dtype=bool)
    if len(phases):
        known, counts = np.unique(phases, return_counts=True)
        result[is_time] = phases != known[np.argmax(counts)]
    return result


def count_out_of_order(frame: pd.DataFrame) -> int:
    """Return how many rows are earlier than a row of the same entity above them."""
    times = pd.Series(frame[TIMESTAMP].to_numpy(dtype="datetime64[ns]").astype(np.int64))
    latest = times.groupby(frame[ENTITY].to_numpy()).cummax()
    return int((times < latest).sum())


def find_gaps(frame: pd.DataFrame, step: dt.timedelta | None) -> pd.DataFrame:
    """Return the missing stretches between the first and last row of each entity.

    Parameters:
        frame: ordered by entity and time, on the grid, without duplicates.
        step: of the grid; without one there are no gaps.

    Returns:
        One row per stretch: `entity_id`, `start` and `end` (first and last missing time, UTC) and `steps` (int64).
    """
    times = frame[TIMESTAMP].to_numpy(dtype="datetime64[ns]")
    entities = frame[ENTITY].to_numpy()
    length = np.timedelta64(pd.Timedelta.max if step is None else step, "ns")
    before = np.flatnonzero((entities[1:] == entities[:-1]) & (np.diff(times) > length))
    steps: npt.NDArray[Any] = (times[before + 1] - times[before]) // length - 1
    return pd.DataFrame(
        {
            ENTITY: entities[before],
            "start": pd.DatetimeIndex(times[before] + length, tz="UTC"),
            "end": pd.DatetimeIndex(times[before + 1] - length, tz="UTC"),
            "steps": steps.astype(np.int64),
        }
    )
