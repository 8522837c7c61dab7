"""The rows of a request by column, and its values as numbers and moments: read once, for checks and panel alike.

A window of a week has more than a thousand values, and going over them row by row takes longer than the model. What is
here says whether a whole column is as it should be; which row is to blame, `serving.rows` looks for only then.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = Sequence[Mapping[str, Any]]
Values = Sequence[Any]
Float64 = npt.NDArray[np.float64]

FLOAT32_MAX = float(np.finfo(np.float32).max)
INT64 = range(-(2**63), 2**63)
# datetime64[ns] ends in 2262; a margin keeps the forecast moments inside.
YEARS = (1700, 2200)
EPOCH, MICROSECOND = dt.datetime(1970, 1, 1), dt.timedelta(microseconds=1)
# What NumPy holds for a time that is none.
NO_TIME = np.datetime64("NaT", "us").astype(np.int64).item()
# Characters of a time that is kept: what a client sends is bounded by nothing but the body.
LONGEST_KEPT_TIME = 48


def by_column(rows: Rows, names: Sequence[str]) -> dict[str, Values] | None:
    """Return the values of every name, in the order of the rows; `None` unless every row has just these names."""
    if not rows or set(map(len, rows)) != {len(names)}:
        return None
    if len(names) == 1:
        (name,) = names
        return {name: [row[name] for row in rows]} if all(name in row for row in rows) else None
    try:
        return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
    except KeyError:
        return None


def numbers(values: Values, allows_null: bool = False) -> Float64 | None:
    """Return JSON numbers that float32 can hold; `None` if one of the values is something else.

    Parameters:
        allows_null: nulls count as such, and become NaN.
    """
    known = {float, int, type(None)} if allows_null else {float, int}
    if not set(map(type, values)) <= known:
        return None
    found = np.array(values, np.float64)
    held = np.count_nonzero(np.abs(found) <= FLOAT32_MAX)
    nulls = values.count(None) if held < len(values) and allows_null else 0
    return found if held + nulls == len(values) else None


def are_ids(values: Values) -> bool:
    """Return whether all values are whole numbers of 64 bits, or all are texts."""
    types = set(map(type, values))
    return types == {str} or (types == {int} and min(values) in INT64 and max(values) in INT64)


def moments(values: Values) -> npt.NDArray[np.datetime64]:
    """Return ISO 8601 times in UTC, of datetime64[ns]; NaT for a value that is something else."""
    is_short = set(map(type, values)) == {str} and max(map(len, values)) <= LONGEST_KEPT_TIME
    found = map(_known_time if is_short else _read_time, values)
    microseconds = [NO_TIME if time is None else time[1] for time in found]
    return np.array(microseconds, dtype=np.int64).astype("datetime64[us]").astype("datetime64[ns]")


def utc_moment(value: Any) -> dt.datetime | None:
    """Return an ISO 8601 time as naive UTC; a time without a zone is taken as UTC."""
    found = _read_time(value)
    return None if found is None else found[0]


def _read_time(value: Any) -> tuple[dt.datetime, int] | None:
    """Return a time as `utc_moment` does, and in microseconds since 1970."""
    if type(value) is not str:
        return None
    return _known_time(value) if len(value) <= LONGEST_KEPT_TIME else _parsed_time(value)


def _parsed_time(value: str) -> tuple[dt.datetime, int] | None:
    try:
        moment = dt.datetime.fromisoformat(value)
        moment = moment if moment.tzinfo is None else moment.astimezone(dt.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return (moment, (moment - EPOCH) // MICROSECOND) if YEARS[0] <= moment.year <= YEARS[1] else None


# The windows of a series and its neighbours share most of their times.
_known_time = lru_cache(8_192)(_parsed_time)
