"""The newest window of every entity, and the one piece of code that merges rows into windows.

The feature table builds its windows with it and the online push moves the stored windows on with it, so both give the
same window from the same rows, however the rows were cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule import Int64, column_array, to_utc_ns
from mlplatform.features.errors import EntityTypeError, FeatureStoreError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

WINDOW_PREFIX = "window_"
# The exact time of a window's last step, in nanoseconds since 1970 UTC. Online stores keep event times in whole
# seconds, and SQLite's go through local time; a feature keeps every digit. The name cannot collide: all others in the
# view start with the prefix.
WINDOW_END = "end_ns"
# Arrays of text cannot hold nulls in Feast, so a missing category is stored in a window as empty text.
MISSING_TEXT = ""
# The table revision at which an entity's window last changed; a column of the window table, not of the Feast view.
REVISION = "revision"

Values = npt.NDArray[np.generic]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Windows:
    """The newest window of every entity.

    Attributes:
        entity_ids: of shape (entities,), ascending and unique; int64, or object holding text.
        ends: of shape (entities,); time of the last step, in nanoseconds since 1970 UTC.
        columns: each of shape (entities, steps); float32 (missing is NaN) or object (missing is `None`).
    """

    entity_ids: Values
    ends: Int64
    columns: dict[str, Values]


@dataclass(frozen=True)
class Merged:
    """What merging rows into windows gave. Every row is counted once.

    Attributes:
        windows: of all entities, old and new.
        changed: of shape (entities,); whether the window differs from before in any bit; true for new entities.
        added: rows behind the end of a window, or of a new entity.
        late: rows that filled a step without values inside a window.
        replaced: rows that gave other values to a step that had some.
        repeated: rows that say nothing new: equal to the stored step, or followed by a row for the same step.
        too_old: rows before the start of the window; dropped.
        off_grid: rows between two steps of the entity's grid; dropped.
    """

    windows: Windows
    changed: Mask
    added: int
    late: int
    replaced: int
    repeated: int
    too_old: int
    off_grid: int


@dataclass(frozen=True)
class _Placed:
    """Where rows belong: of each kept row its number in the frame, its entity and its column in the window."""

    rows: Int64
    entities: Int64
    steps: Int64
    repeated: int
    too_old: int
    off_grid: int


def merge_rows(windows: Windows | None, rows: pd.DataFrame, dataset: DatasetConfig) -> Merged:
    """Merge rows in any order into the windows of their entities.

    A window ends at the newest time of its entity. Steps without a row are missing; a row of missing values is a row,
    so it moves the end and replaces a stored value. Of rows with the same entity and time the last one wins, and it
    wins over what is stored. The grid of a new entity is laid by its first row in the frame.

    Parameters:
        windows: the present windows, or `None`; they are not changed.
        rows: `entity_id`, `event_timestamp` and the dataset's columns. Empty text counts as missing.

    Raises:
        FeatureStoreError: if `rows` lacks a column or has missing ids or times, or the windows do not have the columns
            and the length that the dataset has.
        EntityTypeError: if the ids in `rows` are of another type than those of the windows.
    """
    _check(windows, rows, dataset)
    ids, codes = _row_entities(rows, dataset)
    if windows is None:
        windows = no_windows(ids, dataset)
    if len(rows) and len(windows.entity_ids) and ids.dtype != windows.entity_ids.dtype:
        found, stored = (array.tolist()[0] for array in (ids, windows.entity_ids))
        raise EntityTypeError(
            f"dataset {dataset.name!r}: stored entity ids are like {stored!r}, but a row has {found!r} of type "
            f"{type(found).__name__}"
        )
    all_ids = np.union1d(windows.entity_ids, ids) if len(rows) else windows.entity_ids
    known = np.searchsorted(all_ids, windows.entity_ids)
    entities = np.searchsorted(all_ids, ids)[codes]
    ends, shifts, placed = _place(
        windows, known, entities, to_utc_ns(rows[TIMESTAMP]).astype(np.int64), all_ids, dataset
    )
    is_known = np.zeros(len(all_ids), dtype=bool)
    is_known[known] = True
    inside = is_known[placed.entities] & (placed.steps < dataset.window_steps - shifts[placed.entities])
    differs = np.zeros(len(placed.rows), dtype=bool)
    held = np.zeros(len(placed.rows), dtype=bool)
    columns = {}
    for name, old in windows.columns.items():
        values = as_stored(column_array(rows[name]), name, dataset)[placed.rows]
        moved = _moved(old, known, shifts, len(all_ids))
        stored = moved[placed.entities, placed.steps]
        differs |= differing(stored, values)
        held |= ~_missing(stored)
        moved[placed.entities, placed.steps] = values
        columns[name] = moved
    changed = ~is_known | (shifts > 0)
    changed[placed.entities[differs]] = True
    return Merged(
        windows=Windows(all_ids, ends, columns),
        changed=changed,
        added=int((~inside).sum()),
        late=int((inside & differs & ~held).sum()),
        replaced=int((inside & differs & held).sum()),
        repeated=placed.repeated + int((inside & ~differs).sum()),
        too_old=placed.too_old,
        off_grid=placed.off_grid,
    )


def no_windows(ids: Values, dataset: DatasetConfig) -> Windows:
    """Return the windows of no entity, whose ids would have the type of `ids`."""
    shape = (0, dataset.window_steps)
    columns = {
        name: np.empty(shape, dtype=np.float32 if column.type == "float" else object)
        for name, column in dataset.columns.items()
    }
    return Windows(ids[:0], np.zeros(0, dtype=np.int64), columns)


def choose(windows: Windows, entities: Mask) -> Windows:
    """Return the windows of the entities where the mask, of shape (entities,), is true."""
    columns = {name: values[entities] for name, values in windows.columns.items()}
    return Windows(windows.entity_ids[entities], windows.ends[entities], columns)


def keep_later_steps(windows: Windows, stored: Windows, dataset: DatasetConfig) -> Merged:
    """Return windows moved on by the steps of stored windows that lie behind their ends.

    Up to its end a window is as given, gaps included. A stored window on another grid counts for nothing.

    Parameters:
        windows: what the feature table holds.
        stored: what the online store holds, for some or all of the same entities.

    Returns:
        The windows; `changed` tells where they differ from the stored ones, `added` counts the steps that were kept.
    """
    calendar = dataset.calendar
    rows = np.searchsorted(windows.entity_ids, stored.entity_ids)
    ahead, is_on = calendar.between(windows.ends[rows], stored.ends)
    ahead = np.where(is_on, np.maximum(ahead, 0), 0)
    ends = windows.ends.copy()
    ends[rows] = calendar.shift(ends[rows], ahead)
    differs = ends[rows] != stored.ends
    columns = {}
    for name, values in windows.columns.items():
        kept = np.minimum(ahead, values.shape[1])
        moved = values.copy()
        for count in np.unique(kept[kept > 0]):
            at = np.flatnonzero(kept == count)
            moved[rows[at]] = np.hstack([values[rows[at], count:], stored.columns[name][at, -count:]])
        differs |= differing(moved[rows], stored.columns[name]).any(axis=1)
        columns[name] = moved
    changed = np.ones(len(windows.entity_ids), dtype=bool)
    changed[rows] = differs
    return Merged(Windows(windows.entity_ids, ends, columns), changed, int(ahead.sum()), 0, 0, 0, 0, 0)


def windows_to_table(windows: Windows, dataset: DatasetConfig, revisions: Int64) -> pa.Table:
    """Return windows as the window table: one row per entity, whose features are arrays.

    Parameters:
        revisions: of shape (entities,); the table revision at which each window last changed.
    """
    import pyarrow as pa

    entities = len(windows.entity_ids)
    arrays: dict[str, pa.Array] = {
        ENTITY: pa.array(windows.entity_ids),
        # Microseconds, because DuckDB, Spark and the warehouses have no zoned time stamps of finer resolution.
        TIMESTAMP: pa.array(windows.ends // 1_000, pa.timestamp("us", tz="UTC")),
        WINDOW_END: pa.array(windows.ends),
    }
    offsets = pa.array(np.arange(entities + 1, dtype=np.int32) * dataset.window_steps)
    for name in dataset.columns:
        values = windows.columns[name].ravel()
        if values.dtype == object:
            values = values.copy()
            values[_missing(values)] = MISSING_TEXT
        kind = pa.string() if values.dtype == object else pa.float32()
        arrays[f"{WINDOW_PREFIX}{name}"] = pa.ListArray.from_arrays(offsets, pa.array(values, kind))
    arrays[REVISION] = pa.array(revisions, pa.int64())
    return pa.table(arrays)


def windows_from_table(table: pa.Table, dataset: DatasetConfig) -> tuple[Windows, Int64]:
    """Return the windows of a window table, and the revision at which each last changed.

    Raises:
        FeatureStoreError: if the table lacks a column of the dataset, or its windows have another length.
    """
    import pyarrow as pa

    steps = dataset.window_steps
    missing = [name for name in dataset.columns if f"{WINDOW_PREFIX}{name}" not in table.column_names]
    if missing:
        raise FeatureStoreError(f"dataset {dataset.name!r}: the window table lacks {missing}; write it anew")
    columns: dict[str, Values] = {}
    for name, column in dataset.columns.items():
        lists = table.column(f"{WINDOW_PREFIX}{name}").combine_chunks()
        if len(lists) and set(lists.value_lengths().unique().to_pylist()) != {steps}:
            raise FeatureStoreError(
                f"dataset {dataset.name!r}: the window table does not have {steps} steps of {name!r}; write it anew"
            )
        if (column.type == "float") != pa.types.is_floating(lists.type.value_type):
            raise FeatureStoreError(
                f"dataset {dataset.name!r}: {name!r} is of type {column.type}, but the window table has "
                f"{lists.type.value_type}; write it anew"
            )
        values = lists.flatten().to_numpy(zero_copy_only=False)
        if values.dtype == object:
            values[values == MISSING_TEXT] = None
        columns[name] = values.reshape(len(lists), steps)
    windows = Windows(table.column(ENTITY).to_numpy(), table.column(WINDOW_END).to_numpy(), columns)
    return windows, table.column(REVISION).to_numpy()


def _check(windows: Windows | None, rows: pd.DataFrame, dataset: DatasetConfig) -> None:
    lacking = [name for name in (ENTITY, TIMESTAMP, *dataset.columns) if name not in rows.columns]
    if lacking:
        raise FeatureStoreError(f"dataset {dataset.name!r}: the rows lack {lacking}; they have {list(rows.columns)}")
    empty = [name for name in (ENTITY, TIMESTAMP) if rows[name].isna().any()]
    if empty:
        raise FeatureStoreError(f"dataset {dataset.name!r}: rows without {' and '.join(empty)}; leave them out")
    if windows is None:
        return
    shapes = {name: (len(windows.entity_ids), dataset.window_steps) for name in dataset.columns}
    found = {name: values.shape for name, values in windows.columns.items()}
    if found != shapes:
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: the stored windows have the columns and shapes {found}, but the dataset asks "
            f"for {shapes}; write the window table anew and materialize it"
        )


def _row_entities(rows: pd.DataFrame, dataset: DatasetConfig) -> tuple[Values, Int64]:
    """Return the entities of the rows, ascending, and the position of every row's entity among them."""
    import pandas as pd

    codes, uniques = pd.factorize(rows[ENTITY], sort=True)
    if not len(rows):
        return np.zeros(0, dtype=np.int64), codes
    if pd.api.types.is_integer_dtype(uniques.dtype):
        return np.asarray(uniques, dtype=np.int64), codes
    ids = np.asarray(uniques, dtype=object)
    other = next((entity for entity in ids if not isinstance(entity, str)), None)
    if other is not None:
        raise EntityTypeError(
            f"dataset {dataset.name!r}: entity ids are whole numbers or text, but a row has {other!r} of type "
            f"{type(other).__name__}"
        )
    return ids, codes


