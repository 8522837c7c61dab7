"""What a feature table held before: rows that were replaced, and spans of entities, each with until when it stood.

An update notes what it changes beside the rows, in the same snapshot, so that a reader can ask what was known at a
moment. The journal begins with the first load of the table: nobody recorded when those rows had arrived, so they count
as known from their own times on. Appended rows cost one span per entity and update, corrections their old values.

    known/rows/<period>.parquet    rows that an update replaced, removed, or put between others
    known/spans/<day>.parquet      first and last time of entities, by the day of the update that changed them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data import FIRST, LAST
from mlplatform.datamodule import Int64, column_array
from mlplatform.features.tables.windows import differing
from mlplatform.snapshots import Update

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "known"
ROWS, SPANS = f"{FOLDER}/rows", f"{FOLDER}/spans"
UNTIL, WAS_THERE = "until", "was_there"


@dataclass(frozen=True)
class Replaced:
    """Rows as they stood at a moment, where they stand otherwise now.

    Attributes:
        rows: `entity_id`, `event_timestamp` (UTC) and the dataset's columns, one row per entity and time; without
            values where there was no row.
        was_there: of shape (rows,): whether there was one.
    """

    rows: pd.DataFrame
    was_there: npt.NDArray[np.bool_]


def note_rows(
    update: Update,
    period: str,
    before: pa.Table,
    after: pa.Table,
    spans_before: pd.DataFrame,
    until: pd.Timestamp,
    dataset: DatasetConfig,
) -> None:
    """Note the rows of a period that an update replaces, removes, or puts between others.

    Parameters:
        before, after: the rows of the period, ordered by entity and time.
        spans_before: `entity_id`, `first` and `last` before the update.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    old_keys, new_keys = _keys(before, after)
    places = np.minimum(np.searchsorted(new_keys, old_keys), max(len(new_keys) - 1, 0))
    stays = (new_keys[places] == old_keys) if len(new_keys) else np.zeros(len(old_keys), dtype=bool)
    is_other = ~stays
    both, their = np.flatnonzero(stays), places[stays]
    for name in dataset.columns:
        old, new = (column_array(table.column(name).to_pandas()) for table in (before, after))
        is_other[both] |= differing(old[both], new[their])
    put = after.filter(pa.array(_between(after, ~np.isin(new_keys, old_keys), spans_before)))
    replaced = before.filter(pa.array(is_other))
    if not replaced.num_rows + put.num_rows:
        return
    nothing = {name: pa.nulls(put.num_rows, put.schema.field(name).type) for name in dataset.columns}
    put = pa.table({ENTITY: put.column(ENTITY), TIMESTAMP: put.column(TIMESTAMP), **nothing})
    noted = [
        table.append_column(WAS_THERE, pa.array(np.full(table.num_rows, is_there))).append_column(
            UNTIL, pa.array([until] * table.num_rows, pa.timestamp("us", tz="UTC"))
        )
        for table, is_there in ((replaced, True), (put, False))
    ]
    table = pa.concat_tables(noted)
    _append(update, Path(ROWS) / f"{period}.parquet", table.take(pc.sort_indices(table, [(ENTITY, "ascending")])))


def note_spans(update: Update, before: pd.DataFrame, after: pd.DataFrame, until: pd.Timestamp) -> None:
    """Note the spans of the entities whose first or last time an update changes; new ones had none."""
    import pyarrow as pa

    both = before.merge(after, on=ENTITY, how="outer", suffixes=("_before", ""))
    is_other = (both[f"{FIRST}_before"] != both[FIRST]) | (both[f"{LAST}_before"] != both[LAST])
    changed = both.loc[is_other.to_numpy(), [ENTITY, f"{FIRST}_before", f"{LAST}_before"]]
    if changed.empty:
        return
    had_none = changed[f"{FIRST}_before"].isna().to_numpy()
    # A merge makes floats of times where some are missing, and those lose nanoseconds.
    spans = before.set_index(ENTITY).reindex(changed[ENTITY], fill_value=0)
    table = pa.table(
        {
            ENTITY: pa.array(changed[ENTITY].to_numpy()),
            FIRST: pa.array(spans[FIRST].to_numpy(dtype=np.int64), pa.int64(), mask=had_none),
            LAST: pa.array(spans[LAST].to_numpy(dtype=np.int64), pa.int64(), mask=had_none),
            UNTIL: pa.array([until] * len(changed), pa.timestamp("us", tz="UTC")),
        }
    )
    _append(update, Path(SPANS) / f"{until:%Y-%m-%d}.parquet", table)


