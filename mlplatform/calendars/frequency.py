"""From the text of a frequency, such as `15min`, `B`, `W-MON` or `2QE-NOV`, to its calendar. The words are pandas's.

Hours and what is shorter are steps of a fixed length, also across changes of the clocks, as long as they divide these;
a step that does not, such as six hours where clocks move by one, is counted on the wall clock. So are days and all that
is longer: a day is what lies between two midnights of the zone.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Sequence

import numpy as np

from mlplatform.calendars.base import Calendar, EqualSteps, WallSteps
from mlplatform.calendars.errors import CalendarError
from mlplatform.calendars.units import DAY_NS, DAYS_PER_WEEK, WORKING_DAYS, BusinessDays, Months, Stretches
from mlplatform.calendars.zones import SECOND_NS, UTC, Zone, zone_of

LENGTHS = {"s": SECOND_NS, "min": 60 * SECOND_NS, "h": 3_600 * SECOND_NS, "D": DAY_NS, "W": DAYS_PER_WEEK * DAY_NS}
NAMES = {"s": "second", "min": "minute", "h": "hour", "D": "day", "W": "week"}
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
# Which of its days tells a week; the first of them is how all weeks were once.
WEEK_LABELS = ("start", "end")
MONTHS_PER = {"M": 1, "Q": 3, "Y": 12}
NAMES_OF_MONTHS = {"M": "month", "Q": "quarter", "Y": "year"}
PATTERN = re.compile(r"(\d*)\s*([A-Za-z]+)(?:-([A-Z]{3}))?")
MONDAY_NS = 4 * DAY_NS  # the first one after 1970-01-01, which was a Thursday
EXAMPLES = "15min, h, D, B, W-MON, MS, QE or YS"


@functools.lru_cache(maxsize=256)
def make_calendar(
    frequency: str,
    timezone: str = UTC,
    weekmask: str = WORKING_DAYS,
    holidays: tuple[str, ...] = (),
    week_label: str = WEEK_LABELS[0],
) -> Calendar:
    """Return the calendar of a frequency.

    Parameters:
        frequency: an optional number and a unit: `s`, `min`, `h`, `D`, `W`, `W-MON` to `W-SUN`, `B` for working days,
            `C` for working days by weekmask and holidays, or the first (`S`) or last (`E`) day of a month, quarter or
            year, `MS`, `QE`, `YS`, the latter two with a month as pandas has them (`QS-FEB`, `YE-JUN`).
        timezone: IANA name of the zone whose clocks count.
        weekmask: of `C`, and read of no other: seven characters, Monday first, `1` for a working day.
        holidays: of `C`, and read of no other: days such as 2026-12-25.
        week_label: of `W-MON` to `W-SUN`, and read of no other: whether the weekday is the first day of a week
            (`start`) or the last (`end`). The steps are the same; the days that one covers are not.

    Raises:
        CalendarError: naming what cannot be used, and what can.
    """
    zone = zone_of(timezone)
    multiple, unit, anchor = _parts(frequency)
    if unit == "B":
        return _business_days(frequency, multiple, unit, zone, WORKING_DAYS, ())
    if unit == "C":
        return _business_days(frequency, multiple, unit, zone, _checked_weekmask(weekmask), _checked_days(holidays))
    if unit[:-1] in MONTHS_PER:
        return _months(frequency, multiple, unit, anchor, zone)
    if unit == "W" and anchor is not None:
        return _weeks(frequency, multiple, anchor, zone, week_label)
    length, name = multiple * LENGTHS[unit], _counted(multiple, NAMES[unit])
    if zone.is_utc or (length < DAY_NS and all(shift % length == 0 for shift in zone.recent_shifts)):
        return EqualSteps(frequency, length, zone, name)
    plain = EqualSteps(frequency, length, zone, name)
    return WallSteps(frequency, Stretches(length, 0, length), 1, zone, name, plain.seasons)


def has_holidays(frequency: str) -> bool:
    """Return whether a frequency is one of custom business days, which weekmask and holidays are for."""
    return _parts(frequency)[1] == "C"


def has_week_label(frequency: str) -> bool:
    """Return whether a frequency is one of weeks told by a weekday, which `week_label` is for."""
    return _parts(frequency)[2] in WEEKDAYS


def calendar_from_text(text: str) -> Calendar:
    """Return the calendar that wrote a text (`Calendar.text`)."""
    frequency, *details = text.split()
    found = dict(detail.split("=", 1) for detail in details)
    holidays = tuple(found["holidays"].split(",")) if "holidays" in found else ()
    weekmask, week_label = found.get("weekmask", WORKING_DAYS), found.get("week_label", WEEK_LABELS[0])
    return make_calendar(frequency, found.get("tz", UTC), weekmask, holidays, week_label)


@functools.lru_cache(maxsize=256)
def calendar_of(text: str, step_seconds: int) -> Calendar:
    """Return the calendar of a stored text, or without one that of steps of so many seconds in UTC."""
    if text:
        return calendar_from_text(text)
    unit = next((unit for unit in ("D", "h", "min") if step_seconds * SECOND_NS % LENGTHS[unit] == 0), "s")
    return make_calendar(f"{step_seconds * SECOND_NS // LENGTHS[unit]}{unit}")


def _parts(frequency: str) -> tuple[int, str, str | None]:
    """Return number, unit and anchor of a frequency."""
    match = PATTERN.fullmatch(frequency or "")
    number, unit, anchor = match.groups() if match else ("", "", None)
    is_months = unit[:-1] in MONTHS_PER and unit[-1:] in ("S", "E")
    anchors = WEEKDAYS if unit == "W" else MONTHS if is_months and unit[0] != "M" else ()
    is_known = unit in LENGTHS or unit in ("B", "C") or is_months
    if match is None or not is_known or (anchor is not None and anchor not in anchors) or int(number or 1) == 0:
        raise CalendarError(f"frequency must be a positive time step such as {EXAMPLES}, but is {frequency!r}")
    return int(number or 1), unit, anchor


def _weeks(frequency: str, multiple: int, anchor: str, zone: Zone, week_label: str) -> Calendar:
    if week_label not in WEEK_LABELS:
        raise CalendarError(f"week_label must be one of {', '.join(WEEK_LABELS)}, but is {week_label!r}")
    at_end = week_label == "end"
    monday = MONDAY_NS + WEEKDAYS.index(anchor) * DAY_NS
    weeks = Stretches(LENGTHS["W"], monday, DAY_NS, at_end)
    name = _counted(multiple, f"week {'to' if at_end else 'from'} {anchor.title()}")
    return WallSteps(frequency, weeks, multiple, zone, name, _dividing(52, multiple))


def _months(frequency: str, multiple: int, unit: str, anchor: str | None, zone: Zone) -> Calendar:
    kind, at_end = unit[0], unit[1] == "E"
    # As in pandas, quarters and years are told by a month that they begin or, at their end, end with.
    month = MONTHS.index(anchor) if anchor else (11 if at_end else 0)
    months = Months(MONTHS_PER[kind], month if kind != "M" else 0, at_end)
    name = f"{_counted(multiple, NAMES_OF_MONTHS[kind])} ({'last' if at_end else 'first'} day)"
    return WallSteps(frequency, months, multiple, zone, name, _dividing(12 // MONTHS_PER[kind], multiple))


def _business_days(
    frequency: str, multiple: int, unit: str, zone: Zone, weekmask: str, holidays: tuple[str, ...]
) -> Calendar:
    days = BusinessDays(weekmask, holidays)
    name = _counted(multiple, "business day" if unit == "B" else "custom business day")
    return WallSteps(frequency, days, multiple, zone, name, _dividing(days.per_week, multiple))


def _checked_weekmask(weekmask: str) -> str:
    if not re.fullmatch("[01]{7}", weekmask) or "1" not in weekmask:
        raise CalendarError(
            "weekmask must be seven characters, Monday first, 1 for a working day, such as 1111100, "
            f"but is {weekmask!r}"
        )
    return weekmask


def _checked_days(days: Sequence[str]) -> tuple[str, ...]:
    for day in days:
        try:
            dt.date.fromisoformat(day)
        except ValueError as error:
            raise CalendarError(f"holidays must be days such as 2026-12-25, but one is {day!r}") from error
    return tuple(np.unique(np.array(days, dtype="datetime64[D]")).astype(str).tolist())


def _counted(number: int, name: str) -> str:
    first, *rest = name.split(" ")
    return name if number == 1 else " ".join([str(number), *_plural(first, rest)])


def _plural(first: str, rest: list[str]) -> list[str]:
    """Return the words of a name with its noun, the first word or the last, in the plural."""
    return [f"{first}s", *rest] if not rest or rest[0] in ("from", "to") else [first, *rest[:-1], f"{rest[-1]}s"]


def _dividing(steps: int, multiple: int) -> tuple[int, ...]:
    """Return a season of so many units in steps of several units, if it is a whole number above one."""
    return (steps // multiple,) if steps % multiple == 0 and steps > multiple else ()
