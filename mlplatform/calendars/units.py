"""Units of the calendar in wall time: numbered without a gap, each beginning at a time that its number tells.

Numbers count from the unit of 1970-01-01. A unit knows nothing of zones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

DAY_NS = 86_400 * 1_000_000_000
DAYS_PER_WEEK = 7
MONTH_NS = int(365.2425 / 12 * DAY_NS)
# Days of a month that every month has.
SHORTEST_MONTH = 28
WORKING_DAYS = "1111100"  # from Monday
# Business days are counted from here, because NumPy counts backwards by another rule.
EARLIEST = np.datetime64("1677-01-03", "D")
EPOCH = np.datetime64("1970-01-01", "D")


class Unit(ABC):
    """A unit of the calendar.

    Attributes:
        reach: how long after the beginning of a unit, in nanoseconds, its times may lie; every unit is that long.
        nominal: mean length in nanoseconds.
        details: what makes the unit beside its name, in the text of a calendar.
        at_end: whether units are told by their last day.
    """

    reach: int
    nominal: int
    details: str = ""
    at_end: bool = False

    @abstractmethod
    def number(self, wall: Int64) -> Int64:
        """Return the number of the newest unit that has begun at wall times."""

    @abstractmethod
    def start(self, numbers: Int64) -> Int64:
        """Return the wall times at which units begin."""


@dataclass(frozen=True)
class Stretches(Unit):
    """Units of one length, such as days and weeks.

    Attributes:
        length, origin: in nanoseconds; a unit begins at the origin.
        reach: see `Unit`; a week that begins on Mondays may begin at any hour, but not on a Tuesday.
        at_end: see `Unit`; steps are the same, and only which days they cover is not.
    """

    length: int
    origin: int
    reach: int
    at_end: bool = False

    @property
    def details(self) -> str:  # type: ignore[override]
        """The label, where it is not the first day, as all units of one length had it once."""
        return " week_label=end" if self.at_end else ""

    @property
    def nominal(self) -> int:  # type: ignore[override]
        """The length."""
        return self.length

    def number(self, wall: Int64) -> Int64:
        """See `Unit`."""
        return np.asarray((wall - self.origin) // self.length)

    def start(self, numbers: Int64) -> Int64:
        """See `Unit`."""
        return np.asarray(numbers * self.length + self.origin)


@dataclass(frozen=True)
class Months(Unit):
    """Months, quarters and years, that begin with their first or are told by their last day.

    Attributes:
        count: months in a unit.
        anchor: the month, 0 for January, whose first or last day is a unit's.
        at_end: whether units are told by their last day.
    """

    count: int
    anchor: int
    at_end: bool

    @property
    def reach(self) -> int:  # type: ignore[override]
        """A day of the month that every month has; of units told by their last day, that day."""
        return DAY_NS if self.at_end else SHORTEST_MONTH * DAY_NS

    @property
    def nominal(self) -> int:  # type: ignore[override]
        """The mean length."""
        return self.count * MONTH_NS

    def number(self, wall: Int64) -> Int64:
        """See `Unit`."""
        months = wall.astype("datetime64[ns]").astype("datetime64[M]").astype(np.int64)
        numbers = (months - self.anchor) // self.count
        return np.asarray(numbers - (self.start(numbers) > wall)) if self.at_end else np.asarray(numbers)

    def start(self, numbers: Int64) -> Int64:
        """See `Unit`."""
        months = numbers * self.count + self.anchor
        if not self.at_end:
            return _days_ns(months.astype("datetime64[M]").astype("datetime64[D]"))
        return _days_ns((months + 1).astype("datetime64[M]").astype("datetime64[D]")) - DAY_NS


class BusinessDays(Unit):
    """The working days of a week, less holidays.

    Parameters:
        weekmask: of seven characters, Monday first: `1` for a working day.
        holidays: days of the form 2026-12-25.
    """

    reach = DAY_NS

    def __init__(self, weekmask: str, holidays: tuple[str, ...]) -> None:
        self.weekmask, self.holidays = weekmask, holidays
        self._days = np.busdaycalendar(weekmask, np.array(holidays, dtype="datetime64[D]"))
        self._first = np.busday_offset(EARLIEST, 0, roll="forward", busdaycal=self._days)
        self._before_epoch = int(np.busday_count(self._first, EPOCH, busdaycal=self._days))
        self.per_week = weekmask.count("1")
        self.nominal = DAY_NS * DAYS_PER_WEEK // self.per_week
        self.details = "" if weekmask == WORKING_DAYS else f" weekmask={weekmask}"
        self.details += f" holidays={','.join(holidays)}" if holidays else ""

    def number(self, wall: Int64) -> Int64:
        """See `Unit`."""
        after = (wall // DAY_NS + 1).astype("datetime64[D]")
        return np.asarray(np.busday_count(self._first, after, busdaycal=self._days) - 1 - self._before_epoch)

    def start(self, numbers: Int64) -> Int64:
        """See `Unit`."""
        return _days_ns(np.busday_offset(self._first, numbers + self._before_epoch, busdaycal=self._days))


def _days_ns(days: npt.NDArray[np.datetime64]) -> Int64:
    return np.asarray(days.astype(np.int64) * DAY_NS)
