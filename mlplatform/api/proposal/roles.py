"""Which column of a file is what: times, entity, target, data, what is known ahead; and the steps between times."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mlplatform.api.proposal.ahead import columns_ahead
from mlplatform.api.proposal.looking import FEW_CATEGORIES, RARE_NULLS, Column, Look
from mlplatform.api.proposal.times import frequency_of, read_numbers
from mlplatform.api.proposal.working_days import ClosedDays, closed_days, working_week
from mlplatform.api.proposal.zones import days_set_back, zones_of
from mlplatform.calendars import WORKING_DAYS, Calendar, make_calendar, ns_of
from mlplatform.config import FOLDS, Lengths, gap_allowed
from mlplatform.data import DataError
from mlplatform.data.sources import NUMBER_NULLS

if TYPE_CHECKING:
    import pandas as pd

Task = Literal["forecast", "regression", "classification"]
# A column with less is not proposed as a target, nor one without any value in the newest rows, one in so many.
MOST_MISSING, NEWEST = 0.5, 10
NO_NUMBER = (*NUMBER_NULLS, *RARE_NULLS)
# How columns are called that name rows: id, customer_id, customerId, UUID.
ROW_ID = re.compile(r"(^|[^A-Za-z])(?i:id|uuid|guid|key)$|[a-z](Id|ID)$")


@dataclass(frozen=True)
class Roles:
    """The roles of a file's columns.

    Attributes:
        timezone: of times without one, where a person has named it, or a single one explains them.
        zones: those that explain why times are there twice.
        planned: columns that go on where the targets have ended.
        closed: of business days, the holidays that the file leaves out.
        weekmask: of frequency `C`, the weekdays that have rows.
    """

    look: Look
    time: str | None
    entity: str | None
    targets: tuple[str, ...]
    frequency: str | None
    task: Task
    timezone: str | None = None
    zones: tuple[str, ...] = ()
    planned: tuple[str, ...] = ()
    closed: ClosedDays | None = None
    weekmask: str = WORKING_DAYS

    @property
    def steps(self) -> int:
        """The number of steps from the first time seen to the last, without those of which only a plan is there.

        Steps without a row are gaps that data are trained with. What lies further from the others than any dataset
        allows is none of them.
        """
        import numpy as np

        calendar = self.calendar
        if self.time is None or calendar is None:
            return 0
        times = self.look.times[self.time].values
        if self.planned:
            cells = self.look.cells[list(self.targets)]
            times = times[times <= times[(cells.notna() & ~cells.isin(NO_NUMBER)).any(axis=1)].max()]
        moments = np.unique(ns_of(times.dropna().to_numpy()))
        most = (
            gap_allowed(dt.timedelta(microseconds=calendar.nominal_ns // 1000)) // dt.timedelta(microseconds=1) * 1000
        )
        stretches = np.split(moments, np.flatnonzero(np.diff(moments) > most) + 1)
        longest = max(stretches, key=len)
        return int(calendar.steps(longest[0], longest[-1])) + 1 if len(longest) else 0

    @property
    def calendar(self) -> Calendar | None:
        """What counts the steps, if the frequency is known; holidays change no length."""
        return None if self.frequency is None else make_calendar(self.frequency, weekmask=self.weekmask)

    @property
    def lengths(self) -> Lengths | None:
        """What the frequency says about lengths, if it is known."""
        return None if self.calendar is None else Lengths.of(self.calendar)

    @property
    def fitted(self) -> tuple[Lengths, int] | None:
        """Shorter lengths, and the number of folds, if what was seen of the file needs and has room for such."""
        if self.lengths is None or self.lengths.needed(FOLDS) <= self.steps:
            return None
        found = self.lengths.within(self.steps)
        if found is not None:
            return found
        plain = Lengths.without_season()
        found = plain.within(self.steps)
        # Fewer steps ahead would be judged by fewer rows than say anything.
        return found if found is not None and found[0].horizon == plain.horizon else None

    @property
    def is_enough(self) -> bool:
        """Whether there are enough steps, of series with a step of which that can be told."""
        if self.task != "forecast":
            return True
        lengths = self.lengths
        if lengths is None:
            return False
        return self.goes_on or self.fitted is not None or lengths.needed(FOLDS) <= self.steps

    @property
    def goes_on(self) -> bool:
        """Whether more steps follow behind the rows that were seen: there are more, and they come in order of time."""
        if self.time is None or not self.look.is_cut:
            return False
        return bool(self.look.times[self.time].values.dropna().is_monotonic_increasing)

    @property
    def leaves_season_out(self) -> bool:
        """Whether the file has too few steps for the season of its frequency."""
        return self.lengths is not None and self.fitted is not None and self.fitted[0].season < self.lengths.season

    @property
    def data(self) -> Iterator[Column]:
        """The columns that are data: numbers, and texts of few kinds."""
        for column in self.look.columns:
            if column.name in (self.time, self.entity) or column.kind in ("time", "empty"):
                continue
            if column.kind == "number" or column.distinct <= FEW_CATEGORIES or column.name in self.targets:
                yield column


def roles_of(look: Look, targets: tuple[str, ...], time: str | None, entity: str | None, timezone: str | None) -> Roles:
    targets = tuple(look.named(target).name for target in targets)
    time = time and look.named(time).name
    entity = entity and look.named(entity).name
    counts = None if time is None or time in look.times else read_numbers(look.cells[time])
    if time is not None and counts is not None:
        look = look.with_times(time, counts)
    if time is not None and time not in look.times:
        raise DataError(f"the column {time!r} of {look.where} does not hold times that can be read")
    time = time or next(iter(look.times), None)
    if time is None:
        entity = entity or _row_ids(look, targets)
        predicted = targets or _last_number(look, (entity,), None)
        roles = Roles(look, None, entity, predicted, None, _tabular_task(look, predicted))
        if all(column.name in predicted for column in roles.data):
            raise DataError(_nothing_else(roles))
        return roles
    moments = look.times[time].values
    frequency, zones = _rhythm(look, time, entity)
    # Hours that clocks show twice need no second series to explain them.
    if entity is None and not zones:
        entity = _entity(look, time, targets)
        if entity is not None:
            frequency, zones = _rhythm(look, time, entity)
    roles = _with_working_days(
        Roles(look, time, entity, targets, frequency, "forecast", timezone=timezone, zones=zones)
    )
    horizon = 1 if roles.lengths is None else roles.lengths.horizon
    ended, planned = columns_ahead(look.cells, moments, entity, horizon)
    numbers = [column.name for column in look.columns if column.kind == "number" and column.name in ended]
    targets = targets or tuple(numbers[-1:]) or _last_number(look, (entity,), moments)
    roles = replace(roles, targets=targets)
    if not set(targets) <= set(ended):
        return roles
    return replace(roles, planned=tuple(column.name for column in roles.data if column.name in planned))


def _with_working_days(roles: Roles) -> Roles:
    """Return the roles with working days in the place of days, where whole weekdays or holidays never have a row."""
    if roles.time is None or roles.frequency not in ("D", "B"):
        return roles
    times = roles.look.times[roles.time]
    days = times.values
    if roles.timezone is not None and times.is_in_utc:
        days = days.dt.tz_localize("UTC").dt.tz_convert(roles.timezone).dt.tz_localize(None)
    weekmask = working_week(days) or (WORKING_DAYS if roles.frequency == "B" else None)
    if weekmask is None:
        return roles
    closed = closed_days(days, weekmask)
    is_usual = closed is None and weekmask == WORKING_DAYS
    return replace(roles, frequency="B" if is_usual else "C", closed=closed, weekmask=weekmask)


def _rhythm(look: Look, time: str, entity: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the step between the times of each series, and the zones whose clocks explain those that repeat."""
    moments, series = look.times[time].values, None if entity is None else look.cells[entity]
    frequency = frequency_of(moments, series)
    return frequency, zones_of(moments, series, frequency)