def _place(
    windows: Windows, known: Int64, entities: Int64, times: Int64, all_ids: Values, dataset: DatasetConfig
) -> tuple[Int64, Int64, _Placed]:
    """Return the new ends, by how many steps each window moves on, and where every row that counts belongs."""
    import pandas as pd

    length, calendar = dataset.window_steps, dataset.calendar
    anchors = np.empty(len(all_ids), dtype=np.int64)
    anchors[entities[::-1]] = times[::-1]  # of repeated positions numpy keeps the last: the first row of each entity
    anchors[known] = windows.ends
    offsets, on_grid = calendar.between(anchors[entities], times)
    shifts = np.zeros(len(all_ids), dtype=np.int64)
    np.maximum.at(shifts, entities[on_grid], offsets[on_grid])
    steps = length - 1 - shifts[entities] + offsets
    kept = np.flatnonzero(on_grid & (steps >= 0))
    cells = pd.Series(entities[kept] * length + steps[kept])
    last = kept[~cells.duplicated(keep="last").to_numpy()]
    placed = _Placed(
        rows=last,
        entities=entities[last],
        steps=steps[last],
        repeated=len(kept) - len(last),
        too_old=int(on_grid.sum()) - len(kept),
        off_grid=len(times) - int(on_grid.sum()),
    )
    return calendar.shift(anchors, shifts), shifts, placed


