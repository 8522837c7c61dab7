"""Which frequency times have, read off the times themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mlplatform.calendars.base import Int64
from mlplatform.calendars.errors import CalendarError
from mlplatform.calendars.frequency import LENGTHS, MONTHS, WEEKDAYS, make_calendar
from mlplatform.calendars.units import DAY_NS, DAYS_PER_WEEK
from mlplatform.calendars.zones import UTC, zone_of

# Fewer times than this say too little.
LEAST_TIMES = 3
# Share of the times that must lie on the grid.
LEAST_SHARE = 0.95
# Business days are told from days by weekends without a row; two of them at least.
LEAST_DAYS = 11
# How far apart, in days, neighbours of each unit are.
UNIT_DAYS = {"M": (28, 31), "Q": (89, 92), "Y": (365, 366)}


@dataclass(frozen=True)
class Inferred:
    """A frequency that was read off times.

    Attributes:
        frequency: as a configuration has it.
        share: of the times on its grid.
        times: number of times that were looked at.
    """

    frequency: str
    share: float
    times: int


def infer_frequency(series: Iterable[Int64], timezone: str = UTC) -> Inferred:
    """Return the frequency that most neighbouring times of several series have.

    Parameters:
        series: of each entity its moments in nanoseconds, in any order.

    Raises:
        CalendarError: if there are too few times, or most of them fit no grid.
    """
    zone = zone_of(timezone)
    moments = [np.unique(times) for times in series]
    moments = [times for times in moments if len(times) >= LEAST_TIMES]
    count = sum(map(len, moments))
    if not moments:
        raise CalendarError(
            f"frequency auto needs an entity with at least {LEAST_TIMES} different times; say it instead"
        )
    gaps = np.concatenate([np.diff(times) for times in moments])
    walls = np.concatenate([zone.wall(times) for times in moments])
    frequency = _frequency(_most_common(gaps), np.concatenate([np.diff(zone.wall(times)) for times in moments]), walls)
    if frequency is not None:
        calendar = make_calendar(frequency, timezone)
        found, counts = np.unique(np.concatenate([calendar.phases(times) for times in moments]), return_counts=True)
        counts = counts[found >= 0]
        share = float(counts.max(initial=0) / count)
        if share >= LEAST_SHARE:
            return Inferred(frequency, share, count)
    raise CalendarError(
        f"frequency auto finds no step that {LEAST_SHARE:.0%} of {count} times have in common; the most common "
        f"distance is {np.timedelta64(_most_common(gaps), 'ns').astype('timedelta64[s]')}. Say the frequency instead"
    )


def _frequency(gap: int, wall_gaps: Int64, walls: Int64) -> str | None:
    if gap < DAY_NS:
        return _fixed(gap, ("s", "min", "h"))
    gap = _most_common(wall_gaps)
    days = walls // DAY_NS
    if gap == DAY_NS:
        # The first of January 1970 was a Thursday.
        has_weekend = bool(np.isin((days + 3) % DAYS_PER_WEEK, (5, 6)).any())
        return "D" if has_weekend or len(np.unique(days)) < LEAST_DAYS else "B"
    if gap == DAYS_PER_WEEK * DAY_NS:
        return f"W-{WEEKDAYS[_most_common((days + 3) % DAYS_PER_WEEK)]}"
    for unit, (low, high) in UNIT_DAYS.items():
        if low * DAY_NS <= gap <= high * DAY_NS:
            return _months(unit, days)
    return _fixed(gap, ("D",))


def _months(unit: str, days: Int64) -> str:
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]").astype(np.int64)
    at_end = np.mean((dates + 1).astype("datetime64[M]").astype(np.int64) > months) > 0.5
    side = "E" if at_end else "S"
    if unit == "M":
        return f"M{side}"
    period = 3 if unit == "Q" else 12
    anchor = _most_common(months % period)
    # Quarters are named after the first of their months that a year has, or by the last of them.
    month = anchor + 9 if unit == "Q" and at_end else anchor
    return f"{unit}{side}-{MONTHS[month]}"


def _fixed(gap: int, units: tuple[str, ...]) -> str | None:
    for unit in reversed(units):
        if gap % LENGTHS[unit] == 0:
            number = gap // LENGTHS[unit]
            return unit if number == 1 else f"{number}{unit}"
    return None


def _most_common(values: Int64) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[np.argmax(counts)])