def _row_ids(look: Look, targets: tuple[str, ...]) -> str | None:
    """Return the column that names the rows of a table; as an input, a model would learn rows by heart from it."""
    for column in look.columns:
        is_key = column.kind == "text" or (column.kind == "number" and column.is_whole)
        if column.name in targets or not is_key or column.missing or column.distinct < len(look.cells):
            continue
        if ROW_ID.search(column.name) or (column is look.columns[0] and _is_counted(column)):
            return column.name
    return None


def _is_counted(column: Column) -> bool:
    """Return whether whole numbers, each there once, leave none out."""
    if column.lowest is None or column.highest is None:
        return False
    return column.highest - column.lowest == column.distinct - 1


def _entity(look: Look, time: str, targets: tuple[str, ...]) -> str | None:
    """Return the column that, with the time, tells rows apart; `None` where the time alone does."""
    times = look.times[time].values.dropna()
    if not times.duplicated().any():
        return None
    usual = times[~times.dt.floor("D").isin(days_set_back(times))]
    if usual.duplicated().any():
        # What a clock shows twice is there twice in every series, and says nothing of what tells them apart.
        times = usual

    def repeats(column: Column) -> int:
        return int(look.cells.loc[times.index, [column.name]].assign(time=times).duplicated().sum())

    could_be = [
        column
        for column in look.columns
        if column.name not in (time, *targets)
        and 1 < column.distinct <= len(times) / 2
        and (column.kind == "text" or (column.kind == "number" and column.is_whole))
    ]
    if not could_be:
        return None
    best = min(could_be, key=lambda column: (repeats(column), column.kind != "text", column.distinct))
    return best.name if repeats(best) < int(times.duplicated().sum()) else None


