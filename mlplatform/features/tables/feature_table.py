"""The feature table behind the feature store, kept up to date with the raw table, and the newest window per entity.

The feature table holds one row per entity and grid step, so a missing measurement is a row of nulls and can never be
answered with an older value. It lies in a snapshot folder, one Parquet file per period, beside `windows.parquet` with
one row per entity whose features are arrays: what the online store serves in a single read. An update writes the
periods whose raw rows changed, or that an entity newly reaches into, and moves the windows of those entities on.

An entity that its source has removed keeps its rows and has no newest window; since when it is gone is noted beside
them.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import Calendar
from mlplatform.config import ENTITY, DatasetConfig, Frozen
from mlplatform.data import FIRST, LAST, SPANS_FILE, gone_at, open_raw, read_removals, write_removals
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.tables.grid import affected_periods, period_table
from mlplatform.features.tables.journal import Replaced, note_rows, note_spans, rows_at, spans_at
from mlplatform.features.tables.raw_rows import RawRows, StoredRows
from mlplatform.features.tables.window_table import WINDOWS_FILE, update_windows
from mlplatform.settings import Settings
from mlplatform.snapshots import ROWS_FOLDER, Snapshot, Update, open_snapshot, table_lock, update_table

FORMAT = 1


@dataclass(frozen=True)
class TableReport:
    """The feature table after an update.

    Attributes:
        rows: rows of the table, gaps included.
        entities: number of entities.
        start, end: first and last event time, in UTC.
        gap_rows: rows for grid steps without a measurement.
        path: the folder of the periods' files.
        schema: column types by name.
        table_id: drawn when the table is built from nothing or loses rows.
        revision: counts the updates that changed the table.
        periods_written: periods that this update wrote.
        windows_changed: entities whose newest window this update changed; 0 for tabular data.
    """

    rows: int
    entities: int
    start: pd.Timestamp
    end: pd.Timestamp
    gap_rows: int
    path: Path
    schema: dict[str, str]
    table_id: str
    revision: int
    periods_written: tuple[str, ...]
    windows_changed: int


class TableState(Frozen):
    """The bookkeeping of a feature table.

    Attributes:
        shape: the part of the dataset's configuration that decides how the table looks.
        table_id: drawn when the table is built from nothing or loses rows; revisions of different ids cannot be
            compared.
        periods: rows per period.
        raw: per period, the digest of the raw rows it was made from; periods of nothing but gaps are not there.
        raw_rows: rows that are not gaps.
    """

    format: int = FORMAT
    shape: dict[str, Any]
    table_id: str
    revision: int
    periods: dict[str, int]
    raw: dict[str, str]
    raw_rows: int


def table_link(dataset: DatasetConfig, settings: Settings) -> Path:
    """Return where the feature table of a dataset is: a link to its current snapshot."""
    return settings.features_dir / dataset.name / "table"


def features_path(dataset: DatasetConfig, settings: Settings) -> Path:
    """Return the folder of the feature table's files."""
    return table_link(dataset, settings) / ROWS_FOLDER


def windows_path(dataset: DatasetConfig, settings: Settings) -> Path:
    """Return where the newest windows of a dataset are."""
    return table_link(dataset, settings) / WINDOWS_FILE


def require_table(path: Path, dataset: DatasetConfig) -> Path:
    """Return `path`, a part of the feature table, if it is there.

    Raises:
        FeatureStoreError: if it is not; the message names the step that makes it.
    """
    if not path.exists():
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: {path} does not exist; materialise {dataset.name}/feature_table first"
        )
    return path


def update_feature_table(dataset: DatasetConfig, settings: Settings) -> TableReport:
    """Bring the feature table and the windows of a dataset up to date with its raw table.

    Every entity of a time series is laid on the full grid between its first and last row; a tabular dataset is taken
    as it is. Files are ordered by entity and time, numbers are float32, and empty text counts as missing.

    Raises:
        DataError: if there is no raw table, or it has other columns than the dataset now.
        FeatureStoreError: if the raw table has no rows.
    """
    return update_from(StoredRows(dataset, settings), dataset, settings)


def replaced_rows(
    dataset: DatasetConfig,
    settings: Settings,
    ids: npt.NDArray[np.generic],
    moment: pd.Timestamp,
    start: pd.Timestamp,
    end: pd.Timestamp,
) -> Replaced | None:
    """Return the rows of entities from `start` to `end` that stood otherwise at a moment; `None` without any."""
    return rows_at(table_link(dataset, settings).resolve(), ids, moment, start, end)


