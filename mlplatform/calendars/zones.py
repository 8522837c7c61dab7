"""Time zones: between moments and what the clocks on the wall of a zone show, for whole arrays.

A wall time that comes twice, when clocks go back, is the earlier moment unless the later one is asked for. A wall time
that clocks skip is read with the offset from before the change, so 02:30 becomes 03:30 (both as in PEP 495).
"""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo

import numpy as np
import numpy.typing as npt

from mlplatform.calendars.errors import CalendarError

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

UTC = "UTC"
# Where a zone may be named: that of the dataset.
LOCAL = "local"
SECOND_NS = 1_000_000_000
# The years that nanoseconds since 1970 reach; changes of clocks are looked for between them.
FIRST_YEAR, LAST_YEAR = 1678, 2261
# No zone changes its clocks twice in so many seconds.
LOOK_EVERY_S = 7 * 86_400
# Changes before this moment say nothing about how often clocks change now.
RECENT_NS = 631_152_000 * SECOND_NS


class Zone:
    """A time zone by its IANA name.

    Attributes:
        name: `Europe/Berlin` for example; `UTC` for none.
    """

    def __init__(self, name: str, changes: Int64, offsets: Int64) -> None:
        self.name = name
        self._changes = changes
        self._offsets = offsets
        # What the clocks show at the end of each stretch, were they not changed.
        self._ends = changes + offsets[:-1]

    @property
    def is_utc(self) -> bool:
        """Whether wall times are moments."""
        return not len(self._changes) and not self._offsets[0]

    @property
    def recent_shifts(self) -> tuple[int, ...]:
        """By how much, in nanoseconds, clocks were moved since 1990; every length once."""
        shifts = np.abs(np.diff(self._offsets))[self._changes >= RECENT_NS]
        return tuple(int(shift) for shift in np.unique(shifts))

    def wall(self, moments: Int64) -> Int64:
        """Return what clocks show at moments, both in nanoseconds since 1970."""
        if self.is_utc:
            return moments
        return moments + self._offsets[np.searchsorted(self._changes, moments, side="right")]

    def moments(self, wall: Int64, later: Bool | None = None) -> Int64:
        """Return the moments at which clocks show something.

        Parameters:
            later: where the later of two moments is meant.
        """
        if self.is_utc:
            return wall
        stretch = np.searchsorted(self._ends, wall, side="right")
        found = wall - self._offsets[stretch]
        before = np.maximum(stretch - 1, 0)
        is_skipped = (stretch > 0) & (found < self._changes[before])
        found = np.where(is_skipped, wall - self._offsets[before], found)
        if later is not None:
            again = np.minimum(stretch + 1, len(self._changes))
            found = np.where(later & self.is_twice(wall), wall - self._offsets[again], found)
        return found

    def is_twice(self, wall: Int64) -> Bool:
        """Return which wall times come twice."""
        if self.is_utc:
            return np.zeros(len(wall), dtype=bool)
        stretch = np.searchsorted(self._ends, wall, side="right")
        inside = stretch < len(self._changes)
        change = np.minimum(stretch, len(self._changes) - 1)
        return np.asarray(inside & (wall - self._offsets[change + 1] >= self._changes[change]))

    def is_skipped(self, wall: Int64) -> Bool:
        """Return which wall times no clock shows."""
        if self.is_utc:
            return np.zeros(len(wall), dtype=bool)
        stretch = np.searchsorted(self._ends, wall, side="right")
        before = np.maximum(stretch - 1, 0)
        return np.asarray((stretch > 0) & (wall - self._offsets[stretch] < self._changes[before]))


@functools.lru_cache(maxsize=64)
def zone_of(name: str) -> Zone:
    """Return a zone by its IANA name.

    Raises:
        CalendarError: if there is none of that name.
    """
    if name == UTC:
        return Zone(UTC, np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64))
    try:
        info = zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CalendarError(
            f"timezone must be the IANA name of a time zone, such as Europe/Berlin, but is {name!r}"
        ) from error
    changes = _changes(info)
    first = dt.datetime(FIRST_YEAR, 1, 1, tzinfo=dt.UTC)
    offsets = [_offset(info, int(first.timestamp())), *(_offset(info, change) for change in changes)]
    return Zone(name, np.array(changes, dtype=np.int64) * SECOND_NS, np.array(offsets, dtype=np.int64) * SECOND_NS)


def _changes(info: zoneinfo.ZoneInfo) -> list[int]:
    """Return the moments, in seconds since 1970, from which clocks have another offset than before."""
    start, end = (int(dt.datetime(year, 1, 1, tzinfo=dt.UTC).timestamp()) for year in (FIRST_YEAR, LAST_YEAR))
    found = []
    before = _offset(info, start)
    for later in range(start + LOOK_EVERY_S, end, LOOK_EVERY_S):
        after = _offset(info, later)
        if after != before:
            low, high = later - LOOK_EVERY_S, later
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(info, middle) == before else (low, middle)
            found.append(high)
            before = after
    return found


def _offset(info: zoneinfo.ZoneInfo, seconds: int) -> int:
    offset = (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)).astimezone(info).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())
