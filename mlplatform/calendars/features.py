"""What the calendar says about steps of time, as numbers that models read: parts of the date, Fourier terms, holidays.

A pure function of moments, a calendar and a text that says which features: nothing is stored, nothing needs a column,
and a moment of the future is described as one of the past. Parts of the date are those of the calendar's zone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from mlplatform.calendars.base import Calendar, Int64
from mlplatform.calendars.holiday_days import HolidayDays, days_between
from mlplatform.calendars.units import DAY_NS, DAYS_PER_WEEK
from mlplatform.calendars.zones import SECOND_NS

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Numbers = Float64 | Int64

Part = Literal["hour", "weekday", "day_of_month", "day_of_year", "week", "month", "quarter", "business_day"]
PARTS: tuple[Part, ...] = get_args(Part)
DAY_SECONDS = DAY_NS // SECOND_NS
WEEKS_PER_YEAR = 365.2425 / DAYS_PER_WEEK
# The first of January 1970 was a Thursday.
THURSDAY = 3


@dataclass(frozen=True)
class FourierTerms:
    """Sines and cosines of a season.

    Attributes:
        season: in steps, not necessarily a whole number of them.
        terms: the first so many harmonics.
    """

    season: float
    terms: int

    @property
    def text(self) -> str:
        """As it stands in the text of features."""
        return f"fourier={self.season:.12g}:{self.terms}"


@dataclass(frozen=True)
class Holidays:
    """The public holidays of a country or a part of it.

    Attributes:
        country, subdivision: codes as the package `holidays` has them, mostly those of ISO 3166.
        before, after: so many days on either side are told as well.
    """

    country: str
    subdivision: str = ""
    before: int = 0
    after: int = 0

    @property
    def text(self) -> str:
        """As it stands in the text of features."""
        return f"holidays={self.country}:{self.subdivision}:{self.before}:{self.after}"

    @property
    def place(self) -> str:
        """Country and subdivision, for people."""
        return f"{self.country}-{self.subdivision}" if self.subdivision else self.country

    @property
    def days_to(self) -> dict[str, int]:
        """By name of every column, how many days after a step's day the holiday is that it tells of."""
        found = {f"holiday {self.place}": 0}
        found |= {f"{_days(count)} before holiday {self.place}": count for count in range(1, self.before + 1)}
        return found | {f"{_days(count)} after holiday {self.place}": -count for count in range(1, self.after + 1)}


