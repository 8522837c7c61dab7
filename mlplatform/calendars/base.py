"""A calendar: the one place that counts steps of time.

Moments are nanoseconds since 1970 UTC, as int64, in arrays of any shape that numpy can broadcast. Two moments are on
the same grid if a whole number of steps lies between them. A grid has a phase: data that is taken at half past is on
an hourly grid as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlplatform.calendars.units import DAY_NS, WORKING_DAYS, BusinessDays, Unit
from mlplatform.calendars.zones import SECOND_NS, Zone

if TYPE_CHECKING:
    import pandas as pd

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Times = npt.NDArray[np.datetime64]

NO_PHASE = -1
# The longest first.
_UNITS = tuple((word, seconds * SECOND_NS) for word, seconds in {"day": 86_400, "hour": 3600, "minute": 60}.items())


class Calendar(ABC):
    """Steps of time.

    Attributes:
        frequency: as it was written, such as `1h` or `MS`.
        zone: whose clocks count.
        name: for people, such as `month`.
        nominal_ns: how long a step is, in the mean; for bounds, never to count with.
    """

    frequency: str
    zone: Zone
    name: str
    nominal_ns: int
    # Whether every step has the same length in nanoseconds, and no zone is told: as all calendars were once.
    is_plain: bool = False
    # Whether every step has the same length in nanoseconds.
    is_even: bool = False
    # Whether a step is told by its last day, so that the days it covers come before it.
    is_told_by_end: bool = False
    # The weekmask of the working days, and the days that are none of them whatever their weekday.
    working_days: tuple[str, tuple[str, ...]] = (WORKING_DAYS, ())

    @property
    @abstractmethod
    def text(self) -> str:
        """All that makes the calendar, in a form that `calendar_from_text` reads."""

    @property
    def length(self) -> str:
        """How long a step is, for people: `15 minutes`, or `1 month (first day)`."""
        if self.is_plain:
            word, length = next((each for each in _UNITS if self.nominal_ns % each[1] == 0), ("second", SECOND_NS))
            count = f"{self.nominal_ns / length:g}"
            return f"{count} {word}" if count == "1" else f"{count} {word}s"
        return self.name if self.name[0].isdigit() else f"1 {self.name}"

    @property
    @abstractmethod
    def seasons(self) -> tuple[int, ...]:
        """Lengths of the seasons that such data may have, in steps, shortest first."""

    @abstractmethod
    def shift(self, moments: Int64, steps: Int64 | int) -> Int64:
        """Return the moments so many steps after moments on a grid; before them, if the number is negative."""

    @abstractmethod
    def between(self, anchors: Int64 | int, moments: Int64 | int) -> tuple[Int64, Bool]:
        """Return how many whole steps lie between anchors and moments, rounded down, and if that is exact.

        The anchors lie on a grid; a moment for which it is exact is on the same one.
        """

    @abstractmethod
    def ordinals(self, moments: Int64) -> Int64:
        """Return the number of the newest step at or before moments, on the grid of phase 0."""

    @abstractmethod
    def moments(self, ordinals: Int64, phase: int = 0) -> Int64:
        """Return the moments of steps by their numbers, on the grid of a phase."""

    @abstractmethod
    def phases(self, moments: Int64) -> Int64:
        """Return the phase of the grid that each moment is on; `NO_PHASE` where it is on none."""

    @abstractmethod
    def is_on(self, moments: Int64, phase: int) -> Bool:
        """Return which moments are on the grid of a phase."""

    def steps(self, anchors: Int64 | int, moments: Int64 | int) -> Int64:
        """Return how many whole steps lie between anchors and moments, rounded down."""
        return self.between(anchors, moments)[0]

    def ahead(self, times: Times, steps: Int64 | int) -> Times:
        """Return what `shift` does, of and as datetime64[ns] in UTC."""
        return times_of(self.shift(ns_of(times), steps))

    def moment(self, moment: pd.Timestamp, steps: int) -> pd.Timestamp:
        """Return the moment so many steps after one on a grid, in UTC."""
        import pandas as pd

        moved = self.shift(np.array([moment.as_unit("ns").value]), steps)
        return pd.Timestamp(int(moved[0]), tz="UTC")

    def count(self, start: pd.Timestamp, end: pd.Timestamp) -> int:
        """Return how many whole steps lie between two moments, rounded down."""
        return int(self.steps(*(np.array([moment.as_unit("ns").value]) for moment in (start, end)))[0])

    def range(self, first: int, last: int) -> Int64:
        """Return all steps from a moment on a grid to another moment."""
        count = int(self.steps(np.array([first]), np.array([last]))[0]) + 1
        return self.shift(np.full(max(count, 0), first, dtype=np.int64), np.arange(max(count, 0), dtype=np.int64))

    def floor(self, moments: Int64) -> Int64:
        """Return the newest step at or before moments, on the grid of phase 0."""
        return self.moments(self.ordinals(moments))

    def ceil(self, moments: Int64) -> Int64:
        """Return the oldest step at or after moments, on the grid of phase 0."""
        floor = self.floor(moments)
        return np.where(floor == moments, moments, self.shift(floor, 1))

    def days(self, moments: Int64) -> tuple[Int64, Int64]:
        """Return the first day that steps cover, and the day after the last, in days of the zone since 1970.

        A step of hours covers the day that it lies in, and a business day itself alone.
        """
        own = self.zone.wall(moments) // DAY_NS
        if self.nominal_ns < 2 * DAY_NS:
            return own, own + 1
        if self.is_told_by_end:
            return self.zone.wall(self.shift(moments, -1)) // DAY_NS + 1, own + 1
        return own, self.zone.wall(self.shift(moments, 1)) // DAY_NS

    @property
    def stored_text(self) -> str:
        """The text as it is stored beside the seconds of a step, which tell all about plain steps."""
        return "" if self.is_plain else self.text

    def local(self, times: Times) -> Times:
        """Return what the clocks of the zone show at times, as datetime64."""
        return times if self.zone.is_utc else times_of(self.zone.wall(ns_of(times)))

    def window(self, ends: Int64, steps: int, after: int = 0) -> Int64:
        """Return the moments of windows by their ends, of shape (ends, steps + after), oldest first.

        Parameters:
            steps: up to and with the end.
            after: steps that follow it.
        """
        return self.shift(ends[:, None], np.arange(1 - steps, after + 1, dtype=np.int64)[None, :])


class EqualSteps(Calendar):
    """Steps of one length in nanoseconds, which are counted by a division."""

    is_even = True

    def __init__(self, frequency: str, step: int, zone: Zone, name: str) -> None:
        self.frequency, self.zone, self.name = frequency, zone, name
        self.nominal_ns = step
        self.is_plain = zone.is_utc

    @property
    def text(self) -> str:
        """See `Calendar`."""
        return self.frequency if self.is_plain else f"{self.frequency} tz={self.zone.name}"

    @property
    def seasons(self) -> tuple[int, ...]:
        """A day and a week of steps, or a week and a year."""
        is_weekly = self.nominal_ns % (7 * DAY_NS) == 0
        return _whole(self.nominal_ns, (1, 7) if self.nominal_ns < DAY_NS else (7, 364 if is_weekly else 365))

    def shift(self, moments: Int64, steps: Int64 | int) -> Int64:
        """See `Calendar`."""
        return moments + steps * self.nominal_ns

    def ahead(self, times: Times, steps: Int64 | int) -> Times:
        """See `Calendar`."""
        return np.asarray(times + steps * np.timedelta64(self.nominal_ns, "ns"))

    def between(self, anchors: Int64 | int, moments: Int64 | int) -> tuple[Int64, Bool]:
        """See `Calendar`."""
        steps, rest = np.divmod(np.subtract(moments, anchors), self.nominal_ns)
        return steps, rest == 0

    def steps(self, anchors: Int64 | int, moments: Int64 | int) -> Int64:
        """See `Calendar`."""
        return np.asarray(np.subtract(moments, anchors) // self.nominal_ns)

    def ordinals(self, moments: Int64) -> Int64:
        """See `Calendar`."""
        return moments // self.nominal_ns

    def moments(self, ordinals: Int64, phase: int = 0) -> Int64:
        """See `Calendar`."""
        return ordinals * self.nominal_ns + phase

    def phases(self, moments: Int64) -> Int64:
        """See `Calendar`."""
        return moments % self.nominal_ns

    def is_on(self, moments: Int64, phase: int) -> Bool:
        """See `Calendar`."""
        return np.asarray(self.phases(moments) == phase)


class WallSteps(Calendar):
    """Steps of so many units of the calendar, as the clocks of a zone tell them.

    A phase is a wall time after the beginning of a unit; where a step is several units, they are counted in it, too. On
    a day on which clocks skip that time, a row is off the grid: its moment does not tell what was meant.
    """

    def __init__(
        self, frequency: str, unit: Unit, multiple: int, zone: Zone, name: str, seasons: tuple[int, ...]
    ) -> None:
        self.frequency, self.zone, self.name = frequency, zone, name
        self.nominal_ns = unit.nominal * multiple
        self._unit, self._multiple, self._seasons = unit, multiple, seasons
        self.is_told_by_end = unit.at_end
        if isinstance(unit, BusinessDays):
            self.working_days = (unit.weekmask, unit.holidays)

    @property
    def text(self) -> str:
        """See `Calendar`."""
        zone = "" if self.zone.is_utc else f" tz={self.zone.name}"
        return f"{self.frequency}{self._unit.details}{zone}"

    @property
    def seasons(self) -> tuple[int, ...]:
        """See `Calendar`."""
        return self._seasons

    def shift(self, moments: Int64, steps: Int64 | int) -> Int64:
        """See `Calendar`."""
        numbers, after = self._split(moments)
        return self._moment(numbers + np.multiply(steps, self._multiple), after)

    def between(self, anchors: Int64 | int, moments: Int64 | int) -> tuple[Int64, Bool]:
        """See `Calendar`."""
        at = np.asarray(moments, dtype=np.int64)
        first, after = self._split(np.asarray(anchors, dtype=np.int64))
        numbers = self._number(at, after)
        steps, rest = np.divmod(numbers - first, self._multiple)
        return steps, (rest == 0) & (self._moment(numbers, after) == at)

    def ordinals(self, moments: Int64) -> Int64:
        """See `Calendar`."""
        return self._number(moments, 0) // self._multiple

    def moments(self, ordinals: Int64, phase: int = 0) -> Int64:
        """See `Calendar`."""
        units, after = divmod(phase, self._unit.reach)
        return self._moment(ordinals * self._multiple + units, after)

    def phases(self, moments: Int64) -> Int64:
        """See `Calendar`."""
        numbers, after = self._split(moments)
        is_on = (after < self._unit.reach) & (self._moment(numbers, after) == moments)
        return np.where(is_on, numbers % self._multiple * self._unit.reach + after, NO_PHASE)

    def is_on(self, moments: Int64, phase: int) -> Bool:
        """See `Calendar`."""
        # Not by the moment of the phase: where clocks skip it, the moment does not tell its phase any more.
        return np.asarray(self.phases(moments) == phase)

    def _split(self, moments: Int64) -> tuple[Int64, Int64]:
        """Return the newest unit at or before moments, and how long after its beginning the clocks are."""
        numbers = self._number(moments, 0)
        after = np.maximum(self.zone.wall(moments) - self._unit.start(numbers), 0)
        if not self.zone.is_utc:
            # A unit may begin at a time that clocks skip, and so later than it should.
            after = np.where(self._moment(numbers, 0) == moments, 0, after)
        return numbers, after

    def _number(self, moments: Int64, after: Int64 | int) -> Int64:
        """Return the newest unit whose time, so long after its beginning, is at or before moments."""
        numbers = self._unit.number(self.zone.wall(moments) - after)
        if self.zone.is_utc:
            return numbers
        # Clocks that go back show the end of a unit once more when the next one has begun.
        numbers = numbers + (self._moment(numbers + 1, after) <= moments)
        return np.asarray(numbers - (self._moment(numbers, after) > moments))

    def _moment(self, numbers: Int64, after: Int64 | int) -> Int64:
        return self.zone.moments(self._unit.start(numbers) + after)


def ns_of(times: Times) -> Int64:
    """Return datetime64 as nanoseconds since 1970 UTC."""
    return times.astype("datetime64[ns]").astype(np.int64)


def times_of(moments: Int64) -> Times:
    """Return nanoseconds since 1970 UTC as datetime64[ns]."""
    return moments.astype("datetime64[ns]")


def _whole(step: int, days: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many steps are in so many days, where that is a whole number above one."""
    counts = (divmod(length * DAY_NS, step) for length in days)
    return tuple(count for count, rest in counts if not rest and count > 1)
