"""What times of a column of text mean: how they are written, or what they count, and the step between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlplatform.config import TimeUnit
from mlplatform.data import parse_times

if TYPE_CHECKING:
    import pandas as pd

# How times are written where ISO 8601 is not. Days come before months unless a file shows the contrary, or has fewer
# gaps by the other reading.
FORMATS = tuple(
    date + time
    for date in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%d %b %Y", "%d.%m.%y", "%Y-%m-%d")
    for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
)
ENOUGH, COVERED = 0.95, 0.5
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
COUNT = re.compile(r"\d+(\.\d+)?")
# Whole numbers that are days or months of the years 1900 to 2099.
DATES = {"%Y%m%d": re.compile(r"(19|20)\d\d[01]\d[0-3]\d"), "%Y%m": re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])")}
# A time of day that ends with what it is ahead of UTC.
WITH_OFFSET = re.compile(r".*\d[T ]\d.*(Z|[+-]\d\d(:?\d\d)?)")
# What a column of numbers that are times is called.
NAMED = re.compile(r"time|date|stamp|epoch|unix|utc|(^|[^a-z])(ts|t)([^a-z]|$)", re.IGNORECASE)
# Seconds of the years 1973 to 2100; in other units the same years are other numbers, so that these tell the unit.
EPOCHS = (1e8, 4.1e9)
UNITS: dict[TimeUnit, float] = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True)
class Times:
    """Times of a column.

    Attributes:
        values: in UTC, NaT where a cell is none.
        format: strftime format; `None` for ISO 8601.
        is_ambiguous: whether day and month could be exchanged.
        unit: what they count since 1970 UTC; `None` where they are written.
        has_offsets: whether every cell says what it is ahead of UTC.
    """

    values: pd.Series
    format: str | None
    is_ambiguous: bool = False
    unit: TimeUnit | None = None
    has_offsets: bool = False

    @property
    def is_in_utc(self) -> bool:
        """Whether the cells themselves say what moments they mean, so that no clock's days are told by them."""
        return self.has_offsets or self.unit is not None


def read_times(cells: pd.Series) -> Times | None:
    """Return the times that cells of text hold; `None` if most of them hold none."""
    import pandas as pd

    present = cells.dropna()
    if present.empty or present.map(lambda cell: bool(NUMBER.fullmatch(cell))).mean() > 1 - ENOUGH:
        return None
    parsed, _ = parse_times(cells)
    values = pd.Series(parsed, index=cells.index)
    if values[present.index].notna().mean() >= ENOUGH:
        has_offsets = all(WITH_OFFSET.fullmatch(cell.strip()) for cell in present)
        return Times(values, None, has_offsets=has_offsets)
    found = [(spelled, _parsed(cells, spelled)) for spelled in FORMATS]
    fitting = [(spelled, times) for spelled, times in found if times[present.index].notna().mean() >= ENOUGH]
    if not fitting:
        return None
    most = max(times.notna().sum() for _, times in fitting)
    rivals = [(spelled, times) for spelled, times in fitting if times.notna().sum() == most]
    is_ambiguous = any(not times.equals(rivals[0][1]) for _, times in rivals)
    spelled, times = max(rivals, key=lambda pair: _coverage(pair[1])) if is_ambiguous else rivals[0]
    return Times(times, spelled, is_ambiguous)


def read_numbers(cells: pd.Series) -> Times | None:
    """Return the times that cells of numbers count since 1970, or the dates that they are, such as 20230131 or 202301.

    `None` if they are neither, or of no years that rows are from.
    """
    return _counts(cells) or _dates(cells)


def _dates(cells: pd.Series) -> Times | None:
    present = cells.dropna()
    for spelled, pattern in DATES.items():
        if present.nunique() > 1 and present.map(lambda cell, pattern=pattern: bool(pattern.fullmatch(cell))).all():
            values = _parsed(cells, spelled)
            return Times(values, spelled) if values[present.index].notna().all() else None
    return None


def _counts(cells: pd.Series) -> Times | None:
    present = cells.dropna()
    if present.empty or not present.map(lambda cell: bool(COUNT.fullmatch(cell))).all():
        return None
    first, last = present.astype(float).min(), present.astype(float).max()
    units = [unit for unit, size in UNITS.items() if EPOCHS[0] * size <= first and last <= EPOCHS[1] * size]
    if not units or first == last:
        return None
    import pandas as pd

    parsed, _ = parse_times(cells, units[0])
    values = pd.Series(parsed, index=cells.index)
    return Times(values, None, unit=units[0]) if values[present.index].notna().mean() >= ENOUGH else None


def are_times(name: str, times: Times) -> bool:
    """Return whether numbers that could be times are: by their column's name, or because they keep a step."""
    may_keep = times.unit in ("s", "ms") or times.format is not None
    return NAMED.search(name) is not None or (may_keep and _coverage(times.values) >= COVERED)


def _coverage(times: pd.Series) -> float:
    """Return the share of the steps between the first and the last time that are there; 0 without common steps."""
    import numpy as np

    from mlplatform.calendars import make_calendar

    frequency = frequency_of(times, None)
    if frequency is None:
        return 0.0
    moments = np.unique(times.dropna().to_numpy(dtype="datetime64[ns]").astype(np.int64))
    steps = make_calendar(frequency, "UTC").steps(int(moments[0]), int(moments[-1]))
    return len(moments) / (int(steps) + 1)


def _parsed(cells: pd.Series, spelled: str) -> pd.Series:
    import pandas as pd

    return pd.to_datetime(cells, format=spelled, errors="coerce").astype("datetime64[ns]")


def frequency_of(times: pd.Series, entities: pd.Series | None) -> str | None:
    """Return the frequency of the times of each entity; `None` if they have none in common."""
    from mlplatform.calendars import CalendarError, infer_frequency

    known = times.dropna()
    moments = known.to_numpy(dtype="datetime64[ns]").astype("int64")
    groups = [moments]
    if entities is not None:
        codes = entities[known.index].astype(str).factorize()[0]
        groups = [moments[codes == code] for code in range(codes.max(initial=-1) + 1)]
    try:
        return infer_frequency(groups).frequency
    except CalendarError:
        return None
