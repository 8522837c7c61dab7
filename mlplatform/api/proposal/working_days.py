"""Which weekdays a file leaves out, and whose holidays, so that nothing is forecast for the ones to come."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlplatform.calendars import HolidayDays, days_between

if TYPE_CHECKING:
    import pandas as pd

# Stock exchanges and payment systems, and countries, as the package `holidays` has them; of those that fit as well the
# first is taken.
MARKETS = {"XNYS": "the New York Stock Exchange", "XECB": "the euro's payment system (TARGET)"}
COUNTRIES = (
    "US DE GB FR IT ES NL BE AT CH SE NO DK FI PL CZ PT IE GR HU RO CA AU NZ JP CN IN BR MX AR CL CO ZA TR IL KR SG HK"
)
# What day of the week, Monday for 0, the first of January 1970 was.
THURSDAY = 3
# Fewer weekdays without rows may be missing for any reason.
LEAST = 3
# The share of the weekdays without rows that must be holidays, and the share of the holidays that must be without rows.
ENOUGH = 0.9
# Of fewer weeks a weekday may be missing by chance; the share of the weeks that have each of the other weekdays.
LEAST_WEEKS, OFTEN = 8, 0.5
# Holidays of so many years after the last row are written down.
YEARS_AHEAD = 2


@dataclass(frozen=True)
class ClosedDays:
    """Holidays that explain which weekdays a file leaves out.

    Attributes:
        of: whose they are.
        days: those on working days of the week, from the first row to the end of a year after the last.
        missing, explained: such days without a row, and how many of them are among the days.
    """

    of: str
    days: tuple[dt.date, ...]
    missing: int
    explained: int


def working_week(times: pd.Series) -> str | None:
    """Return the weekmask of the weekdays that have rows; `None` if all have, or too few weeks tell.

    Parameters:
        times: of days, on the clocks that tell the days; NaT where a row has none.
    """
    import numpy as np

    days = np.unique(times.dropna().to_numpy(dtype="datetime64[D]").astype(np.int64)) + THURSDAY
    weeks = len(np.unique(days // 7))
    counts = np.bincount(days % 7, minlength=7)
    is_open = counts > 0
    if weeks < LEAST_WEEKS or is_open.all() or (counts[is_open] < OFTEN * weeks).any():
        return None
    return "".join("1" if each else "0" for each in is_open)


def closed_days(times: pd.Series, weekmask: str) -> ClosedDays | None:
    """Return the holidays that explain the working days without rows; `None` if there are few, or nobody's do.

    Parameters:
        times: of business days, without a zone.
        weekmask: of the days of the week that are working days.
    """
    present = {time.date() for time in times.dropna().dt.floor("D").unique()}
    first, last = min(present), max(present)
    weekdays = set(_weekdays(first, last, weekmask))
    missing = weekdays - present
    if len(missing) < LEAST:
        return None
    best, found = 0.0, None
    for name, holidays in _candidates(range(first.year, last.year + YEARS_AHEAD + 1)):
        within = holidays & weekdays
        explained = len(within & missing)
        likeness = explained / len(within | missing)
        if explained >= ENOUGH * len(missing) and explained >= ENOUGH * len(within) and likeness > best:
            ahead = sorted(day for day in holidays if day >= first and weekmask[day.weekday()] == "1")
            best, found = likeness, ClosedDays(name, tuple(ahead), len(missing), explained)
    return found


def _weekdays(first: dt.date, last: dt.date, weekmask: str) -> Iterator[dt.date]:
    for ahead in range((last - first).days + 1):
        day = first + dt.timedelta(days=ahead)
        if weekmask[day.weekday()] == "1":
            yield day


def _candidates(years: range) -> Iterator[tuple[str, set[dt.date]]]:
    import holidays
    import numpy as np

    first, after = (int(np.datetime64(str(year), "D").astype(np.int64)) for year in (years[0], years[-1]))
    for code, name in MARKETS.items():
        yield name, set(holidays.financial_holidays(code, years=years))
    for country in COUNTRIES.split():
        days = days_between(first, after, (HolidayDays(country),))
        yield f"the country {country}", set(days.astype("datetime64[D]").tolist())
