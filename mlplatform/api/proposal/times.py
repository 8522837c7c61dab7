"""What times of a column of text mean: how they are written, and the step between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlplatform.data import parse_times

if TYPE_CHECKING:
    import pandas as pd

# How times are written where ISO 8601 is not. Days come before months unless a file shows the contrary.
FORMATS = tuple(
    date + time
    for date in ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%d %b %Y", "%d.%m.%y")
    for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p")
)
ENOUGH = 0.95
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


@dataclass(frozen=True)
class Times:
    """Times of a column.

    Attributes:
        values: in UTC, NaT where a cell is none.
        format: strftime format; `None` for ISO 8601.
        is_ambiguous: whether day and month could be exchanged.
    """

    values: pd.Series
    format: str | None
    is_ambiguous: bool = False


def read_times(cells: pd.Series) -> Times | None:
    """Return the times that cells of text hold; `None` if most of them hold none."""
    import pandas as pd

    present = cells.dropna()
    if present.empty or present.map(lambda cell: bool(NUMBER.fullmatch(cell))).mean() > 1 - ENOUGH:
        return None
    parsed, _ = parse_times(cells)
    values = pd.Series(parsed, index=cells.index)
    if values[present.index].notna().mean() >= ENOUGH:
        return Times(values, None)
    found = [(spelled, _parsed(cells, spelled)) for spelled in FORMATS]
    fitting = [(spelled, times) for spelled, times in found if times[present.index].notna().mean() >= ENOUGH]
    if not fitting:
        return None
    best = max(fitting, key=lambda pair: pair[1].notna().sum())
    rivals = [
        times for spelled, times in fitting if spelled != best[0] and times.notna().sum() == best[1].notna().sum()
    ]
    is_ambiguous = any(not times.equals(best[1]) for times in rivals)
    return Times(best[1], best[0], is_ambiguous)


def _parsed(cells: pd.Series, spelled: str) -> pd.Series:
    import pandas as pd

    return pd.to_datetime(cells, format=spelled, errors="coerce").astype("datetime64[ns]")


def step_between(times: pd.Series, entities: pd.Series | None) -> str | None:
    """Return the usual step between the times of an entity as a pandas offset; `None` if there is no usual one."""
    import pandas as pd

    frame = pd.DataFrame({"time": times, "entity": 0 if entities is None else entities}).dropna()
    frame = frame.drop_duplicates().sort_values(["entity", "time"], kind="stable")
    steps = frame.groupby("entity", sort=False)["time"].diff().dropna()
    if steps.empty:
        return None
    days = steps.dt.total_seconds() / 86_400
    shares = steps.value_counts(normalize=True)
    # Months, quarters and years differ in length, so none of their steps is the usual one.
    for shortest, longest, start, end in ((28, 31, "MS", "ME"), (90, 92, "QS", "QE"), (365, 366, "YS", "YE")):
        if days.between(shortest, longest).mean() >= ENOUGH:
            return _calendar(frame["time"], start, end)
    if _is_business_days(frame["time"], days):
        return "B"
    usual = shares.index[0]
    return _spelled(usual) if shares.iloc[0] >= 0.5 else None


def _calendar(times: pd.Series, start: str, end: str) -> str | None:
    if (times.dt.day == 1).mean() >= ENOUGH:
        return start
    return end if times.dt.is_month_end.mean() >= ENOUGH else None


def _is_business_days(times: pd.Series, days: pd.Series) -> bool:
    return bool((times.dt.dayofweek < 5).all() and days.isin([1, 3]).mean() >= 0.9 and (days == 3).mean() > 0.1)


def _spelled(step: pd.Timedelta) -> str | None:
    seconds = step.total_seconds()
    for length, unit in ((604_800, "W"), (86_400, "D"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= length and seconds % length == 0:
            return f"{int(seconds // length)}{unit}" if unit != "W" else f"{int(seconds // length) * 7}D"
    return None
