"""Validation: a source's rows in, canonical rows and the quarantine out. No row is lost between them.

Rows come in batches. What the first batch settles (the kind of entity ids, the phase of the grid) holds for all others.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import zone_of
from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data.columns import FILE, LINE, mark_column, require_columns
from mlplatform.data.errors import DataError
from mlplatform.data.faults import Faults
from mlplatform.data.local_times import Seen
from mlplatform.data.parsing import parse_categories, parse_entities, parse_local_times, parse_marks, parse_numbers
from mlplatform.data.plausible_times import judge_times, settle
from mlplatform.data.schema import check_values
from mlplatform.data.timegrid import count_out_of_order, find_duplicates, grid_phase, off_grid

Mask = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

ROW = "row"
REASON = "reason"
# What the quarantine of rows from files has besides: what sources call otherwise, so as not to meet a column of users.
FILE_AND_LINE = {FILE: "source_file", LINE: "source_line"}
SINGLE_ENTITY = 1
TIMELESS = np.datetime64("2000-01-01T00:00", "ns")
EXAMPLES = 3
NOT_EXACT = "not known exactly: a number rounded on the way here, binary data, a NUL character, or a list of such"
# Of fewer rows than this, a share says little: one bad message among the first three must not stop a stream.
LEAST_JUDGED_ROWS = 100
# A row that says again what an earlier one said: left out, but no fault of the source, which stands as one row.
COPY = "duplicate row"
RESPELT = "a whole number in other words than the entities are written in"


@dataclass(frozen=True)
class Basis:
    """What earlier rows of a dataset have settled; `None` where nothing has.

    Attributes:
        text_ids: whether entity ids are text; otherwise they are whole numbers.
        phase_ns: phase of the frequency grid, as the dataset's calendar counts phases.
        span_ns: first and last time, in nanoseconds since 1970 UTC.
        early_ns: the times of the first rows, as long as these are too few to settle span and phase; a later batch may
            displace them.
        seen: entities and local times of the newest hour that came twice, where times tell no zone.
    """

    text_ids: bool | None = None
    phase_ns: int | None = None
    span_ns: tuple[int, int] | None = None
    seen: Seen = ()
    early_ns: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Validated:
    """The outcome of validating one batch.

    Attributes:
        rows: the raw frame: `entity_id` (int64 or str), `event_timestamp` (datetime64[ns, UTC]), then the dataset's
            columns (float32, or object with `None`), ordered by entity and time and unique on them.
        numbers: of shape (rows,): the 0-based row of the source that each of `rows` was.
        quarantine: the bad rows in source order: `row` (0-based row of the source), `reason`, of rows from files
            `source_file` and `source_line` (from 1; of a sheet its row), then the source's own columns as text (`None`
            is missing; a column that is called like one of these gets `_original` appended).
        basis: for the batches that follow.
        rows_read: rows of the batch.
        reasons: bad rows per kind of fault; a row can have several.
        out_of_order_rows: good rows that are earlier than a row of the same entity above them.
        examples: the first bad rows, for people.
        removed: ids of the entities that are gone by the batch's last word on them, each once.
        marks: good rows that only say that their entity is gone.
        displaced_ns: times of earlier rows that are not plausible any more beside the rows of this batch.
    """

    rows: pd.DataFrame
    numbers: npt.NDArray[np.int64]
    quarantine: pd.DataFrame
    basis: Basis
    rows_read: int
    reasons: dict[str, int]
    out_of_order_rows: int
    examples: tuple[str, ...]
    removed: npt.NDArray[Any]
    marks: int
    displaced_ns: frozenset[int] = frozenset()


def validate(
    frame: pd.DataFrame,
    dataset: DatasetConfig,
    basis: Basis | None = None,
    *,
    first_row: int = 0,
    newest_wins: bool = False,
) -> Validated:
    """Check every row of a batch and bring the good ones into canonical form.

    A bad row goes to quarantine whole, with all its reasons, and so becomes a gap in the grid; this holds as well for a
    row with one value out of range, because one broken value makes the others of that moment doubtful. Bad are: a time
    or number that does not parse, a missing time, entity or not nullable value, an entity or category that is not known
    exactly, a value that is infinite, beyond `min`..`max` or too large for float32, a time after the present or far
    from all others, a time off the frequency grid (time series only), and rows that repeat the entity and time of an
    earlier good row; exact copies of one are left out like them, but are no fault of the source. Rows out of time order
    are sorted and counted, not bad.

    A row that marks its entity as removed needs no more than the entity and becomes no row; a row of the entity that
    follows it brings the entity back.

    Parameters:
        frame: in the source's own column names and row order; its index is ignored.
        basis: what earlier batches have settled.
        first_row: number of the batch's first row in the source.
        newest_wins: whether a row that repeats an entity and time replaces the earlier one instead of being bad. The
            rows of a table without entities are then told apart by their content, else by their number.

    Raises:
        DataError: if a column is missing.
    """
    require_columns(frame.columns, dataset, "the source")
    basis = basis or Basis()
    frame = frame.reset_index(drop=True)
    marks, unclear = _marks(frame, dataset)
    if not marks.any():
        return _validate(frame, np.arange(len(frame)) + first_row, unclear, dataset, basis, newest_wins)
    places = np.flatnonzero(~marks)
    batch = _validate(
        frame.iloc[places].reset_index(drop=True), places + first_row, unclear[places], dataset, basis, newest_wins
    )
    return _with_marks(batch, frame[marks], np.flatnonzero(marks) + first_row, dataset)


def _marks(frame: pd.DataFrame, dataset: DatasetConfig) -> tuple[Mask, Mask]:
    """Return which rows mark their entity as removed, and which do not say clearly whether they do."""
    name = mark_column(dataset)
    if name not in frame.columns or name in dataset.columns:
        return np.zeros(len(frame), dtype=bool), np.zeros(len(frame), dtype=bool)
    return parse_marks(frame[name], dt.datetime.now(dt.UTC))


def _validate(
    frame: pd.DataFrame, places: Int64, unclear: Mask, dataset: DatasetConfig, basis: Basis, newest_wins: bool
) -> Validated:
    """Validate rows without marks; see `validate`.

    Parameters:
        frame: with a RangeIndex.
        places: of shape (rows,): the 0-based row of the source that each row is.
        unclear: rows whose mark says neither yes nor no.
    """
    faults = Faults(len(frame))
    faults.add(f"{dataset.removed_column}: neither yes nor no, nor a time", unclear)
    before = basis
    canonical, basis = _parse(frame, places, dataset, faults, before, newest_wins)
    has_keys = dataset.time_column is not None or dataset.entity_column is not None
    if has_keys and not newest_wins:
        _add_duplicates(canonical, places, dataset, faults)
    good = canonical[~faults.is_bad]
    rows, kept = _canonical(good, dataset, keep_last=newest_wins)
    return Validated(
        rows=rows,
        numbers=places[kept],
        quarantine=_quarantine(frame, places, faults),
        basis=basis,
        rows_read=len(frame),
        reasons=faults.counts(),
        out_of_order_rows=count_out_of_order(good),
        examples=_examples(frame, places, faults),
        removed=rows[ENTITY].to_numpy()[:0],
        marks=0,
        displaced_ns=_displaced(before, basis, dataset),
    )


def _with_marks(batch: Validated, marked: pd.DataFrame, places: Int64, dataset: DatasetConfig) -> Validated:
    """Return a batch together with the rows that mark entities as removed, `marked`, at `places` of the source."""
    faults = Faults(len(marked))
    marked = marked.reset_index(drop=True)
    ids = _entities(marked, places, dataset, faults, batch.basis)
    last_mark = pd.Series(places[~faults.is_bad], index=ids[~faults.is_bad]).groupby(level=0).max()
    ours = batch.rows[ENTITY].isin(last_mark.index).to_numpy()
    last_row = pd.Series(batch.numbers[ours], index=batch.rows[ENTITY][ours].to_numpy()).groupby(level=0).max()
    is_last = last_mark.to_numpy() > last_row.reindex(last_mark.index, fill_value=-1).to_numpy()
    reasons = Counter(batch.reasons)
    reasons.update(faults.counts())
    quarantine = pd.concat([batch.quarantine, _quarantine(marked, places, faults)], ignore_index=True)
    return replace(
        batch,
        quarantine=quarantine.sort_values(ROW, kind="stable", ignore_index=True),
        rows_read=batch.rows_read + len(marked),
        reasons=dict(reasons),
        examples=(*batch.examples, *_examples(marked, places, faults))[:EXAMPLES],
        removed=last_mark.index.to_numpy()[is_last],
        marks=int((~faults.is_bad).sum()),
    )


@dataclass
class Tally:
    """Counts over the batches of a source.

    How much of a source is bad is judged without the copies of rows: the same row twice counts as one.
    """

    rows_read: int = 0
    marks: int = 0
    quarantined: int = 0
    out_of_order_rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, batch: Validated) -> None:
        """Count a batch in."""
        self.rows_read += batch.rows_read
        self.marks += batch.marks
        self.out_of_order_rows += batch.out_of_order_rows
        self.quarantined += len(batch.quarantine)
        self.reasons.update(batch.reasons)
        self.examples = [*self.examples, *batch.examples][:EXAMPLES]

    @property
    def copies(self) -> int:
        """Rows that only repeat another one; they have no other fault."""
        return self.reasons[COPY]

    @property
    def bad(self) -> int:
        """Rows with a fault."""
        return self.quarantined - self.copies

    def refuse_bad_source(self, dataset: DatasetConfig) -> None:
        """Refuse a source that was read whole, if too much of it is bad.

        Raises:
            DataError: if there are no rows, all rows are bad, or more than the share `dataset.max_bad_fraction`.
        """
        if not self.rows_read:
            raise DataError(f"dataset {dataset.name!r}: the source has no rows; at least one is needed")
        has_rows = self.quarantined + self.marks < self.rows_read
        judged = self.rows_read - self.copies
        if not has_rows or self.bad > dataset.max_bad_fraction * judged:
            raise self._too_bad(dataset, judged)

    def refuse_bad_increment(self, dataset: DatasetConfig, stored_rows: int) -> None:
        """Refuse new rows, if too many are bad; the share is that of everything stored so far and these rows.

        Raises:
            DataError: if more than the share `dataset.max_bad_fraction` is bad.
        """
        judged = max(stored_rows + self.rows_read - self.copies, LEAST_JUDGED_ROWS)
        if self.bad > dataset.max_bad_fraction * judged:
            raise self._too_bad(dataset, judged)

    def _too_bad(self, dataset: DatasetConfig, judged: int) -> DataError:
        counts = ", ".join(f"{kind} ({count})" for kind, count in self.reasons.items() if kind != COPY)
        examples = "".join(f"\n  {example}" for example in self.examples)
        return DataError(
            f"dataset {dataset.name!r}: {self.bad} of {judged} rows ({self.bad / judged:.1%}) are bad, "
            f"but max_bad_fraction allows {dataset.max_bad_fraction:.1%} and one row at least must be good. "
            f"Reasons: {counts}. First bad rows:{examples}\n"
            "Correct the data or the dataset's columns, time_unit, entity_type, frequency and source.options, or raise "
            "max_bad_fraction"
        )


def conflicts(rows: pd.DataFrame, numbers: npt.NDArray[np.int64], dataset: DatasetConfig) -> Faults:
    """Return what is wrong with rows that repeat the entity and time of a row of an earlier batch.

    Parameters:
        rows: canonical rows of several batches, in ascending order of their numbers for equal entity and time.
        numbers: their rows in the source.
    """
    faults = Faults(len(rows))
    found = find_duplicates(rows.reset_index(drop=True), list(dataset.columns))
    faults.add_rows(COPY, found.exact)
    texts = [f"conflicting duplicate of row {numbers[row]}" for row in found.conflicts_with]
    faults.add_rows("conflicting duplicate", found.conflicting, texts)
    return faults


def quarantined_rows(
    rows: pd.DataFrame, numbers: npt.NDArray[np.int64], faults: Faults, dataset: DatasetConfig
) -> pd.DataFrame:
    """Return canonical rows that turned out bad later, in the form of a quarantine with the source's column names."""
    names = {TIMESTAMP: dataset.time_column, ENTITY: dataset.entity_column}
    own = rows.drop(columns=[column for column, name in names.items() if name is None])
    own = own.rename(columns={column: name for column, name in names.items() if name is not None})
    return _quarantine(own, numbers, faults)


