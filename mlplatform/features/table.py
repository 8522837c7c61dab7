"""The Parquet files behind the feature store: the feature table and the newest window of every entity.

`features.parquet` holds one row per entity and grid step, so a missing measurement is a row of nulls and can never be
answered with an older value. `windows.parquet` holds one row per entity whose features are arrays: what the online
store serves in a single read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule.panel import Int64, column_array, to_utc_ns
from mlplatform.features.errors import FeatureStoreError
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW_PREFIX = "window_"
# The exact time of a window's last step, in nanoseconds since 1970 UTC. Online stores keep event times in whole
# seconds, and SQLite's go through local time; a feature keeps every digit. The name cannot collide: all others in the
# view start with the prefix.
WINDOW_END = "end_ns"
# Arrays of text cannot hold nulls in Feast, so a missing category is stored in a window as empty text.
MISSING_TEXT = ""


@dataclass(frozen=True)
class TableReport:
    """What `write_feature_table` wrote.

    Attributes:
        rows: rows of the table, gaps included.
        entities: number of entities.
        start, end: first and last event time, in UTC.
        gap_rows: rows added for grid steps without a measurement.
        path: the file.
        schema: column types by name.
    """

    rows: int
    entities: int
    start: pd.Timestamp
    end: pd.Timestamp
    gap_rows: int
    path: Path
    schema: dict[str, str]


@dataclass(frozen=True)
class WindowReport:
    """What `write_window_table` wrote.

    Attributes:
        entities: number of entities, which is the number of rows.
        steps: length of every window.
        padded_entities: entities with a history shorter than the window.
        start, end: earliest and latest window end, in UTC.
        path: the file.
        schema: column types by name.
    """

    entities: int
    steps: int
    padded_entities: int
    start: pd.Timestamp
    end: pd.Timestamp
    path: Path
    schema: dict[str, str]


def features_path(dataset: DatasetConfig, settings: Settings) -> Path:
    """Return where the feature table of a dataset is."""
    return settings.features_dir / dataset.name / "features.parquet"


def windows_path(dataset: DatasetConfig, settings: Settings) -> Path:
    """Return where the newest windows of a dataset are."""
    return settings.features_dir / dataset.name / "windows.parquet"


def require_table(path: Path, dataset: DatasetConfig, made_by: str) -> Path:
    """Return `path` if the file is there.

    Raises:
        FeatureStoreError: if it is not; the message names the step that makes it.
    """
    if not path.is_file():
        raise FeatureStoreError(f"dataset {dataset.name!r}: {path} does not exist; run {made_by} first")
    return path


def write_feature_table(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> TableReport:
    """Write the feature table of a dataset from its raw frame.

    Every entity of a time series is laid on the full grid between its first and last row; a tabular dataset is taken
    as it is. The file is sorted by entity and time, numbers are float32, and empty text counts as missing.

    Parameters:
        raw: with `entity_id` (whole numbers or text), `event_timestamp` and the dataset's columns.

    Raises:
        FeatureStoreError: if `raw` is empty, lacks a column, or has rows off the grid or twice.
    """
    import pyarrow.parquet as pq

    _check_raw(raw, dataset)
    codes, entities = pd.factorize(raw[ENTITY], sort=True)
    timestamps = to_utc_ns(raw[TIMESTAMP])
    if dataset.kind == "timeseries":
        rows, grid_codes, grid_times = _grid(codes, timestamps, len(entities), dataset, entities)
    else:
        order = np.lexsort((timestamps, codes))
        rows = np.empty(len(raw), dtype=np.int64)
        rows[order] = np.arange(len(raw))
        grid_codes, grid_times = codes[order], timestamps[order]
    columns = {name: _scatter(column_array(raw[name]), rows, len(grid_codes)) for name in dataset.columns}
    table = _arrow_table(np.asarray(entities)[grid_codes], grid_times, columns, dataset)
    path = features_path(dataset, settings)
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)
    return TableReport(
        rows=table.num_rows,
        entities=len(entities),
        start=pd.Timestamp(grid_times.min(), tz="UTC"),
        end=pd.Timestamp(grid_times.max(), tz="UTC"),
        gap_rows=table.num_rows - len(raw),
        path=path,
        schema=_schema(table),
    )


def write_window_table(dataset: DatasetConfig, settings: Settings) -> WindowReport:
    """Write the last `window_steps` rows of every entity of a time series as one row of arrays.

    A shorter history is padded on the left. Missing numbers are NaN, missing categories empty text.

    Raises:
        FeatureStoreError: if the dataset is tabular or its feature table does not exist.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if dataset.kind != "timeseries":
        raise FeatureStoreError(f"dataset {dataset.name!r} is {dataset.kind}; only time series have windows")
    table = pq.read_table(require_table(features_path(dataset, settings), dataset, "write_feature_table"))
    entities = table.column(ENTITY).to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], entities[1:] != entities[:-1]]))
    ends = np.append(starts[1:], len(entities))
    steps = dataset.window_steps
    rows = ends[:, None] + np.arange(-steps, 0)[None, :]
    padding = rows < starts[:, None]
    rows = np.where(padding, starts[:, None], rows)
    end_times = table.column(TIMESTAMP).cast(pa.timestamp("ns", tz="UTC")).to_numpy().astype("datetime64[ns]")[ends - 1]
    arrays: dict[str, pa.Array] = {
        ENTITY: table.column(ENTITY).combine_chunks().take(pa.array(starts)),
        TIMESTAMP: _times(end_times),
        WINDOW_END: pa.array(end_times.astype(np.int64)),
    }
    for name in dataset.columns:
        arrays[f"{WINDOW_PREFIX}{name}"] = _windows(table.column(name), rows, padding)
    windows = pa.table(arrays)
    path = windows_path(dataset, settings)
    with atomic_file(path) as temporary:
        pq.write_table(windows, temporary)
    return WindowReport(
        entities=len(starts),
        steps=steps,
        padded_entities=int(padding[:, 0].sum()),
        start=pd.Timestamp(end_times.min(), tz="UTC"),
        end=pd.Timestamp(end_times.max(), tz="UTC"),
        path=path,
        schema=_schema(windows),
    )