def spans_at(folder: Path, spans: pd.DataFrame, moment: pd.Timestamp) -> pd.DataFrame:
    """Return `entity_id`, `first` and `last` of the entities as they were known at a moment, by entity.

    Parameters:
        folder: of the table's snapshot.
        spans: as they are now.
    """
    noted = _read(sorted((folder / SPANS).glob("*.parquet")), moment)
    if noted is None:
        return spans
    noted = noted.sort_by([(UNTIL, "ascending")])
    frame = pd.DataFrame(
        {
            ENTITY: noted.column(ENTITY).to_pandas(),
            FIRST: noted.column(FIRST).fill_null(0).to_numpy(),
            LAST: noted.column(LAST).fill_null(0).to_numpy(),
            "had": noted.column(FIRST).is_valid().to_numpy(),
        }
    )
    then = frame.drop_duplicates(ENTITY, keep="first")
    rest = spans[~spans[ENTITY].isin(then[ENTITY])]
    found = pd.concat([rest, then.loc[then["had"], [ENTITY, FIRST, LAST]]], ignore_index=True)
    return found.sort_values(ENTITY, ignore_index=True)


def rows_at(
    folder: Path,
    ids: npt.NDArray[np.generic],
    moment: pd.Timestamp,
    start: pd.Timestamp,
    end: pd.Timestamp,
) -> Replaced | None:
    """Return the rows of entities from `start` to `end` that stood otherwise at a moment; `None` without any.

    Parameters:
        folder: of the table's snapshot.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _read(sorted((folder / ROWS).glob("*.parquet")), moment)
    if table is None:
        return None
    times, entities = table.column(TIMESTAMP), table.column(ENTITY)
    near = pc.and_(
        pc.greater_equal(times, pa.scalar(start, times.type)), pc.less_equal(times, pa.scalar(end, times.type))
    )
    wanted = pc.is_in(entities, value_set=pa.array(ids.tolist()).cast(entities.type))
    found = table.filter(pc.and_(near, wanted)).sort_by([(UNTIL, "ascending")]).to_pandas()
    if found.empty:
        return None
    found = found.drop_duplicates([ENTITY, TIMESTAMP], keep="first", ignore_index=True)
    return Replaced(found.drop(columns=[UNTIL, WAS_THERE]), found[WAS_THERE].to_numpy(dtype=bool))


def _keys(before: pa.Table, after: pa.Table) -> tuple[Int64, Int64]:
    """Return a number per row of both tables: equal for the same entity and time, and ascending like the rows."""
    import pyarrow.compute as pc

    ids = [table.column(ENTITY).to_numpy() for table in (before, after)]
    times = [pc.cast(table.column(TIMESTAMP), "int64").to_numpy() for table in (before, after)]
    entities, moments = (pd.Index(np.unique(np.concatenate(parts))) for parts in (ids, times))
    old, new = (
        entities.get_indexer(pd.Index(own)).astype(np.int64) * len(moments) + moments.get_indexer(pd.Index(at))
        for own, at in zip(ids, times, strict=True)
    )
    return old, new


def _between(after: pa.Table, is_new: npt.NDArray[np.bool_], spans: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which new rows lie inside what their entity covered before; the others show in its span."""
    found = is_new.copy()
    rows = np.flatnonzero(is_new)
    ids = pd.Index(after.column(ENTITY).to_numpy()[rows])
    places = pd.Index(spans[ENTITY]).get_indexer(ids)
    times = after.column(TIMESTAMP).to_numpy().astype("datetime64[ns]").astype(np.int64)[rows]
    known = places >= 0
    inside = np.zeros(len(rows), dtype=bool)
    first, last = (spans[name].to_numpy()[places[known]] for name in (FIRST, LAST))
    inside[known] = (times[known] > first) & (times[known] < last)
    found[rows] = inside
    return found


def _append(update: Update, name: Path, table: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = update.folder / name
    if path.exists():
        table = pa.concat_tables([pq.read_table(path, partitioning=None), table])
    update.write_file(name, table)


def _read(paths: list[Path], moment: pd.Timestamp) -> pa.Table | None:
    """Return what stood at a moment and was changed later."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    later: Any = [(UNTIL, ">", pa.scalar(moment, pa.timestamp("us", tz="UTC")))]
    tables = [pq.read_table(path, partitioning=None, filters=later) for path in paths]
    found = [table for table in tables if table.num_rows]
    return pa.concat_tables(found) if found else None