def _moved(old: Values, known: Int64, shifts: Int64, entities: int) -> Values:
    """Return the columns of all entities, the old values moved to the left by each entity's shift."""
    steps = old.shape[1]
    missing = None if old.dtype == object else np.float32(np.nan)
    moved = np.full((entities, steps), missing, dtype=old.dtype)
    by = shifts[known]
    # Windows mostly move together, so there are few distinct shifts and each is one block copy.
    for shift in np.unique(by[by < steps]):
        rows = np.flatnonzero(by == shift)
        moved[known[rows], : steps - shift] = old[rows, shift:]
    return moved


def as_stored(values: Values, name: str, dataset: DatasetConfig) -> Values:
    """Return the values of a column as they are stored: one NaN for missing numbers, `None` for missing or empty text.

    Raises:
        FeatureStoreError: if the column holds numbers and a value is text, or the other way round.
    """
    refuse_other_type(values, name, dataset)
    if dataset.columns[name].type == "float":
        numbers = values.astype(np.float32)
        numbers[np.isnan(numbers)] = np.nan
        return numbers
    texts = values.astype(object)
    texts[_missing(values) | (texts == np.array(MISSING_TEXT, dtype=object))] = None
    return texts


def refuse_other_type(values: Values, name: str, dataset: DatasetConfig) -> None:
    """Check that a column of numbers holds no text, and the other way round.

    Raises:
        FeatureStoreError: if it does; the message shows the value.
    """
    is_number = dataset.columns[name].type == "float"
    if is_number and values.dtype != object:
        return
    present = values[~_missing(values)]
    wrong = next((value for value in present.tolist() if isinstance(value, str) == is_number), None)
    if wrong is not None:
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: column {name!r} holds {'numbers' if is_number else 'text'}, but a row has "
            f"{wrong!r} of type {type(wrong).__name__}"
        )


def _missing(values: Values) -> Mask:
    if values.dtype == object:
        return np.asarray(values == np.array(None))
    return np.asarray(np.isnan(values.astype(np.float32, copy=False)))


def differing(left: Values, right: Values) -> Mask:
    """Return where two arrays of one column's type differ in any bit; missing equals missing."""
    return np.asarray(left != right if left.dtype == object else left.view(np.uint32) != right.view(np.uint32))