def is_behind(dataset: DatasetConfig, settings: Settings) -> bool:
    """Return whether the raw table has rows that the feature table was not made from."""
    raw, base = open_raw(dataset, settings), open_snapshot(table_link(dataset, settings))
    if raw is None or not raw.state.periods:
        return False
    state = _comparable_state(base, dataset)
    if base is None or state is None or state.raw != raw.digests:
        return True
    return not read_removals(base.folder).equals(raw.removals)


def current_removals(dataset: DatasetConfig, settings: Settings, moment: pd.Timestamp | None = None) -> pd.DataFrame:
    """Return the removals of entities by their source that hold now, or held at a moment; see `data.read_removals`."""
    return gone_at(read_removals(table_link(dataset, settings).resolve()), moment)


def entity_ranges(dataset: DatasetConfig, settings: Settings, known_at: pd.Timestamp | None = None) -> pd.DataFrame:
    """Return `entity_id`, `start` and `end` (UTC) of every entity in the feature table, sorted by entity.

    Entities that their source has removed are among them.

    Parameters:
        known_at: a moment; the entities and their ends are then those that the table had at it.

    Raises:
        FeatureStoreError: if there is no feature table.
    """
    path = require_table(table_link(dataset, settings) / SPANS_FILE, dataset).resolve()
    spans = pd.read_parquet(path)
    if known_at is not None:
        spans = spans_at(path.parent, spans, known_at)
    times = {new: pd.to_datetime(spans[old], utc=True) for new, old in (("start", FIRST), ("end", LAST))}
    return pd.DataFrame({ENTITY: spans[ENTITY], **times})


def present_ranges(dataset: DatasetConfig, settings: Settings, known_at: pd.Timestamp | None = None) -> pd.DataFrame:
    """Return `entity_ranges` of the entities that their source has not removed, by now or by the moment `known_at`."""
    ranges = entity_ranges(dataset, settings, known_at)
    return ranges[~ranges[ENTITY].isin(current_removals(dataset, settings, known_at)[ENTITY])]


def table_phase(dataset: DatasetConfig, settings: Settings) -> int | None:
    """Return the phase of the grid that all entities of the feature table are on, as the calendar counts phases.

    `None` if there is no table, or its entities are on different grids.
    """
    spans = table_link(dataset, settings).resolve() / SPANS_FILE
    return _phase_of(spans, dataset.calendar) if spans.exists() else None


def table_span(dataset: DatasetConfig, settings: Settings) -> tuple[int, int] | None:
    """Return the first and last time of the feature table, in nanoseconds since 1970 UTC; `None` if there is none."""
    spans = table_link(dataset, settings).resolve() / SPANS_FILE
    return _span_of(spans) if spans.exists() else None


@functools.lru_cache(maxsize=64)
def _span_of(spans: Path) -> tuple[int, int] | None:
    """Return the first and last time of a snapshot's spans; a snapshot never changes."""
    times = pd.read_parquet(spans, columns=[FIRST, LAST])
    return (int(times[FIRST].min()), int(times[LAST].max())) if len(times) else None


@functools.lru_cache(maxsize=64)
def _phase_of(spans: Path, calendar: Calendar) -> int | None:
    """Return the phase of a snapshot's spans; a snapshot never changes."""
    phases = calendar.phases(pd.read_parquet(spans, columns=[LAST])[LAST].to_numpy())
    return int(phases[0]) if len(phases) and (phases == phases[0]).all() else None


def update_from(raw: RawRows, dataset: DatasetConfig, settings: Settings) -> TableReport:
    """Bring the feature table and the windows of a dataset up to date with raw rows; see `update_feature_table`."""
    link = table_link(dataset, settings)
    with table_lock(link):
        base = open_snapshot(link)
        before = _comparable_state(base, dataset)
        base = base if before is not None else None
        spans_before = pd.read_parquet(base.folder / SPANS_FILE) if base else raw.spans.iloc[:0]
        if base and spans_before[ENTITY].dtype != raw.spans[ENTITY].dtype:
            # Ids have become text, or numbers: no entity of before is one of now.
            base, before, spans_before = None, None, raw.spans.iloc[:0]
        changed = affected_periods(raw.digests, before.raw if before else {}, raw.spans, spans_before, dataset)
        removals_before = read_removals(base.folder) if base else read_removals(Path())
        if before is not None and not changed and removals_before.equals(raw.removals):
            return _report(link, before, raw.spans, (), 0)
        windows_changed = 0
        with update_table(link, base) as update:
            until = pd.Timestamp.now(tz="UTC")
            state = _write_rows(update, raw, changed, before, spans_before, until, dataset)
            if before is not None:
                note_spans(update, spans_before, raw.spans, until)
            if dataset.kind == "timeseries":
                previous = base.folder / WINDOWS_FILE if base else None
                there, there_before = _present(raw.spans, raw.removals), _present(spans_before, removals_before)
                windows_changed = update_windows(
                    update, previous, changed, there, there_before, dataset, state.table_id, state.revision
                )
            write_removals(update, raw.removals, text_ids=raw.spans[ENTITY].dtype == object)
            update.write_state(state.model_dump(mode="json"))
        return _report(link, state, raw.spans, changed, windows_changed)


