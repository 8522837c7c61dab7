"""Which frequency times have, read off the times themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mlplatform.calendars.base import Int64
from mlplatform.calendars.errors import CalendarError
from mlplatform.calendars.frequency import LENGTHS, MONTHS, WEEKDAYS, make_calendar
from mlplatform.calendars.units import DAY_NS, DAYS_PER_WEEK, SHORTEST_MONTH
from mlplatform.calendars.zones import UTC, zone_of

# Fewer times than this say too little.
LEAST_TIMES = 3
# Share of the times that must lie on the grid.
LEAST_SHARE = 0.95
# Business days are told from days by weekends without a row; two of them at least.
LEAST_DAYS = 11
# What makes days since 1970, whose first was a Thursday, days since a Monday.
MONDAY_ON = 3


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
    walls = [zone.wall(times) for times in moments]
    for frequency in _candidates(_most_common(gaps), walls):
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


def _candidates(gap: int, walls: list[Int64]) -> Iterator[str]:
    """Yield the frequencies that neighbours so far apart may have, the one to be preferred where several fit first.

    Months come before days: both fit three Januaries in a row, or what two Februaries are apart.

    Parameters:
        gap: most common distance of neighbours, in nanoseconds.
        walls: of each entity what clocks show at its times, sorted.
    """
    if gap >= DAY_NS:
        gap = _most_common(np.concatenate([np.diff(each) for each in walls]))
        days = [each // DAY_NS for each in walls]
        if gap == DAY_NS:
            yield _daily(np.concatenate(days))
            return
        if gap == DAYS_PER_WEEK * DAY_NS:
            yield f"W-{WEEKDAYS[_most_common((np.concatenate(days) + MONDAY_ON) % DAYS_PER_WEEK)]}"
            return
        if gap >= SHORTEST_MONTH * DAY_NS:
            yield from _monthly(days)
    unit = next((unit for unit in ("D", "h", "min", "s") if gap % LENGTHS[unit] == 0), None)
    if unit is not None:
        number = gap // LENGTHS[unit]
        yield unit if number == 1 else f"{number}{unit}"


def _daily(days: Int64) -> str:
    has_weekend = bool(np.isin((days + MONDAY_ON) % DAYS_PER_WEEK, (5, 6)).any())
    return "D" if has_weekend or len(np.unique(days)) < LEAST_DAYS else "B"


def _monthly(days: list[Int64]) -> Iterator[str]:
    """Yield the months, quarters or years that most neighbours are apart."""
    dates = [each.astype("datetime64[D]") for each in days]
    months = [each.astype("datetime64[M]").astype(np.int64) for each in dates]
    count = _most_common(np.concatenate([np.diff(each) for each in months]))
    if count == 0:
        return
    after = np.concatenate([(each + 1).astype("datetime64[M]").astype(np.int64) for each in dates])
    every = np.concatenate(months)
    at_end = bool(np.mean(after > every) > 0.5)
    side = "E" if at_end else "S"
    if count % 12 == 0:
        years = count // 12
        yield f"{'' if years == 1 else years}Y{side}-{MONTHS[_most_common(every % 12)]}"
    elif count == 3:
        anchor = _most_common(every % 3)
        # Quarters are named after the first of their months that a year has, or by the last of them.
        yield f"Q{side}-{MONTHS[anchor + 9 if at_end else anchor]}"
    else:
        yield f"{'' if count == 1 else count}M{side}"


def _most_common(values: Int64) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[np.argmax(counts)])