def off_grid_reason(dataset: DatasetConfig) -> str:
    """Return the reason of a row that lies between two steps of the grid."""
    frequency = dataset.calendar.frequency if dataset.kind == "timeseries" else dataset.frequency
    return f"{dataset.time_column}: off the {frequency} grid"


def far_reason(dataset: DatasetConfig) -> str:
    """Return the reason of a row whose time is far from those of all others."""
    return f"{dataset.time_column}: more than max_gap {dataset.max_gap} from the other rows"


def displaced_rows(rows: pd.DataFrame, displaced_ns: Collection[int], basis: Basis, dataset: DatasetConfig) -> Faults:
    """Return what is wrong with rows that later ones have displaced; see `Validated.displaced_ns`."""
    faults = Faults(len(rows))
    times = rows[TIMESTAMP].to_numpy(dtype="datetime64[ns]")
    is_displaced = np.isin(times.astype(np.int64), list(displaced_ns))
    if basis.span_ns is not None:
        faults.add(far_reason(dataset), is_displaced & (times < np.datetime64(basis.span_ns[0], "ns")))
    if dataset.kind == "timeseries":
        faults.add(off_grid_reason(dataset), is_displaced & off_grid(times, dataset.calendar, basis.phase_ns))
    return faults


def _parse(
    frame: pd.DataFrame, places: Int64, dataset: DatasetConfig, faults: Faults, basis: Basis, newest_wins: bool
) -> tuple[pd.DataFrame, Basis]:
    """Return the canonical columns of all rows, numbers still as float64, and note the cells that are bad."""
    times, seen = _timestamps(frame, dataset, faults, basis)
    span, early = _note_implausible(times, dataset, faults, basis)
    phase = basis.phase_ns
    if dataset.kind == "timeseries":
        if phase is None or basis.early_ns is not None:
            plausible = np.concatenate([_moments(basis.early_ns or ()), times[~faults.is_bad]])
            bulk = plausible[plausible >= np.datetime64(span[0], "ns")] if span else plausible
            phase = grid_phase(bulk, dataset.calendar, phase)
        is_off = off_grid(times, dataset.calendar, phase)
        # Without a plausible time there is no grid to be off.
        faults.add(off_grid_reason(dataset), is_off if phase is not None else is_off & ~faults.is_bad)
    ids = _entities(frame, places, dataset, faults, basis)
    columns: dict[str, npt.NDArray[Any]] = {ENTITY: ids, TIMESTAMP: times}
    has_names = dataset.kind == "timeseries" or dataset.entity_column is not None
    is_unparsed = {}
    for name, column in dataset.columns.items():
        if column.type == "float":
            columns[name], is_unparsed[name] = parse_numbers(frame[name])
            faults.add(f"{name}: not a number", is_unparsed[name])
        else:
            columns[name], is_inexact = parse_categories(frame[name])
            faults.add(f"{name}: {NOT_EXACT}", is_inexact)
    canonical = pd.DataFrame(columns)
    if newest_wins and not has_names:
        # Among rows that are added to others a number says nothing: it starts anew with every increment.
        canonical[ENTITY] = _content_ids(canonical.drop(columns=ENTITY))
    check_values(canonical, dataset, is_unparsed, faults)
    text_ids = ids.dtype == object if len(frame) else basis.text_ids
    return canonical, Basis(text_ids, phase, span, seen, early)