def _comparable_state(base: Snapshot | None, dataset: DatasetConfig) -> TableState | None:
    """Return the state of a table that an update can start from."""
    if base is None or base.state.get("format") != FORMAT or base.state.get("shape") != _shape(dataset):
        return None
    return TableState.model_validate(base.state)


def _shape(dataset: DatasetConfig) -> dict[str, Any]:
    return {
        "kind": dataset.kind,
        "frequency": dataset.frequency if dataset.kind != "timeseries" else dataset.calendar.frequency,
        "period": dataset.period,
        "window_steps": dataset.window_steps,
        "columns": {name: column.type for name, column in dataset.columns.items()},
        # What came later stands there only if it says something, so that tables of before agree.
        **dataset.model_dump(mode="json", include={"timezone", "weekmask", "holidays"}),
    }


def _present(spans: pd.DataFrame, removals: pd.DataFrame) -> pd.DataFrame:
    return spans[~spans[ENTITY].isin(gone_at(removals)[ENTITY])]


def _lost_rows(spans: pd.DataFrame, before: pd.DataFrame) -> bool:
    """Return whether an entity is gone or its history became shorter."""
    both = before.merge(spans, on=ENTITY, how="left", suffixes=("_before", ""))
    # A missing span compares as false.
    return not ((both[FIRST] <= both[f"{FIRST}_before"]) & (both[LAST] >= both[f"{LAST}_before"])).all()


def _write_rows(
    update: Update,
    raw: RawRows,
    changed: Sequence[str],
    before: TableState | None,
    spans_before: pd.DataFrame,
    until: pd.Timestamp,
    dataset: DatasetConfig,
) -> TableState:
    """Write the changed periods and the spans, and return the new state.

    A table that lost rows counts as another one: the online store, which keeps steps that are newer than the table's,
    must be filled anew.

    Parameters:
        until: when what was there before ends to stand.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    periods = dict(before.periods) if before else {}
    for name in changed:
        rows = raw.read(name) if name in raw.digests else None
        table = period_table(rows, name, raw.spans, dataset)
        if before is not None:
            path = update.path(name)
            stood = pq.read_table(path, partitioning=None) if path.exists() else table.schema.empty_table()
            note_rows(update, name, stood, table, spans_before, until, dataset)
        update.write(name, table)
        periods[name] = table.num_rows
    update.write_file(SPANS_FILE, pa.Table.from_pandas(raw.spans, preserve_index=False))
    return TableState(
        shape=_shape(dataset),
        table_id=before.table_id if before and not _lost_rows(raw.spans, spans_before) else uuid.uuid4().hex,
        revision=(before.revision if before else 0) + 1,
        periods={name: count for name, count in sorted(periods.items()) if count},
        raw=dict(raw.digests),
        raw_rows=raw.count,
    )


def _report(
    link: Path, state: TableState, spans: pd.DataFrame, changed: Sequence[str], windows_changed: int
) -> TableReport:
    import pyarrow.parquet as pq

    folder = link / ROWS_FOLDER
    rows = sum(state.periods.values())
    return TableReport(
        rows=rows,
        entities=len(spans),
        start=pd.Timestamp(int(spans[FIRST].min()), tz="UTC"),
        end=pd.Timestamp(int(spans[LAST].max()), tz="UTC"),
        gap_rows=rows - state.raw_rows,
        path=folder,
        schema={field.name: str(field.type) for field in pq.read_schema(next(folder.glob("*.parquet")))},
        table_id=state.table_id,
        revision=state.revision,
        periods_written=tuple(changed),
        windows_changed=windows_changed,
    )
