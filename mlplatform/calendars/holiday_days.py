"""Public holidays by country, from the package `holidays`, as sorted days since 1970."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.calendars.errors import CalendarError

Int64 = npt.NDArray[np.int64]

# As many suggestions as help.
SUGGESTED = 5


@dataclass(frozen=True)
class HolidayDays:
    """The public holidays of a country, or of a part of it.

    Attributes:
        country, subdivision: codes as the package has them; an empty subdivision is the country as a whole.
    """

    country: str
    subdivision: str = ""

    def check(self) -> None:
        """Make sure that there are such holidays.

        Raises:
            CalendarError: naming the codes that come near.
        """
        import holidays

        known = holidays.list_supported_countries(include_aliases=False)
        if self.country not in known:
            raise CalendarError(
                f"there are no holidays of country {self.country!r}; a two-letter code is expected, such as "
                f"{', '.join(_near_countries(self.country))}"
            )
        parts = known[self.country]
        if self.subdivision and self.subdivision not in parts:
            near = difflib.get_close_matches(self.subdivision, parts, SUGGESTED, 0.3)
            listed = f"such as {', '.join(near or parts[:SUGGESTED])}" if parts else "it has none"
            raise CalendarError(f"country {self.country} has no subdivision {self.subdivision!r} of holidays; {listed}")

    def count(self, first: Int64, after: Int64) -> Int64:
        """Return how many holidays lie from first days up to the days before `after`."""
        if not len(first):
            return np.zeros(0, dtype=np.int64)
        days = days_between(int(first.min()), int(after.max()), (self,))
        return np.asarray(np.searchsorted(days, after) - np.searchsorted(days, first))


def days_between(first: int, after: int, places: tuple[HolidayDays, ...]) -> Int64:
    """Return the holidays of all places in the years from one day to another, sorted."""
    begin, end = (int(np.datetime64(int(day), "D").astype("datetime64[Y]").astype(np.int64)) for day in (first, after))
    return _days_of_years(places, 1970 + begin, 1970 + end)


@functools.lru_cache(maxsize=1024)
def _days_of_years(places: tuple[HolidayDays, ...], first: int, last: int) -> Int64:
    years = range(first, last + 1)
    found = [_days_of(place.country, place.subdivision, year) for place in places for year in years]
    days = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
    days.flags.writeable = False
    return days


@functools.lru_cache(maxsize=4096)
def _days_of(country: str, subdivision: str, year: int) -> Int64:
    import holidays

    # Those of neighbouring years may be observed in this one, and those of this one in a neighbour.
    years = (year - 1, year, year + 1)
    found = holidays.country_holidays(country, subdiv=subdivision or None, years=years)
    days = np.array(sorted(day for day in found if day.year == year), dtype="datetime64[D]").astype(np.int64)
    days.flags.writeable = False
    return days


def _near_countries(given: str) -> list[str]:
    """Return the countries that come near, by one of their codes, their name or its initials."""
    import holidays
    from holidays.registry import COUNTRIES

    known = holidays.list_supported_countries(include_aliases=False)
    found: dict[str, str] = {}
    for module, (_, code, longer, *_) in COUNTRIES.items():
        if code in known:
            name = module.replace("_", " ")
            found |= dict.fromkeys((code, longer, name.upper()), f"{code} ({name})")
            found.setdefault("".join(word[0] for word in name.upper().split()), f"{code} ({name})")
    near = difflib.get_close_matches(given.strip().upper(), found, SUGGESTED, 0.5)
    return list(dict.fromkeys(found[each] for each in near or ("DE", "FR", "US")))
