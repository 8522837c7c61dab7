"""Which zone's clocks times without a zone were read from: clocks that are set back and forward leave their marks.

In the autumn an hour is there twice, in the spring one is missing, on days and at hours that differ from zone to zone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# One zone for every way of setting clocks that rows are likely from; of zones that are set alike and have the same
# offset, such as Berlin's and Madrid's, the one with most people.
ZONES = (
    "Europe/Berlin",
    "Europe/London",
    "Europe/Athens",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Anchorage",
    "America/Halifax",
    "America/St_Johns",
    "America/Santiago",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Jerusalem",
    "Asia/Beirut",
    "Australia/Sydney",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
)
# The share of the hours that a zone has twice, or not at all, which a file must have so.
ENOUGH = 0.9


def zones_of(times: pd.Series, series: pd.Series | None, frequency: str | None) -> tuple[str, ...]:
    """Return the zones that explain why times of a series are there twice; empty if none does, or none is.

    Parameters:
        times: without a zone, NaT where a row has none.
        series: what names the series of each row; `None` if all rows are of one.
        frequency: the step between them, as pandas writes it.
    """
    import pandas as pd

    rows = pd.DataFrame({"time": times, "series": 0 if series is None else series}).dropna(subset=["time"])
    twice = pd.DatetimeIndex(rows.loc[rows.duplicated(), "time"].unique())
    if frequency is None or twice.empty:
        return ()
    present = pd.DatetimeIndex(rows["time"].unique())
    grid = pd.date_range(present.min(), present.max(), freq=frequency)
    # Days and longer steps have no hours that could be there twice.
    if len(grid) < 2 or grid[1] - grid[0] >= pd.Timedelta(days=1):
        return ()
    return tuple(zone for zone in ZONES if _explains(zone, twice, present, grid))


def days_set_back(times: pd.Series) -> pd.DatetimeIndex:
    """Return the days, between the first and the last time, on which clocks of a zone are set back.

    Parameters:
        times: without a zone, at least one; where all are of midnight, no day matters.
    """
    import pandas as pd

    present = times.dropna()
    if (present == present.dt.floor("D")).all():
        return pd.DatetimeIndex([])
    grid = pd.date_range(present.min().floor("D"), present.max(), freq="30min")
    days = [_shown(zone, grid)[0].floor("D").unique() for zone in ZONES]
    return pd.DatetimeIndex(days[0].append(days[1:]).unique())


def _explains(zone: str, twice: pd.DatetimeIndex, present: pd.DatetimeIndex, grid: pd.DatetimeIndex) -> bool:
    import pandas as pd

    # Clocks are set by half an hour or more, so these find all days on which they are.
    days = _changes(zone, pd.date_range(grid[0].floor("D"), grid[-1], freq="30min")).floor("D").unique()
    if not twice.floor("D").isin(days).all():
        return False
    repeated, skipped = _shown(zone, grid[grid.floor("D").isin(days)])
    if repeated.empty or not twice.isin(repeated).all() or repeated.isin(twice).mean() < ENOUGH:
        return False
    return skipped.empty or bool((~skipped.isin(present)).mean() >= ENOUGH)


def _changes(zone: str, times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    repeated, skipped = _shown(zone, times)
    return repeated.union(skipped)


def _shown(zone: str, times: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
    """Return which of the times a zone's clocks show twice, and which never."""
    import numpy as np

    once = times.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
    ever = times.tz_localize(zone, ambiguous=np.ones(len(times), dtype=bool), nonexistent="NaT")
    return times[once.isna()], times[ever.isna()]