def entity_ranges(dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
    """Return `entity_id`, `start` and `end` (UTC) of every entity in the feature table, sorted by entity."""
    import pyarrow.parquet as pq

    path = require_table(features_path(dataset, settings), dataset, "write_feature_table")
    keys = pq.read_table(path, columns=[ENTITY, TIMESTAMP])
    grouped = keys.group_by(ENTITY).aggregate([(TIMESTAMP, "min"), (TIMESTAMP, "max")])
    ranges: pd.DataFrame = grouped.to_pandas()
    ranges = ranges.rename(columns={f"{TIMESTAMP}_min": "start", f"{TIMESTAMP}_max": "end"})
    return ranges[[ENTITY, "start", "end"]].sort_values(ENTITY, ignore_index=True)


def _check_raw(raw: pd.DataFrame, dataset: DatasetConfig) -> None:
    missing = [name for name in (ENTITY, TIMESTAMP, *dataset.columns) if name not in raw.columns]
    if missing:
        raise FeatureStoreError(f"dataset {dataset.name!r}: the raw frame lacks {missing}; it has {list(raw.columns)}")
    if raw.empty:
        raise FeatureStoreError(f"dataset {dataset.name!r}: the raw frame has no rows; ingest the dataset first")


def _grid(
    codes: npt.NDArray[np.intp],
    timestamps: npt.NDArray[np.datetime64],
    count: int,
    dataset: DatasetConfig,
    entities: pd.Index,
) -> tuple[Int64, Int64, npt.NDArray[np.datetime64]]:
    """Return the grid row of every raw row, and the entity code and time of every grid row."""
    times = timestamps.astype(np.int64)
    step = int(np.timedelta64(dataset.step, "ns").astype(np.int64))
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(first, codes, times)
    np.maximum.at(last, codes, times)
    position, remainder = np.divmod(times - first[codes], step)
    if remainder.any():
        row = int(np.flatnonzero(remainder)[0])
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: entity {entities.tolist()[codes[row]]!r} has a row at {timestamps[row]}, off "
            f"its grid of {dataset.frequency} from {np.datetime64(int(first[codes[row]]), 'ns')}; "
            "resample the source or correct the frequency"
        )
    sizes = (last - first) // step + 1
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = offsets[codes] + position
    if len(np.unique(rows)) != len(rows):
        raise FeatureStoreError(f"dataset {dataset.name!r}: the raw frame has several rows for one entity and time")
    grid_codes = np.repeat(np.arange(count), sizes)
    grid_times = first[grid_codes] + (np.arange(offsets[-1]) - offsets[grid_codes]) * step
    return rows, grid_codes, grid_times.astype("datetime64[ns]")


def _scatter(values: npt.NDArray[np.generic], rows: Int64, size: int) -> npt.NDArray[np.generic]:
    """Place values at their grid rows; the rest is missing."""
    if values.dtype == np.float32:
        numbers = np.full(size, np.nan, dtype=np.float32)
        numbers[rows] = values
        return numbers
    objects = np.full(size, None, dtype=object)
    objects[rows] = values
    objects[objects == MISSING_TEXT] = None
    return objects


def _arrow_table(
    entities: npt.NDArray[np.generic],
    times: npt.NDArray[np.datetime64],
    columns: dict[str, npt.NDArray[np.generic]],
    dataset: DatasetConfig,
) -> pa.Table:
    import pyarrow as pa

    arrays = {ENTITY: pa.array(entities), TIMESTAMP: _times(times)}
    for name, column in dataset.columns.items():
        dtype = pa.float32() if column.type == "float" else pa.string()
        arrays[name] = pa.array(columns[name], dtype, from_pandas=True)
    return pa.table(arrays)


def _times(times: npt.NDArray[np.datetime64]) -> pa.Array:
    import pyarrow as pa

    # Microseconds, because DuckDB, Spark and the warehouses have no zoned time stamps of finer resolution.
    return pa.array(times.astype("datetime64[us]"), pa.timestamp("us", tz="UTC"))


def _windows(column: pa.ChunkedArray, rows: Int64, padding: npt.NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    entities, steps = rows.shape
    if pa.types.is_floating(column.type):
        values = column.to_numpy()[rows].astype(np.float32, copy=False)
        values[padding] = np.nan
    else:
        values = column.to_numpy()[rows]
        values[padding | (values == np.array(None))] = MISSING_TEXT
    flat = pa.array(values.ravel(), column.type)
    return pa.ListArray.from_arrays(pa.array(np.arange(entities + 1, dtype=np.int32) * steps), flat)


def _schema(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}
