"""The experiment that a file suggests, as YAML that a person reads, corrects and keeps."""

from __future__ import annotations

import re
import tempfile
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlplatform.api.facts import facts_html
from mlplatform.api.proposal.ahead import columns_ahead
from mlplatform.api.proposal.looking import FEW_CATEGORIES, RARE_NULLS, Column, Look, look_at
from mlplatform.api.proposal.times import Times, frequency_of, read_counts
from mlplatform.api.proposal.working_days import ClosedDays, closed_days
from mlplatform.api.proposal.zones import days_set_back, zones_of
from mlplatform.config import FOLDS, NAME_PATTERN, ConfigError, Lengths, load_experiment
from mlplatform.data import DataError
from mlplatform.data.sources import NUMBER_NULLS, split_glob
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    import pandas as pd

# The family of the bases that a proposal stands on.
FAMILY = "xgboost"
Task = Literal["forecast", "regression", "classification"]
# A column with less is not proposed as a target, nor one without any value in the newest rows, one in so many.
MOST_MISSING, NEWEST = 0.5, 10
NO_NUMBER = (*NUMBER_NULLS, *RARE_NULLS)
# How columns are called that name rows: id, customer_id, customerId, UUID.
ROW_ID = re.compile(r"(^|[^A-Za-z])(?i:id|uuid|guid|key)$|[a-z](Id|ID)$")
# Of columns that could be predicted as well.
SHOWN_TARGETS = 5


@dataclass(frozen=True)
class Proposal:
    """An experiment on a file.

    Attributes:
        yaml: the experiment's file.
        notes: what was found, and what a person should look at, one sentence each.
        mistakes: what the configuration refuses about it; empty if it can be used as it is.
    """

    name: str
    task: Task
    yaml: str
    notes: tuple[str, ...]
    mistakes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return facts_html(vars(self))

    def write(self, settings: Settings | None = None, *, overwrite: bool = False) -> Path:
        """Write the file where experiments are looked up first, and return its path.

        Raises:
            ConfigError: if there is such an experiment already.
        """
        folder = (settings or Settings.from_env()).conf_dirs[0] / "experiment"
        path = folder / f"{self.name}.yaml"
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} is there already; choose another name, or ask for it to be overwritten")
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_text(self.yaml, encoding="utf-8")
        return path