def _entities(
    frame: pd.DataFrame, places: Int64, dataset: DatasetConfig, faults: Faults, basis: Basis
) -> npt.NDArray[Any]:
    if dataset.entity_column is None:
        if dataset.kind == "timeseries":
            return np.full(len(frame), SINGLE_ENTITY, dtype=np.int64)
        return places
    values = frame[dataset.entity_column]
    ids = parse_entities(values, dataset.max_bad_fraction, basis.text_ids, dataset.entity_type)
    # A file has no other word for a missing id, and nobody can ask for one that is empty.
    is_empty = ids.values == "" if ids.values.dtype == object else False
    faults.add(f"{dataset.entity_column}: missing", values.isna().to_numpy() | is_empty)
    faults.add(f"{dataset.entity_column}: {NOT_EXACT}", ids.inexact)
    faults.add(f"{dataset.entity_column}: {RESPELT}", ids.respelt)
    faults.add(f"{dataset.entity_column}: not a whole number, as the other entities are", ids.other)
    return ids.values


def _content_ids(rows: pd.DataFrame) -> Int64:
    """Return a number of 63 bits for every row, the same for the same content."""
    hashed = pd.util.hash_pandas_object(rows, index=False).to_numpy(dtype=np.uint64)
    return (hashed >> np.uint64(1)).astype(np.int64)


