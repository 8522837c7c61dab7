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
# No clock was set before, and what lies beyond is a slip of the pen.
FIRST, LAST = "1900-01-01", "2200-01-01"
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
    from pandas.tseries.frequencies import to_offset
    from pandas.tseries.offsets import Tick

    rows = pd.DataFrame({"time": times, "series": 0 if series is None else series})[times.between(FIRST, LAST)]
    twice = pd.DatetimeIndex(rows.loc[rows.duplicated(), "time"].unique())
    if frequency is None or twice.empty:
        return ()
    present = pd.DatetimeIndex(rows["time"].unique())
    offset = to_offset(frequency)
    # Days and longer steps have no hours that could be there twice.
    if not isinstance(offset, Tick) or (step := pd.Timedelta(offset)) >= pd.Timedelta(days=1):
        return ()
    return tuple(zone for zone in ZONES if _explains(zone, twice, present, step))


def days_set_back(times: pd.Series) -> pd.DatetimeIndex:
    """Return the days with a time of any hour on which clocks of a zone are set back.

    Parameters:
        times: without a zone, at least one; where all are of midnight, no day matters.
    """
    import pandas as pd

    present = pd.DatetimeIndex(times[times.between(FIRST, LAST)].unique())
    days = _days(present)
    if present.equals(days):
        return days[:0]
    found = [_days(_shown(zone, _half_hours(days))[0]) for zone in ZONES]
    return pd.DatetimeIndex(found[0].append(found[1:]).unique())


def _explains(zone: str, twice: pd.DatetimeIndex, present: pd.DatetimeIndex, step: pd.Timedelta) -> bool:
    repeated, skipped = _shown(zone, _half_hours(_days(present)))
    days = _days(repeated.union(skipped))
    if not _days(twice).isin(days).all():
        return False
    repeated, skipped = _shown(zone, _steps(days, present.min(), step))
    if repeated.empty or not twice.isin(repeated).all() or repeated.isin(twice).mean() < ENOUGH:
        return False
    return skipped.empty or bool((~skipped.isin(present)).mean() >= ENOUGH)


def _days(times: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return times.floor("D").unique()


def _half_hours(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return all half hours of days: clocks are set by one or more, so these find every day on which they are."""
    import pandas as pd

    return _steps(days, pd.Timestamp(0), pd.Timedelta(minutes=30))


def _steps(days: pd.DatetimeIndex, origin: pd.Timestamp, step: pd.Timedelta) -> pd.DatetimeIndex:
    """Return the steps that lie in days, counted from a moment."""
    import numpy as np
    import pandas as pd

    counts = np.arange(-(-pd.Timedelta(days=1) // step))
    first = days + (origin - days) % step
    steps = (first.to_numpy()[:, None] + counts * step.to_timedelta64()).ravel()
    found = pd.DatetimeIndex(steps)
    return found[found.floor("D").isin(days)]


def _shown(zone: str, times: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
    """Return which of the times a zone's clocks show twice, and which never."""
    import numpy as np

    once = times.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
    ever = times.tz_localize(zone, ambiguous=np.ones(len(times), dtype=bool), nonexistent="NaT")
    return times[once.isna()], times[ever.isna()]