@dataclass(frozen=True)
class _Parts:
    """The roles of a file's columns.

    Attributes:
        timezone: of times without one, where a person has named it, or a single one explains them.
        zones: those that explain why times are there twice.
        planned: columns that go on where the targets have ended.
        closed: of business days, the holidays that the file leaves out.
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

    @property
    def steps(self) -> int:
        """The number of times in the file, without those of which only a plan is there."""
        if self.time is None:
            return 0
        times = self.look.times[self.time].values
        if self.planned:
            cells = self.look.cells[list(self.targets)]
            times = times[times <= times[(cells.notna() & ~cells.isin(NO_NUMBER)).any(axis=1)].max()]
        return int(times.nunique())

    @property
    def lengths(self) -> Lengths | None:
        """What the frequency says about lengths, if it is known."""
        return None if self.frequency is None else Lengths.of(self.frequency)

    @property
    def fitted(self) -> tuple[Lengths, int] | None:
        """Shorter lengths, and the number of folds, if the file needs and has room for such."""
        if self.lengths is None or self.look.is_cut or self.lengths.needed(FOLDS) <= self.steps:
            return None
        found = self.lengths.within(self.steps)
        if found is not None:
            return found
        plain = Lengths.without_season()
        found = plain.within(self.steps)
        # Fewer steps ahead would be judged by fewer rows than say anything.
        return found if found is not None and found[0].horizon == plain.horizon else None

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


def propose(
    files: str | Path | Sequence[str | Path],
    *,
    name: str | None = None,
    targets: Sequence[str] = (),
    time: str | None = None,
    entity: str | None = None,
    timezone: str | None = None,
    settings: Settings | None = None,
) -> Proposal:
    """Look at a table in files and propose an experiment on it; nothing is written.

    Parameters:
        files: of CSV, JSON lines or Excel, compressed or not: one, several, or a pattern such as `sales/*.csv`.
        name: of the experiment; default: from the file's name and the model's. The dataset goes by the file's, or by
            the folder's of several.
        targets: columns to predict; this and the next two are for where the file's look would mislead.
        time: the column of times.
        entity: the column that names the series.
        timezone: of times without a zone, as `Europe/Berlin`; default: the one whose clocks explain hours that are
            there twice, or else UTC.

    Raises:
        DataError: if the file cannot be read, or a named column is not in it.
        ConfigError: if the name cannot be one.
    """
    settings = settings or Settings.from_env()
    paths, uris = _found([files] if isinstance(files, str | Path) else list(files))
    dataset = _name(paths[0].name.split(".")[0] if len(paths) == 1 else paths[0].parent.name)
    name = f"{dataset}_{FAMILY}" if name is None else name
    dataset = f"{dataset}_data" if dataset == name else dataset
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(f"{name!r} cannot be a name; use lower-case letters, digits and underscores")
    parts = _parts(look_at(paths, uris), tuple(targets), time, entity)
    parts = replace(parts, timezone=timezone or (parts.zones[0] if len(parts.zones) == 1 else None))
    text = "\n".join(_lines(name, dataset, parts)) + "\n"
    return Proposal(name, parts.task, text, tuple(_notes(parts)), _mistakes(name, text, settings))


def _parts(look: Look, targets: tuple[str, ...], time: str | None, entity: str | None) -> _Parts:
    targets = tuple(look.named(target).name for target in targets)
    time = time and look.named(time).name
    entity = entity and look.named(entity).name
    counts = None if time is None or time in look.times else read_counts(look.cells[time])
    if time is not None and counts is not None:
        look = look.with_times(time, counts)
    if time is not None and time not in look.times:
        raise DataError(f"the column {time!r} of {look.where} does not hold times that can be read")
    time = time or next(iter(look.times), None)
    if time is None:
        entity = entity or _row_ids(look, targets)
        predicted = targets or _last_number(look, (entity,), None)
        parts = _Parts(look, None, entity, predicted, None, _tabular_task(look, predicted))
        if all(column.name in predicted for column in parts.data):
            raise DataError(_nothing_else(parts))
        return parts
    moments = look.times[time].values
    frequency, zones = _rhythm(look, time, entity)
    # Hours that clocks show twice need no second series to explain them.
    if entity is None and not zones:
        entity = _entity(look, time, targets)
        if entity is not None:
            frequency, zones = _rhythm(look, time, entity)
    horizon = 1 if frequency is None else Lengths.of(frequency).horizon
    ended, planned = columns_ahead(look.cells, moments, entity, horizon)
    numbers = [column.name for column in look.columns if column.kind == "number" and column.name in ended]
    targets = targets or tuple(numbers[-1:]) or _last_number(look, (entity,), moments)
    closed = closed_days(moments) if frequency == "B" else None
    frequency = frequency if closed is None else "C"
    parts = _Parts(look, time, entity, targets, frequency, "forecast", zones=zones, closed=closed)
    if not set(targets) <= set(ended):
        return parts
    return replace(parts, planned=tuple(column.name for column in parts.data if column.name in planned))


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
    times = look.times[time].values
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
        raise DataError(f"{look.where} has no column that could be predicted: no numbers, and no classes")
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


def _nothing_else(parts: _Parts) -> str:
    """Return what to say of a file with nothing to predict by, where most likely its times were not read as such."""
    look = parts.look
    texts = [column.name for column in look.columns if column.kind == "text" and column.name not in parts.targets]
    found = "".join(f"; {name!r} has texts such as {look.cells[name].dropna().iloc[0]!r}" for name in texts[:3])
    return (
        f"{look.where} has {', '.join(map(repr, parts.targets))} to predict, nothing to predict it by, and no column "
        f"that was read as times{found}. If one is a time, write it as ISO 8601 (2024-01-31 13:00), or set the dataset "
        "up by hand with time_column and source.options.time_format"
    )


def _lines(name: str, dataset: str, parts: _Parts) -> Iterator[str]:
    is_forecast = parts.task == "forecast"
    yield "# @package _global_"
    yield f"defaults: [/base/{'forecast' if is_forecast else 'tabular'}, _self_]"
    yield f"name: {name}"
    others = f" and {len(parts.look.paths) - 1} more" if len(parts.look.paths) > 1 else ""
    yield f"description: {_quoted(f'Proposed from {parts.look.paths[0].name}{others}.')}"
    if not is_forecast:
        yield f"task: {parts.task}"
    yield "dataset:"
    yield f"  name: {dataset}"
    if not is_forecast:
        yield "  kind: tabular"
    yield f"  source: {_flow(_source(parts))}"
    if parts.time is not None:
        yield f"  time_column: {_quoted(parts.time)}"
        unit = parts.look.times[parts.time].unit
        if unit is not None:
            yield f"  time_unit: {unit}  # since 1970 UTC"
    if parts.entity is not None:
        yield f"  entity_column: {_quoted(parts.entity)}"
    if is_forecast:
        yield f"  frequency: {parts.frequency or 'auto'}{'' if parts.frequency else '  # none was found'}"
    if parts.closed is not None:
        yield f"  # of {parts.closed.of}, to the end of {parts.closed.days[-1].year}: add those of later years"
        yield from textwrap.wrap(
            f"holidays: [{', '.join(map(str, parts.closed.days))}]", 120, initial_indent="  ", subsequent_indent="    "
        )
    if is_forecast and parts.timezone is not None:
        yield f"  timezone: {parts.timezone}"
    yield "  columns:"
    for column in parts.data:
        yield f"    {_quoted(column.name)}: {_flow(_column(column, parts))}{_seen(column)}"
    yield f"targets: {_flow(list(parts.targets))}"
    if parts.planned:
        yield f"features: {_flow({'version': f'{dataset}_planned_v1', 'known_future': list(parts.planned)})}"
    yield from _shortened(parts)
    if parts.task == "classification":
        yield "metric: log_loss"
        yield "extra_metrics: [accuracy]"


def _shortened(parts: _Parts) -> Iterator[str]:
    """Yield the lengths of an experiment, where the file has too few steps for those of the frequency."""
    fitted = parts.fitted
    if fitted is None:
        return
    lengths, folds = fitted
    if parts.leaves_season_out:
        yield "baselines: [{name: repeat_last}, {name: ridge}]  # no season"
    split = {"reference_steps": lengths.block, "folds": folds, "cv": {"params": {"validation_steps": lengths.block}}}
    yield f"horizon: {lengths.horizon}"
    yield f"lookback: {lengths.lookback}"
    yield f"split: {_flow(split)}"


def _source(parts: _Parts) -> dict[str, Any]:
    look = parts.look
    options = dict(look.options)
    time_format = None if parts.time is None else look.times[parts.time].format
    if time_format is not None:
        options["time_format"] = time_format
    used = {parts.time, parts.entity, *(column.name for column in parts.data)}
    rename = {theirs: ours for theirs, ours in look.rename.items() if ours in used}
    source = {"uri": look.uris[0] if len(look.uris) == 1 else list(look.uris), "rename": rename, "options": options}
    return {key: value for key, value in source.items() if value}


def _column(column: Column, parts: _Parts) -> dict[str, Any]:
    is_class = parts.task == "classification" and column.name in parts.targets
    return {"type": "category"} if column.kind == "text" or is_class else {}


def _seen(column: Column) -> str:
    """Return a comment with what a person needs to set physical limits."""
    if column.lowest is None:
        return f"  # {column.distinct} kinds"
    missing = f", {column.missing:.1%} missing" if column.missing else ""
    return f"  # seen {column.lowest:g} to {column.highest:g}{missing}"


def _notes(parts: _Parts) -> Iterator[str]:
    look = parts.look
    more = f"the first {len(look.cells)} rows" if look.is_cut else f"{len(look.cells)} rows"
    written = "".join(f", {key} {value!r}" for key, value in look.options.items())
    yield f"{more} of {len(look.columns)} columns in {len(look.paths)} file{'s' * (len(look.paths) > 1)}{written}"
    if look.is_ambiguous:
        yield "every comma is before three digits: if it stands between thousands, write thousands instead of decimal"
    if look.rename:
        yield f"other names than in the file: {', '.join(f'{old!r} is {new!r}' for old, new in look.rename.items())}"
    if look.left_out:
        yield f"left out: {', '.join(map(repr, look.left_out))} (not once in every file, or without a name)"
    if parts.time is not None:
        times = look.times[parts.time]
        yield (
            f"time is {parts.time!r}, from {times.values.min()} to {times.values.max()}, "
            f"frequency {parts.frequency or 'unknown'}; {_zone_note(parts, times)}"
        )
        if times.is_ambiguous:
            yield f"day and month of {parts.time!r} could be exchanged; it is read as {times.format}"
        if parts.closed is not None:
            yield (
                f"{parts.closed.explained} of {parts.closed.missing} weekdays without a row are holidays of "
                f"{parts.closed.of}, for whose days to come nothing is forecast"
            )
        if parts.frequency is None:
            yield "no frequency was found that the times of the entities have in common: set it by hand"
    yield from _length_notes(parts)
    if parts.entity is not None and parts.time is None:
        yield f"rows are named by {parts.entity!r}, so it is no input"
    elif parts.entity is not None:
        yield f"{look.named(parts.entity).distinct} entities, named by {parts.entity!r}"
    yield f"to predict: {', '.join(parts.targets)} ({parts.task}); {_other_targets(parts)}"
    if parts.planned:
        yield f"known ahead, because they go on where {parts.targets[0]!r} has ended: {', '.join(parts.planned)}"
    used = {parts.time, parts.entity, *(column.name for column in parts.data)}
    left = [column.name for column in look.columns if column.name not in used]
    if left:
        yield f"left out: {', '.join(left)} (empty, a second time, or text of more than {FEW_CATEGORIES} kinds)"
    yield "physical limits (`min`, `max`) are yours to set: rows beyond them go to quarantine"


def _zone_note(parts: _Parts, times: Times) -> str:
    if times.unit is not None:
        return f"its numbers are {times.unit} since 1970 UTC"
    if parts.zones and parts.timezone in parts.zones:
        return f"hours are there twice when the clocks of {parts.timezone} are set back, so it is its time"
    if parts.zones and parts.timezone is None:
        return (
            f"hours are there twice when clocks are set back, as in {', '.join(parts.zones)}: say which by "
            "`--timezone`, because as times of UTC, which they are taken for, those rows are in quarantine"
        )
    return f"without a zone they are times of {parts.timezone or 'UTC'}"


def _other_targets(parts: _Parts) -> str:
    """Say how another column is predicted; nobody can see it from the file, so the last one was taken."""
    others = [each.name for each in parts.data if each.kind == "number" and each.name not in parts.targets]
    if parts.task != "forecast" or not others:
        return "choose others with `--target`"
    shown = ", ".join(others[:SHOWN_TARGETS]) + (" ..." if len(others) > SHOWN_TARGETS else "")
    return f"`--target` chooses another: {shown}"


def _length_notes(parts: _Parts) -> Iterator[str]:
    usual = parts.lengths
    if usual is None or parts.look.is_cut or usual.needed(FOLDS) <= parts.steps:
        return
    missing = usual.needed(FOLDS) - parts.steps
    needed = (
        f"{parts.steps} steps are {missing} too few for what frequency {parts.frequency} suggests: a horizon of "
        f"{usual.horizon}, a lookback of {usual.lookback}, and a reference set and {FOLDS} folds of {usual.block} each"
    )
    if parts.fitted is None:
        yield f"{needed}; nothing shorter fits either: at least {_least(usual)}"
    elif parts.leaves_season_out:
        yield (
            f"{needed}; a season of {usual.season} takes at least {_least(usual)}, so shorter ones without a season "
            "were written, which more data need not"
        )
    else:
        yield f"{needed}: shorter ones were written, which more data need not"


def _least(lengths: Lengths) -> int:
    """Return the steps that the shortest lengths with the same season take."""
    return Lengths(lengths.season, lengths.season, 1, 1).needed(1)


def _mistakes(name: str, text: str, settings: Settings) -> tuple[str, ...]:
    """Return what the configuration says about the text."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "experiment")
        folder.mkdir()
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        try:
            load_experiment(name, settings=replace(settings, conf_dir=Path(place)))
        except ConfigError as error:
            return error.mistakes
    return ()


def _found(files: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Return files by absolute paths, and what the configuration names to read them: a pattern as it stands."""
    paths, uris = [], []
    for file in files:
        path = Path(file).expanduser().absolute()
        base, pattern = split_glob(path)
        is_pattern = base != path and not path.exists()
        paths += sorted(base.glob(pattern)) if is_pattern else [path]
        uris.append(str(path))
    return paths or [Path(files[0])], uris


def _name(text: str) -> str:
    # Letters lose their marks, rather than names their letters.
    plain = "".join(
        letter for letter in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(letter)
    )
    stem = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return stem if re.match(r"[a-z]", stem) else f"data_{stem}".rstrip("_")


def _quoted(text: str) -> str:
    return _flow(text)


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10_000)
    return text.strip().removesuffix("...").strip()