def _timestamps(
    frame: pd.DataFrame, dataset: DatasetConfig, faults: Faults, basis: Basis
) -> tuple[npt.NDArray[np.datetime64], Seen]:
    if dataset.time_column is None:
        return np.full(len(frame), TIMELESS), basis.seen
    values = frame[dataset.time_column]
    entities = None if dataset.entity_column is None else frame[dataset.entity_column]
    parsed = parse_local_times(values, entities, zone_of(dataset.timezone), basis.seen, dataset.time_unit)
    faults.add(f"{dataset.time_column}: missing", values.isna().to_numpy())
    counted = "" if dataset.time_unit is None else f", nor a number of {dataset.time_unit} since 1970,"
    faults.add(f"{dataset.time_column}: not an ISO 8601 time{counted} of the years 1678 to 2261", parsed.faulty)
    faults.add(f"{dataset.time_column}: a time that the clocks of {dataset.timezone} skipped", parsed.doubtful)
    return parsed.times, parsed.seen


def _note_implausible(
    times: npt.NDArray[np.datetime64], dataset: DatasetConfig, faults: Faults, basis: Basis
) -> tuple[tuple[int, int] | None, tuple[int, ...] | None]:
    """Note times after the present or far from all others.

    Returns:
        The span of the rest and of earlier rows, and the times of the first rows as in `Basis`.
    """
    if dataset.time_column is None:
        return None, None
    latest = dt.datetime.now(dt.UTC) + dataset.tolerance
    judged = judge_times(times, latest, dataset.longest_gap, basis.span_ns)
    far, span, early = judged.far, judged.span, basis.early_ns
    if span is not None and (early is not None or basis.span_ns is None):
        is_plausible = ~np.isnat(times) & ~judged.late & ~far
        values = times.astype("datetime64[ns]").astype(np.int64)
        settled = settle(early or (), values[is_plausible], dataset.longest_gap)
        early = None if settled is None else settled.early
        if settled is not None:
            span = (max(span[0], settled.first), span[1])
            far = far | (is_plausible & (values < settled.first))
    faults.add(f"{dataset.time_column}: more than future_tolerance {dataset.future_tolerance} after now", judged.late)
    faults.add(far_reason(dataset), far)
    return span, early


