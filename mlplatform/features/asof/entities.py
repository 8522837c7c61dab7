"""The entity rows of a point-in-time join: a DataFrame, an SQL query, or every entity at one moment."""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from mlplatform.data import parse_times
from mlplatform.features.asof.engine import Engine
from mlplatform.features.asof.query import ViewJoin, entities_sql, time_range_sql

EVENT_TIMESTAMP = "event_timestamp"
TIME_TYPE = pa.timestamp("us", tz="UTC")

TimeRange = tuple[dt.datetime | None, dt.datetime | None]


class EntityRows(ABC):
    """Rows to which features are joined.

    Attributes:
        columns: their column names.
        time_column: the name of the column of times.
    """

    columns: list[str]
    time_column: str

    @abstractmethod
    def read(self, engine: Engine, views: Sequence[ViewJoin]) -> pa.Table:
        """Return the rows, their times in UTC, to which `engine` is to join `views`."""

    @abstractmethod
    def time_range(self) -> TimeRange:
        """Return the first and last time; `None` if there are no times."""


class FrameRows(EntityRows):
    """The rows of a DataFrame. Its index does not count.

    Raises:
        ValueError: if a column name repeats, no column of times can be told, or one of its cells is no time.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.columns = [str(name) for name in frame.columns]
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"entity_df has a column name twice; its columns are {self.columns}")
        times = frame.select_dtypes(include=["datetime", "datetimetz"]).columns
        self.time_column = _time_column(self.columns, [str(name) for name in times])
        self._frame = frame

    @override
    def read(self, engine: Engine, views: Sequence[ViewJoin]) -> pa.Table:
        # Arrow takes no column that holds more than one kind of objects, as text times beside others.
        place = self.columns.index(self.time_column)
        others = self._frame.iloc[:, [column for column in range(len(self.columns)) if column != place]]
        times = pa.array(self._times())
        if others.shape[1] == 0:
            return pa.table({self.time_column: times})
        try:
            table = pa.Table.from_pandas(others, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            said = "; ".join(str(part) for part in error.args)
            raise ValueError(f"entity_df has a column of values of several types: {said}; give it one") from error
        return table.add_column(place, self.time_column, times)

    def time_range(self) -> TimeRange:
        times = self._times()
        first, last = times.min(), times.max()
        return (None, None) if pd.isna(first) else (first.to_pydatetime(), last.to_pydatetime())

    def _times(self) -> pd.Series:
        times = self._frame.iloc[:, self.columns.index(self.time_column)]
        utc: pd.Series
        # Whoever looks through a column that already has the right type takes longer than the join.
        if isinstance(times.dtype, pd.DatetimeTZDtype):
            utc = times.dt.tz_convert("UTC")
        elif pd.api.types.is_datetime64_dtype(times):
            utc = times.dt.tz_localize("UTC")
        else:
            utc = pd.Series(_parsed(times, self.time_column)).dt.tz_localize("UTC")
        return utc


class QueryRows(EntityRows):
    """The rows of a query in DuckDB's SQL, such as `SELECT machine_id, event_timestamp FROM 'machines.parquet'`.

    Raises:
        ValueError: if DuckDB cannot run the query, or no column of times can be told.
    """

    def __init__(self, sql: str, engine: Engine) -> None:
        import duckdb

        self._sql = sql.strip().rstrip(";")
        self._engine = engine
        try:
            description = engine.table(f"DESCRIBE {self._sql}").to_pylist()
        except duckdb.Error as error:
            raise ValueError(f"entity_df is not a query that DuckDB can run: {error}") from error
        self.columns = [row["column_name"] for row in description]
        times = [row["column_name"] for row in description if row["column_type"].startswith("TIMESTAMP")]
        self.time_column = _time_column(self.columns, times)
        self._has_times = self.time_column in times

    @override
    def read(self, engine: Engine, views: Sequence[ViewJoin]) -> pa.Table:
        rows = engine.table(self._sql)
        position = rows.column_names.index(self.time_column)
        times = rows.column(position)
        if not self._has_times:
            times = pa.array(_parsed(times.to_pandas(), self.time_column))
        return rows.set_column(position, self.time_column, times.cast(TIME_TYPE, safe=False))

    def time_range(self) -> TimeRange:
        if not self._has_times:
            first_and_last = pc.min_max(self.read(self._engine, ()).column(self.time_column)).as_py()
            return first_and_last["min"], first_and_last["max"]
        with self._engine.connect() as connection:
            first, last = connection.execute(time_range_sql(self._sql, self.time_column)).fetchone()
        return first, last


class SnapshotRows(EntityRows):
    """Every entity that has a feature value at a moment, with that moment as its time.

    This is what Feast's default store answers without entity rows. A start only enters the time range.

    Parameters:
        keys: the join keys of every view; views without any give a single row.
        start: start of the time range.
        end: the moment.

    Raises:
        ValueError: if the views do not have the same join keys.
    """

    def __init__(self, keys: Sequence[Sequence[str]], start: dt.datetime, end: dt.datetime) -> None:
        distinct = {tuple(sorted(names)) for names in keys if names}
        if len(distinct) > 1:
            raise ValueError(f"without entity_df all views must have the same join keys, but they have {distinct}")
        self.columns = [EVENT_TIMESTAMP, *(name for names in distinct for name in names)]
        self.time_column = EVENT_TIMESTAMP
        self._start, self._end = start, end

    def read(self, engine: Engine, views: Sequence[ViewJoin]) -> pa.Table:
        keyed = [view for view in views if view.keys]
        if not keyed:
            return pa.table({EVENT_TIMESTAMP: pa.array([self._end], TIME_TYPE)})
        return engine.table(entities_sql(keyed, self._end, EVENT_TIMESTAMP))

    def time_range(self) -> TimeRange:
        return self._start, self._end


def _parsed(times: pd.Series, column: str) -> npt.NDArray[np.datetime64]:
    """Return times of text and objects.

    Raises:
        ValueError: if one is none; it names the row.
    """
    if not times.notna().any():
        return np.full(len(times), np.datetime64("NaT", "ns"))
    parsed, is_faulty = parse_times(times)
    if is_faulty.any():
        row = int(is_faulty.argmax())
        raise ValueError(
            f"entity_df: row {row} of {column!r} is {times.iloc[row]!r}, one of {int(is_faulty.sum())} "
            "that are no times; expected times, or text in ISO 8601 (without a zone: UTC)"
        )
    return parsed


def instants(rows: pa.Table, time_column: str) -> pa.ChunkedArray:
    """Return the times of entity rows as the join compares them, in microseconds."""
    return rows.column(time_column).cast(TIME_TYPE, safe=False)


def _time_column(columns: Sequence[str], times: Sequence[str]) -> str:
    if EVENT_TIMESTAMP in columns:
        return EVENT_TIMESTAMP
    if len(times) != 1:
        raise ValueError(
            f"entity_df must have a column {EVENT_TIMESTAMP!r} or exactly one time column, "
            f"but its time columns are {list(times)}"
        )
    return times[0]
