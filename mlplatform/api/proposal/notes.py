"""What a person is told about a file and the experiment that it suggests, one sentence each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlplatform.api.proposal.looking import FEW_CATEGORIES, Look
from mlplatform.api.proposal.roles import Roles
from mlplatform.api.proposal.times import Times, read_numbers
from mlplatform.calendars import WORKING_DAYS, has_week_label
from mlplatform.config import FOLDS, Lengths

# Names that are rather a first row of data: numbers with decimals, or dates.
LIKE_DATA = re.compile(r"[-+]?\d+[.,]\d+|\d{4}-\d\d-\d\d.*|\d{1,2}[./]\d{1,2}[./]\d{2,4}.*")
DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOUR = re.compile(r"hour|stunde|heure|hora|(^|[^a-z])(h|hr|hh|std)([^a-z]|$)", re.IGNORECASE)
HOURS_A_DAY = 24
# Of columns that could be predicted as well.
SHOWN_TARGETS = 5


def notes_of(roles: Roles) -> Iterator[str]:
    """Yield what was found, and what a person should look at."""
    look = roles.look
    yield from _file_notes(look)
    if roles.time is not None:
        yield from _time_notes(roles, roles.time)
    else:
        yield from _number_notes(roles)
    yield from _length_notes(roles)
    if roles.entity is not None and roles.time is None:
        yield f"rows are named by {roles.entity!r}, so it is no input"
    elif roles.entity is not None:
        yield f"{look.named(roles.entity).distinct} entities, named by {roles.entity!r}"
    yield f"to predict: {', '.join(roles.targets)} ({roles.task}); {_other_targets(roles)}"
    if roles.planned:
        yield f"known ahead, because they go on where {roles.targets[0]!r} has ended: {', '.join(roles.planned)}"
    yield from look.signed()
    used = {roles.time, roles.entity, *(column.name for column in roles.data)}
    left = [column.name for column in look.columns if column.name not in used]
    if left:
        yield f"left out: {', '.join(left)} (empty, a second time, or text of more than {FEW_CATEGORIES} kinds)"
    yield "physical limits (`min`, `max`) are yours to set: rows beyond them go to quarantine"


def _file_notes(look: Look) -> Iterator[str]:
    more = f"the first {len(look.cells)} rows" if look.is_cut else f"{len(look.cells)} rows"
    written = "".join(f", {key} {value!r}" for key, value in look.options.items())
    yield f"{more} of {len(look.columns)} columns in {len(look.paths)} file{'s' * (len(look.paths) > 1)}{written}"
    if look.is_ambiguous:
        yield "every comma is before three digits: if it stands between thousands, write thousands instead of decimal"
    names = {ours: theirs for theirs, ours in look.rename.items()}
    if data := [each for name in look.cells if LIKE_DATA.fullmatch(each := names.get(str(name), str(name)).strip())]:
        yield f"the first row, taken for names, looks like data ({', '.join(map(repr, data[:3]))}): add a header"
    if look.rename:
        yield f"other names than in the file: {', '.join(f'{old!r} is {new!r}' for old, new in look.rename.items())}"
    if look.left_out:
        yield f"left out: {', '.join(map(repr, look.left_out))} (not once in every file, or without a name)"


def _time_notes(roles: Roles, time: str) -> Iterator[str]:
    times = roles.look.times[time]
    yield (
        f"time is {time!r}, from {times.values.min()} to {times.values.max()}, "
        f"frequency {roles.frequency or 'unknown'}; {_zone_note(roles, times)}"
    )
    if roles.frequency is not None and has_week_label(roles.frequency):
        yield (
            "weeks are taken for those that begin with the day of their row; if they end with it, as pandas' resample "
            "writes them, add `week_label: end` to the dataset, so that holidays are counted for them"
        )
    if unread := roles.look.unread(time):
        yield f"{unread[0]} times cannot be read, such as {unread[1]!r}: these rows go to quarantine"
    if times.is_ambiguous:
        yield f"day and month of {time!r} could be exchanged; it is read as {times.format}"
    if roles.weekmask != WORKING_DAYS:
        free = [day for day, works in zip(DAY_NAMES, roles.weekmask, strict=True) if works == "0"]
        yield (
            f"no row is of a {' or '.join(free)}, so the working days are the other {7 - len(free)} of a week "
            "(`weekmask`): nothing is forecast for those, and rows of them would go to quarantine"
        )
    yield from _hour_notes(roles, times)
    if roles.closed is not None:
        yield (
            f"{roles.closed.explained} of {roles.closed.missing} weekdays without a row are holidays of "
            f"{roles.closed.of}, for whose days to come nothing is forecast"
        )
    if roles.frequency is None:
        yield "no frequency was found that the times of the entities have in common: set it by hand"


def _number_notes(roles: Roles) -> Iterator[str]:
    """Say which numbers of a file without times could be times."""
    for column in roles.look.columns:
        cells = roles.look.cells[column.name]
        if column.is_whole and read_numbers(cells) is not None:
            yield (
                f"the numbers of {column.name!r}, such as {cells.dropna().iloc[0]}, could be times: if they are, say "
                f"so by `--time {column.name}`"
            )


def _hour_notes(roles: Roles, times: Times) -> Iterator[str]:
    """Say which column is the hour of a day that stands in another."""
    if not (times.values.dropna() == times.values.dropna().dt.floor("D")).all():
        return
    for column in roles.look.columns:
        if not column.is_whole or column.lowest is None or column.highest is None:
            continue
        in_day = column.lowest >= 0 and column.highest <= HOURS_A_DAY
        is_entity = column.name == roles.entity and column.distinct == HOURS_A_DAY
        if in_day and (is_entity or HOUR.search(column.name)):
            yield (
                f"{column.name!r} could be the hour of the day in {roles.time!r}: if it is, write both into one column "
                "(2024-01-31 13:00), because here a step is a day"
                f"{', and each hour a series of its own' if column.name == roles.entity else ''}"
            )


def _zone_note(roles: Roles, times: Times) -> str:
    if times.unit is not None:
        return f"its numbers are {times.unit} since 1970 UTC"
    if times.has_offsets:
        return "it says its offset from UTC"
    if roles.zones and roles.timezone in roles.zones:
        return f"hours are there twice when the clocks of {roles.timezone} are set back, so it is its time"
    if roles.zones and roles.timezone is None:
        return (
            f"hours are there twice when clocks are set back, as in {', '.join(roles.zones)}: say which by "
            "`--timezone`, because as times of UTC, which they are taken for, those rows are in quarantine"
        )
    return f"without a zone they are times of {roles.timezone or 'UTC'}"


def _other_targets(roles: Roles) -> str:
    """Say how another column is predicted; nobody can see it from the file, so the last one was taken."""
    others = [each.name for each in roles.data if each.kind == "number" and each.name not in roles.targets]
    if roles.task != "forecast" or not others:
        return "choose others with `--target`"
    shown = ", ".join(others[:SHOWN_TARGETS]) + (" ..." if len(others) > SHOWN_TARGETS else "")
    return f"`--target` chooses another: {shown}"


def _length_notes(roles: Roles) -> Iterator[str]:
    usual = roles.lengths
    if usual is None or usual.needed(FOLDS) <= roles.steps:
        return
    missing = usual.needed(FOLDS) - roles.steps
    seen = f"{roles.steps} steps of the rows that were seen" if roles.look.is_cut else f"{roles.steps} steps"
    needed = (
        f"{seen} are {missing} too few for what frequency {roles.frequency} suggests: a horizon of "
        f"{usual.horizon}, a lookback of {usual.lookback}, and a reference set and {FOLDS} folds of {usual.block} each"
    )
    if roles.fitted is None and roles.goes_on:
        yield f"{needed}; the rows behind them were not looked at, so see that there are as many"
    elif roles.fitted is None:
        yield f"{needed}; nothing shorter fits either: at least {_least(usual)}"
    elif roles.leaves_season_out:
        yield (
            f"{needed}; a season of {usual.season} takes at least {_least(usual)}, so shorter ones without a season "
            "were written, which more data need not"
        )
    else:
        yield f"{needed}: shorter ones were written, which more data need not"


def _least(lengths: Lengths) -> int:
    """Return the steps that the shortest lengths with the same season take."""
    return Lengths(lengths.season, lengths.season, 1, 1).needed(1)
