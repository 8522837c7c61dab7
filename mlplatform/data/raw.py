"""Ingest: from a source into the raw table of a dataset, in one step or not at all.

A source that can tell what is new is asked for it and its rows are merged in by entity and time, the newest winning;
any other source is read whole and replaces the table. Rows, quarantine and the source's position change in one swing of
a link, so wherever the process is stopped, every row is there exactly once after the next run.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.frequency import keep_frequency, settle_frequency
from mlplatform.data.ingest_report import IngestReport, describe
from mlplatform.data.intake import Intake
from mlplatform.data.news import note_fingerprint, take_fingerprint
from mlplatform.data.raw_table import (
    QUARANTINE_FOLDER,
    SPANS_FILE,
    ColumnStats,
    PeriodState,
    RawState,
    RawTable,
    entity_spans,
    merge_spans,
    open_raw,
    raw_link,
    raw_schema,
    raw_shape,
    settled_ids,
)
from mlplatform.data.removals import gone_at, noted, read_removals, write_removals
from mlplatform.data.sources import IncrementalSource, Source, file_sha256, open_source, tells_news
from mlplatform.data.validation import RESPELT, ROW, Basis
from mlplatform.settings import Settings
from mlplatform.snapshots import Update, table_lock, update_table

# So many new rows are committed at a time; what a killed process has to read again is less than that.
COMMIT_ROWS = 1_000_000

Ids = npt.NDArray[Any]

logger = logging.getLogger(__name__)


def ingest(
    dataset: DatasetConfig,
    settings: Settings,
    *,
    full: bool = False,
    on_rows: Callable[[pd.DataFrame], None] | None = None,
    on_removed: Callable[[Ids], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> IngestReport:
    """Read what a source has, validate it and store it.

    Whatever fails, and wherever the process is stopped, the table stays as it was after the last commit. An incremental
    source without anything new, or with nothing at all, is no error.

    Parameters:
        full: read an incremental source from its beginning and replace the table.
        on_rows: called with the good rows of every batch before they are committed, so that after a crash it sees them
            again; what it raises ends the ingest.
        on_removed: called after it with the ids of the entities that are gone by the batch's last word on them.
        should_stop: asked after every batch of an incremental source; if true, what was read is committed and the
            ingest ends.

    Raises:
        ConfigError: if no source reads the dataset's URI, or the source refuses its options.
        DataError: if the source is not what it claims to be, too many rows are bad, or the table was made with another
            configuration than an increment can be added to.
    """
    source = open_source(dataset)
    is_new = open_raw(dataset, settings) is None
    asked, dataset = dataset, settle_frequency(dataset, source, settings, anew=full or is_new)
    link = raw_link(dataset, settings)
    with table_lock(link), _own_folder(link.parent / f"{link.name}.intake") as folder:
        writer = _Writer(dataset, settings, folder, on_rows or _ignore, on_removed or _ignore)
        # Taken before reading, so that whatever arrives meanwhile is news.
        fingerprint = take_fingerprint(source, dataset, settings)
        if tells_news(source, dataset, settings):
            writer.add_new(source, full, should_stop or _never)
        else:
            writer.replace_all(source)
        if not (should_stop or _never)():
            note_fingerprint(fingerprint, dataset, settings)
        keep_frequency(asked, dataset, settings)
        report = writer.report()
    logger.info("Dataset %s: %d rows stored, %d quarantined", dataset.name, report.rows, report.quarantined)
    return report


class _Writer:
    """One ingest into the raw table of a dataset. The caller holds the table's lock."""

    def __init__(
        self,
        dataset: DatasetConfig,
        settings: Settings,
        folder: Path,
        on_rows: Callable[[pd.DataFrame], None],
        on_removed: Callable[[Ids], None],
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self.folder = folder
        self.on_rows = on_rows
        self.on_removed = on_removed
        self.rows_read = 0
        self.written: set[str] = set()

    def replace_all(self, source: Source[Any]) -> None:
        """Read a source whole and put its rows in the place of the stored ones."""
        basis = self._first_basis()
        intake = self._read_whole(source, basis)
        is_open = basis.text_ids is None and self.dataset.entity_type == "auto"
        if is_open and f"{self.dataset.entity_column}: {RESPELT}" in intake.tally.reasons:
            # A later batch has ids such as 007, which the first one, with none of them, took for numbers.
            intake = self._read_whole(source, Basis(text_ids=True))
        self._commit(intake, None, None, lambda: intake.tally.refuse_bad_source(self.dataset))

    def _read_whole(self, source: Source[Any], basis: Basis) -> Intake:
        intake = Intake(self.dataset, self.folder, basis, self._gone(basis), newest_wins=False)
        for frame in source.read_batches(self.dataset, self.settings):
            self._take(intake, frame)
        return intake

    def _take(self, intake: Intake, frame: pd.DataFrame) -> None:
        batch = intake.add(frame)
        self.on_rows(batch.rows)
        if len(batch.removed):
            self.on_removed(batch.removed)

    def add_new(self, source: IncrementalSource[Any], full: bool, should_stop: Callable[[], bool]) -> None:
        """Merge what is new since the stored position; `full`: everything, in the place of what is stored."""
        base = None if full else self._base()
        position = base.state.position if base else None
        intake = self._intake(base)
        for batch in source.read_since(self.dataset, self.settings, position):
            self._take(intake, batch.frame)
            position = batch.position
            is_due = source.is_stream or intake.tally.rows_read >= COMMIT_ROWS or should_stop()
            if is_due and not full:
                base = self._commit_new(source, intake, base, position)
                intake = self._intake(base)
                if should_stop():
                    return
        if intake.tally.rows_read:
            self._commit_new(source, intake, base, position)
        elif full and open_raw(self.dataset, self.settings) is not None:
            raise DataError(
                f"dataset {self.dataset.name!r}: {self.dataset.source.uri!r} has no rows at all, so the stored "
                "rows stay. Check the source, or ingest without full"
            )

    def _commit_new(
        self, source: IncrementalSource[Any], intake: Intake, base: RawTable | None, position: dict[str, Any] | None
    ) -> RawTable | None:
        def refuse_bad_rows() -> None:
            if not source.is_stream:
                intake.tally.refuse_bad_increment(self.dataset, base.state.rows_read if base else 0)

        self._commit(intake, base, position, refuse_bad_rows)
        if position is not None:
            source.acknowledge(self.dataset, self.settings, position)
        return open_raw(self.dataset, self.settings)

    def report(self) -> IngestReport:
        """Describe what is stored now."""
        table = open_raw(self.dataset, self.settings)
        return describe(table, self.dataset, self.settings, self.rows_read, tuple(sorted(self.written)))

    def _base(self) -> RawTable | None:
        base = open_raw(self.dataset, self.settings)
        if base is None:
            return None
        shape = raw_shape(self.dataset)
        changed = [key for key in {**base.state.shape, **shape} if shape.get(key) != base.state.shape.get(key)]
        if changed:
            raise DataError(
                f"dataset {self.dataset.name!r}: its {', '.join(changed)} changed since its rows were stored, so "
                "new rows cannot be added to them. Put the configuration back, give the dataset another "
                f"name, or read the source from its beginning: launch ingest_{self.dataset.name} with full: true, "
                "which replaces what is stored"
            )
        return base

    def _intake(self, base: RawTable | None) -> Intake:
        basis = base.state.basis if base else self._first_basis()
        return Intake(self.dataset, self.folder, basis, self._gone(basis), newest_wins=True)

    def _first_basis(self) -> Basis:
        return Basis(text_ids=settled_ids(self.dataset, self.settings))

    def _removals(self, basis: Basis) -> pd.DataFrame | None:
        """Return the stored removals, if their ids are of the same kind as those of a basis, else `None`."""
        table = open_raw(self.dataset, self.settings)
        return table.removals if table and table.state.basis.text_ids in (basis.text_ids, None) else None

    def _gone(self, basis: Basis) -> list[Any]:
        removals = self._removals(basis)
        return [] if removals is None else gone_at(removals)[ENTITY].tolist()

    def _commit(
        self,
        intake: Intake,
        base: RawTable | None,
        position: dict[str, Any] | None,
        refuse_bad_rows: Callable[[], None],
    ) -> None:
        self.rows_read += intake.tally.rows_read
        refuse_bad_rows()
        with update_table(raw_link(self.dataset, self.settings), base.snapshot if base else None) as update:
            periods = dict(base.state.periods) if base else {}
            spans = self._without_displaced(update, intake, base, periods) if base else []
            for name in intake.periods:
                rows = intake.take(name)
                spans.append(entity_spans(rows))
                merged = _upsert(pd.read_parquet(update.path(name)), rows) if name in periods else rows
                if merged is not None and len(merged):
                    periods[name] = self._write_period(update, name, merged, intake.basis)
                    self.written.add(name)
            refuse_bad_rows()  # rows that repeat one of an earlier batch have turned up since
            self._write_rest(update, intake, base, position, periods, spans)

    def _without_displaced(
        self, update: Update, intake: Intake, base: RawTable, periods: dict[str, PeriodState]
    ) -> list[pd.DataFrame]:
        """Take stored rows out that later ones have displaced, and return the spans of the others."""
        changed = [name for name in intake.displaced_periods if name in periods]
        if not changed:
            return [base.spans]
        for name in changed:
            kept = intake.without_displaced(base.read(name))
            self.written.add(name)
            if len(kept):
                periods[name] = self._write_period(update, name, kept, intake.basis)
            else:
                update.remove(name)
                del periods[name]
        # They are among the first rows, so there are few others.
        return [entity_spans(pd.read_parquet(update.path(name))) for name in periods]

    def _write_period(self, update: Update, name: str, rows: pd.DataFrame, basis: Basis) -> PeriodState:
        import pyarrow as pa

        table = pa.Table.from_pandas(rows, schema=raw_schema(self.dataset, basis), preserve_index=False)
        path = update.write(name, table)
        columns = {column: _stats(table.column(column)) for column in self.dataset.columns}
        return PeriodState(rows=table.num_rows, sha256=file_sha256(path), columns=columns)

    def _write_rest(
        self,
        update: Update,
        intake: Intake,
        base: RawTable | None,
        position: dict[str, Any] | None,
        periods: dict[str, PeriodState],
        spans: list[pd.DataFrame],
    ) -> None:
        import pyarrow as pa

        before, tally = base.state if base else None, intake.tally
        ingests = (before.ingests if before else 0) + 1
        if spans:
            update.write_file(SPANS_FILE, pa.Table.from_pandas(merge_spans(spans), preserve_index=False))
        removed = self._write_removals(update, intake, spans)
        if intake.quarantine:
            table = _quarantine_table(pd.concat(intake.quarantine, ignore_index=True))
            update.write_file(f"{QUARANTINE_FOLDER}/{ingests:08d}.parquet", table)
        state = RawState(
            shape=raw_shape(self.dataset),
            basis=intake.basis,
            position=position,
            ingests=ingests,
            rows_read=tally.rows_read + (before.rows_read if before else 0),
            quarantined=tally.quarantined + (before.quarantined if before else 0),
            out_of_order_rows=tally.out_of_order_rows + (before.out_of_order_rows if before else 0),
            reasons=dict(tally.reasons + Counter(before.reasons if before else {})),
            periods=periods,
            removed=removed,
        )
        update.write_state(state.model_dump(mode="json"))

    def _write_removals(self, update: Update, intake: Intake, spans: list[pd.DataFrame]) -> int:
        """Note who left and who came back, and return how many are gone. Who never had a row is nobody to miss."""
        removals = self._removals(intake.basis)
        if removals is None:
            removals = read_removals(Path())
        if not intake.is_gone and removals.empty:
            return 0
        known = set(pd.concat(spans)[ENTITY].tolist()) if spans else set()
        is_gone = {entity: gone for entity, gone in intake.is_gone.items() if entity in known}
        removals = noted(removals, is_gone, pd.Timestamp.now(tz="UTC").floor("us"))
        write_removals(update, removals, text_ids=bool(intake.basis.text_ids))
        return len(gone_at(removals))


@contextlib.contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that is deleted afterwards; a killed process may have left an older one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ignore(_batch: object) -> None:
    """Do nothing with what a batch brings."""


def _never() -> bool:
    return False


def _upsert(stored: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return stored rows with new ones merged in by entity and time, or `None` if they say nothing new."""
    both = pd.concat([stored, rows], ignore_index=True)
    # A stable sort leaves the stored row of equal keys first.
    both = both.sort_values([ENTITY, TIMESTAMP], kind="stable", ignore_index=True)
    merged = both.drop_duplicates([ENTITY, TIMESTAMP], keep="last", ignore_index=True)
    return None if merged.equals(stored) else merged


def _stats(column: Any) -> ColumnStats:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_floating(column.type):
        return ColumnStats(nulls=column.null_count, categories=tuple(sorted(column.drop_null().unique().to_pylist())))
    # float64, because a sum over many float32 values loses digits.
    exact = column.cast(pa.float64())
    limits = pc.min_max(exact).as_py()
    return ColumnStats(nulls=column.null_count, **limits, sum=pc.sum(exact).as_py() or 0.0)


def _quarantine_table(quarantine: pd.DataFrame) -> Any:
    import pyarrow as pa

    # Numbers are those of rows and lines; what the source had in its own columns is text.
    are_numbers = {name: pd.api.types.is_integer_dtype(column) for name, column in quarantine.items()}
    schema = pa.schema([(name, pa.int64() if is_number else pa.string()) for name, is_number in are_numbers.items()])
    return pa.Table.from_pandas(quarantine.sort_values(ROW, kind="stable"), schema=schema, preserve_index=False)