@dataclass(frozen=True)
class TimeFeatures:
    """Which features, on which calendar. Regular ones come first, in the order given, then those of events.

    In numbers, every part is one column in its own unit, which suits trees: hours since midnight with their fraction,
    weekday from 0 for Monday, all others from 1. `business_day` has two columns: the working days of the month up to
    and with the day, and those after it. In waves, every part is a sine and a cosine, which suits what multiplies its
    inputs. Fourier terms are sines and cosines in both; of holidays every column counts those that the step covers.

    Attributes:
        calendar: counts the steps, says whose clocks are meant, and which days are working days.
    """

    calendar: Calendar
    parts: tuple[Part, ...] = ()
    fourier: tuple[FourierTerms, ...] = ()
    holidays: tuple[Holidays, ...] = ()

    @property
    def event_names(self) -> tuple[str, ...]:
        """Names of the columns that no season foretells."""
        return tuple(name for each in self.holidays for name in each.days_to)

    def wave_names(self) -> tuple[str, ...]:
        """Return what the regular pairs of `waves` are of."""
        harmonics = ((each, term) for each in self.fourier for term in range(1, each.terms + 1))
        return (*self.parts, *(f"season of {each.season:g} steps, term {term}" for each, term in harmonics))

    def number_names(self) -> tuple[str, ...]:
        """Return the names of the columns of `numbers`."""
        terms = (name for name in self.wave_names()[len(self.parts) :])
        parts = (name for part in self.parts for name in _columns_of(part))
        waves = (f"{wave} of the {name}" for name in terms for wave in ("sine", "cosine"))
        return (*parts, *waves, *self.event_names)

    def numbers(self, moments: Int64) -> Float32:
        """Return the features in numbers.

        Parameters:
            moments: in nanoseconds since 1970 UTC, of shape (n,).

        Returns:
            of shape (n, columns), in the order of `number_names`.
        """
        wall = self.calendar.zone.wall(moments)
        parts = (column for part in self.parts for column in self._part(part, wall)[0])
        return _stacked([*parts, *self._terms(moments), *self._event_columns(moments)], len(moments))

    def waves(self, moments: Int64) -> Float32:
        """Return the features in waves: sine and cosine of every one of `wave_names`, then `event_names`."""
        wall = self.calendar.zone.wall(moments)
        parts = (wave for part in self.parts for wave in _waves(self._part(part, wall)[1]))
        return _stacked([*parts, *self._terms(moments), *self._event_columns(moments)], len(moments))

    def events(self, moments: Int64) -> Float32:
        """Return the columns of `event_names` alone."""
        return _stacked(list(self._event_columns(moments)), len(moments))

    def _terms(self, moments: Int64) -> Iterator[Float64]:
        for each in self.fourier:
            share = np.mod(self.calendar.ordinals(moments), each.season) / each.season
            for term in range(1, each.terms + 1):
                yield from _waves(np.mod(share * term, 1))

    def _event_columns(self, moments: Int64) -> Iterator[Int64]:
        if not self.holidays:
            return
        first, after = self.calendar.days(moments)
        for each in self.holidays:
            days = HolidayDays(each.country, each.subdivision)
            for distance in each.days_to.values():
                yield days.count(first + distance, after + distance)

    def _part(self, part: Part, wall: Int64) -> tuple[tuple[Numbers, ...], Float64]:
        """Return the columns of a part in numbers, and how much of its period is over, from 0 to below 1."""
        day = wall // DAY_NS
        months = _months(day)
        january = months - months % 12
        if part == "hour":
            hour = wall % DAY_NS / (3_600 * SECOND_NS)
            return (hour,), hour / 24
        if part == "weekday":
            weekday = (day + THURSDAY) % DAYS_PER_WEEK
            return (weekday,), weekday / DAYS_PER_WEEK
        if part == "day_of_month":
            return _day_of(day, _first_day(months), _first_day(months + 1))
        if part == "day_of_year":
            return _day_of(day, _first_day(january), _first_day(january + 12))
        if part == "week":
            week = _iso_week(day)
            return (week,), (week - 1) / WEEKS_PER_YEAR % 1
        if part == "business_day":
            so_far, left = self._business_days(day)
            return (so_far, left), so_far / (so_far + left + 1)
        month = months - january
        if part == "month":
            return (month + 1,), month / 12
        return (month // 3 + 1,), month // 3 / 4

    def _business_days(self, day: Int64) -> tuple[Int64, Int64]:
        """Return the working days of the month up to and with days, and those after them."""
        if not len(day):
            return day, day
        months = _months(day)
        begin, end = _first_day(months), _first_day(months + 1)
        weekmask, free = self.calendar.working_days
        places = tuple(HolidayDays(each.country, each.subdivision) for each in self.holidays)
        own = days_between(int(begin.min()), int(end.max()), places).astype("datetime64[D]")
        working = np.busdaycalendar(weekmask, np.union1d(own, np.array(free, dtype="datetime64[D]")))
        first, now, last = (each.astype("datetime64[D]") for each in (begin, day + 1, end))
        so_far, left = (np.busday_count(*ends, busdaycal=working) for ends in ((first, now), (now, last)))
        return np.asarray(so_far), np.asarray(left)


@functools.lru_cache(maxsize=256)
def time_features(text: str, calendar: Calendar) -> TimeFeatures:
    """Return the features of a text that `features_text` wrote."""
    parts: list[Part] = []
    fourier: list[FourierTerms] = []
    holidays: list[Holidays] = []
    for token in text.split():
        kind, _, detail = token.partition("=")
        if kind == "fourier":
            season, terms = detail.split(":")
            fourier.append(FourierTerms(float(season), int(terms)))
        elif kind == "holidays":
            country, subdivision, before, after = detail.split(":")
            holidays.append(Holidays(country, subdivision, int(before), int(after)))
        else:
            parts.append(next(part for part in PARTS if part == kind))
    return TimeFeatures(calendar, tuple(parts), tuple(fourier), tuple(holidays))


def features_text(parts: Sequence[Part], fourier: Sequence[FourierTerms], holidays: Sequence[Holidays]) -> str:
    """Return features as a text that `time_features` reads."""
    return " ".join([*parts, *(each.text for each in fourier), *(each.text for each in holidays)])


def usual_parts(calendar: Calendar) -> tuple[Part, ...]:
    """Return the parts of the date that tell apart the steps of a calendar."""
    if calendar.nominal_ns < DAY_NS:
        return ("hour", "weekday")
    if calendar.nominal_ns < DAYS_PER_WEEK * DAY_NS:
        return ("weekday", "month")
    if calendar.nominal_ns < 28 * DAY_NS:
        return ("week",)
    return ("month",)


def _columns_of(part: Part) -> tuple[str, ...]:
    return ("business_day", "business_days_left") if part == "business_day" else (part,)


def _waves(share: Float64) -> tuple[Float64, Float64]:
    angle = np.ascontiguousarray(share) * (2 * np.pi)
    return np.sin(angle), np.cos(angle)


def _stacked(columns: Sequence[Numbers], rows: int) -> Float32:
    out = np.empty((rows, len(columns)), dtype=np.float32)
    for position, column in enumerate(columns):
        out[:, position] = column
    return out


def _day_of(day: Int64, begin: Int64, end: Int64) -> tuple[tuple[Int64], Float64]:
    """Return the number of days in their periods, from 1, and how much of these is over."""
    return (day - begin + 1,), (day - begin) / (end - begin)


def _months(day: Int64) -> Int64:
    return np.asarray(day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64))


def _first_day(months: Int64) -> Int64:
    return np.asarray(months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64))


def _iso_week(day: Int64) -> Int64:
    """Return the week of ISO 8601: that of its Thursday's year, in which the first one is number 1."""
    thursday = day - (day + THURSDAY) % DAYS_PER_WEEK + THURSDAY
    january = _months(thursday) // 12 * 12
    return np.asarray((thursday - _first_day(january)) // DAYS_PER_WEEK + 1)


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"