def _displaced(before: Basis, after: Basis, dataset: DatasetConfig) -> frozenset[int]:
    """Return the times of the first rows, noted before, that lie before the span now, or off the grid."""
    if before.early_ns is None or after.span_ns is None:
        return frozenset()
    early = np.unique(np.asarray(before.early_ns, dtype=np.int64))
    is_out = early < after.span_ns[0]
    if dataset.kind == "timeseries":
        is_out |= off_grid(_moments(early), dataset.calendar, after.phase_ns)
    return frozenset(early[is_out].tolist())


def _moments(nanoseconds: Sequence[int] | Int64) -> npt.NDArray[np.datetime64]:
    return np.asarray(nanoseconds, dtype=np.int64).astype("datetime64[ns]")


def _add_duplicates(canonical: pd.DataFrame, places: Int64, dataset: DatasetConfig, faults: Faults) -> None:
    """Note duplicates among the rows that are good so far, so that a bad first row does not displace a good copy."""
    found = find_duplicates(canonical[~faults.is_bad], list(dataset.columns))
    faults.add_rows(COPY, found.exact)
    texts = [f"conflicting duplicate of row {places[row]}" for row in found.conflicts_with]
    faults.add_rows("conflicting duplicate", found.conflicting, texts)


def _canonical(
    good: pd.DataFrame, dataset: DatasetConfig, *, keep_last: bool
) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    rows = good.sort_values([ENTITY, TIMESTAMP], kind="stable")
    if keep_last:
        rows = rows.drop_duplicates([ENTITY, TIMESTAMP], keep="last")
    numbers = rows.index.to_numpy(dtype=np.int64)
    rows = rows.reset_index(drop=True)
    rows[TIMESTAMP] = rows[TIMESTAMP].dt.tz_localize("UTC")
    return rows.astype(dict.fromkeys(dataset.float_columns, np.float32)), numbers


def _examples(frame: pd.DataFrame, places: Int64, faults: Faults) -> tuple[str, ...]:
    bad = np.flatnonzero(faults.is_bad & ~faults.having(COPY))[:EXAMPLES]
    own = frame.drop(columns=list(FILE_AND_LINE), errors="ignore")
    where = [""] * len(bad)
    if FILE in frame and LINE in frame:
        where = [f" in {frame[FILE].iloc[row]}, line {frame[LINE].iloc[row]}" for row in bad]
    return tuple(
        f"row {places[row]}: {reason}: {own.iloc[row].to_dict()}{place}"
        for place, row, reason in zip(where, bad, faults.reasons(bad), strict=True)
    )


def _quarantine(frame: pd.DataFrame, places: Int64, faults: Faults) -> pd.DataFrame:
    bad = np.flatnonzero(faults.is_bad)
    columns: dict[str, Any] = {ROW: places[bad], REASON: np.array(faults.reasons(bad), dtype=object)}
    if FILE in frame and LINE in frame:
        columns[FILE_AND_LINE[FILE]] = _text(frame[FILE].iloc[bad])
        columns[FILE_AND_LINE[LINE]] = frame[LINE].to_numpy(dtype=np.int64)[bad]
    taken = tuple(columns)
    for name in frame.columns:
        if name not in FILE_AND_LINE:
            own = f"{name}_original" if name in taken else str(name)
            columns[own] = _text(frame[name].iloc[bad])
    return pd.DataFrame(columns)


def _text(values: pd.Series) -> npt.NDArray[np.object_]:
    missing = values.isna()
    return np.array([None if gone else str(cell) for cell, gone in zip(values, missing, strict=True)], dtype=object)
