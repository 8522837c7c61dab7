"""One period of the feature table: raw rows laid on every entity's regular time grid, gaps as rows of nulls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import Calendar, times_of
from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data import FIRST, LAST
from mlplatform.datamodule import Int64, column_array, to_utc_ns
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.tables.windows import MISSING_TEXT
from mlplatform.snapshots import period_bounds, periods_between

if TYPE_CHECKING:
    import pyarrow as pa


def affected_periods(
    raw: Mapping[str, str],
    raw_before: Mapping[str, str],
    spans: pd.DataFrame,
    spans_before: pd.DataFrame,
    dataset: DatasetConfig,
) -> tuple[str, ...]:
    """Return the periods of the feature table that a change of the raw table changes, in time order.

    These are the periods whose raw rows changed and, because gaps are rows, those that the grid of an entity now
    reaches into or no longer does.

    Parameters:
        raw, raw_before: digests of the raw rows per period.
        spans, spans_before: `entity_id`, `first` and `last` of every entity.
    """
    names = {name for name in {*raw, *raw_before} if raw.get(name) != raw_before.get(name)}
    if dataset.kind == "timeseries":
        for first, last in _changed_stretches(spans, spans_before, dataset.calendar):
            names.update(periods_between(first, last, dataset.period))
    return tuple(sorted(names))


def period_table(rows: pd.DataFrame | None, period: str, spans: pd.DataFrame, dataset: DatasetConfig) -> pa.Table:
    """Return the feature rows of a period, ordered by entity and time.

    Parameters:
        rows: raw rows of the period, ordered by entity and time; `None` if it has nothing but gaps.
        spans: of all entities, ordered by entity.

    Raises:
        FeatureStoreError: if a row is off its entity's grid, or there are several for one entity and time.
    """
    if dataset.kind != "timeseries":
        assert rows is not None
        positions = np.arange(len(rows))
        ids, times = rows[ENTITY].to_numpy(), to_utc_ns(rows[TIMESTAMP])
        return _table(rows, positions, ids, times, dataset)
    first, last = spans[FIRST].to_numpy(), spans[LAST].to_numpy()
    start, end = period_bounds(period)
    calendar = dataset.calendar
    skipped = np.maximum(0, calendar.steps(first, start - 1) + 1)  # grid steps of each entity before the period
    sizes = np.maximum(0, calendar.steps(first, np.minimum(end - 1, last)) + 1 - skipped)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    codes = np.repeat(np.arange(len(spans)), sizes)
    moments = calendar.shift(first[codes], np.arange(offsets[-1]) - offsets[codes] + skipped[codes])
    positions = np.zeros(0, dtype=np.int64)
    if rows is not None:
        positions = _positions(rows, spans, offsets[:-1] - skipped, dataset)
    return _table(rows, positions, spans[ENTITY].to_numpy()[codes], times_of(moments), dataset)


def _changed_stretches(spans: pd.DataFrame, before: pd.DataFrame, calendar: Calendar) -> set[tuple[int, int]]:
    """Return the stretches of time, in ns, that entities newly cover or no longer cover."""
    both = spans.merge(before, on=ENTITY, how="outer", suffixes=("", "_before"))
    is_one_sided = (both[FIRST].isna() | both[f"{FIRST}_before"].isna()).to_numpy()
    alone = pd.concat([spans, before])
    alone = alone[alone[ENTITY].isin(both.loc[is_one_sided, ENTITY])]
    stretches = set(zip(alone[FIRST].tolist(), alone[LAST].tolist(), strict=True))
    # The step that an end moved away from, or up to, is covered before and after.
    for name, inner in ((FIRST, (0, -1)), (LAST, (1, 0))):
        known = both.loc[~is_one_sided, [name, f"{name}_before"]].to_numpy(dtype=np.int64)
        moved = calendar.shift(np.unique(np.sort(known[known[:, 0] != known[:, 1]], axis=1), axis=0), np.array(inner))
        stretches.update((int(start), int(end)) for start, end in moved)
    return stretches


def _positions(rows: pd.DataFrame, spans: pd.DataFrame, origins: Int64, dataset: DatasetConfig) -> Int64:
    """Return the grid row of every raw row; `origins` is the grid row that each entity's first step would have."""
    ids = spans[ENTITY].to_numpy()
    codes = np.searchsorted(ids, rows[ENTITY].to_numpy())
    times = to_utc_ns(rows[TIMESTAMP]).astype(np.int64)
    first = spans[FIRST].to_numpy()[codes]
    steps, is_on = dataset.calendar.between(first, times)
    if not is_on.all():
        row = int(np.flatnonzero(~is_on)[0])
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: entity {ids.tolist()[codes[row]]!r} has a row at "
            f"{np.datetime64(int(times[row]), 'ns')}, off its grid of {dataset.calendar.frequency} from "
            f"{np.datetime64(int(first[row]), 'ns')}; resample the source or correct the frequency"
        )
    positions: Int64 = origins[codes] + steps
    if (np.diff(positions) <= 0).any():
        raise FeatureStoreError(f"dataset {dataset.name!r}: there are several rows for one entity and time")
    return positions


def _table(
    rows: pd.DataFrame | None,
    positions: Int64,
    ids: npt.NDArray[np.generic],
    times: npt.NDArray[np.datetime64],
    dataset: DatasetConfig,
) -> pa.Table:
    """Return a table with the values of `rows` at their positions and nulls elsewhere."""
    import pyarrow as pa

    # Microseconds, because DuckDB, Spark and the warehouses have no zoned time stamps of finer resolution.
    stamps = pa.array(times.astype("datetime64[us]"), pa.timestamp("us", tz="UTC"))
    arrays = {ENTITY: pa.array(ids), TIMESTAMP: stamps}
    for name, column in dataset.columns.items():
        is_number = column.type == "float"
        values = np.full(len(ids), np.nan if is_number else None, dtype=np.float32 if is_number else object)
        if rows is not None:
            values[positions] = column_array(rows[name])
        if not is_number:
            values[values == np.array(MISSING_TEXT, dtype=object)] = None
        arrays[name] = pa.array(values, pa.float32() if is_number else pa.string(), from_pandas=True)
    return pa.table(arrays)