def _last_number(look: Look, taken: Sequence[str | None], moments: pd.Series | None) -> tuple[str, ...]:
    """Return what is predicted unless a person says so: the last number that goes on, or the last column's classes.

    Parameters:
        moments: the times of the rows; `None` if they have none.
    """
    numbers = [column for column in look.columns if column.kind == "number" and column.name not in taken]
    texts = [column for column in look.columns if column.kind == "text" and 1 < column.distinct <= FEW_CATEGORIES]
    filled = [column for column in look.columns if column.kind != "empty"]
    if moments is None and filled and filled[-1] in texts:
        return (filled[-1].name,)
    if not (numbers or texts):
        why = [*look.signed(), *(f"{name!r} is there twice or without a name" for name in look.left_out)]
        found = f"; {'; '.join(why)}" if why else ""
        raise DataError(f"{look.where} has no column that could be predicted: no numbers, and no classes{found}")
    known = [column for column in numbers or texts if column.missing <= MOST_MISSING]
    going_on = [column for column in known if moments is None or _goes_on(look.cells[column.name], moments)]
    return ((going_on or known or numbers or texts)[-1].name,)


def _goes_on(cells: pd.Series, moments: pd.Series) -> bool:
    """Return whether a column has a value in the newest rows."""
    newest = moments.dropna().sort_values(kind="stable").index[-max(1, len(moments) // NEWEST) :]
    return bool((~cells[newest].isin(NO_NUMBER) & cells[newest].notna()).any())


def _tabular_task(look: Look, targets: tuple[str, ...]) -> Task:
    column = look.named(targets[0])
    is_class = column.kind == "text" or (column.is_whole and column.distinct <= 10)
    return "classification" if is_class else "regression"


def _nothing_else(roles: Roles) -> str:
    """Return what to say of a file with nothing to predict by, where most likely its times were not read as such."""
    look = roles.look
    texts = [column.name for column in look.columns if column.kind == "text" and column.name not in roles.targets]
    found = "".join(f"; {name!r} has texts such as {look.cells[name].dropna().iloc[0]!r}" for name in texts[:3])
    return (
        f"{look.where} has {', '.join(map(repr, roles.targets))} to predict, nothing to predict it by, and no column "
        f"that was read as times{found}. If one is a time, write it as ISO 8601 (2024-01-31 13:00), or set the dataset "
        "up by hand with time_column and source.options.time_format"
    )
