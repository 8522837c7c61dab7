"""The point-in-time join: entity rows, with the features of several views beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlplatform.features.asof.engine import Engine, placed
from mlplatform.features.asof.entities import TIME_TYPE, EntityRows, instants
from mlplatform.features.asof.names import keys_as_in, refuse_rounded_keys, refuse_truth_values
from mlplatform.features.asof.query import ENTITIES, ROW, TIME, TimeSpan, ViewJoin, point_in_time_sql

# The year -71,000 or so: DuckDB still knows it, and differences to it do not overflow.
_BEFORE_EVERYTHING = pa.scalar(-(1 << 61), pa.int64()).cast(TIME_TYPE)


@dataclass(frozen=True)
class PointInTimeJoin:
    """A join that can be run any number of times.

    Only keys and times go through DuckDB. The other columns of the entity rows are put beside the result as they were,
    so that none of them is converted.

    Attributes:
        entities: the entity rows.
        views: lists the files of the feature views as they are now.
    """

    entities: EntityRows
    views: Callable[[], tuple[Engine, list[ViewJoin]]]

    def table(self) -> pa.Table:
        """Return the entity rows, in their order, with the features appended."""
        engine, views = self.views()
        rows = self.entities.read(engine, views)
        if not views:
            return rows
        features = placed(self._run(engine, rows, views, in_order=False), rows.num_rows)
        for name, values in zip(features.column_names, features.columns, strict=True):
            rows = rows.append_column(name, values)
        return rows

    def stream(self) -> pa.RecordBatchReader:
        """Return the same rows in batches, of which few are in memory; DuckDB sorts them, on disk if need be."""
        engine, views = self.views()
        rows = self.entities.read(engine, views)
        if not views:
            return rows.to_reader()
        features = self._run(engine, rows, views, in_order=True)
        schema = pa.schema([*rows.schema, *features.schema], metadata=rows.schema.metadata)
        return pa.RecordBatchReader.from_batches(schema, _beside(rows, features, schema))

    def _run(
        self, engine: Engine, rows: pa.Table, views: Sequence[ViewJoin], *, in_order: bool
    ) -> pa.RecordBatchReader:
        times = instants(rows, self.entities.time_column)
        span = pc.min_max(times.cast(pa.int64()))
        # An as-of join takes a missing time for the latest; a row without a time is to match nothing.
        times = times.fill_null(_BEFORE_EVERYTHING)
        keys: dict[str, pa.ChunkedArray] = {}
        for view in views:
            keys |= _checked_keys(rows, view)
        names = [ROW, TIME, *keys]
        # Every byte of a row is sorted, and 32 bits number the rows of all but the longest tables.
        numbers = np.arange(rows.num_rows, dtype=np.int32 if rows.num_rows < 1 << 31 else np.int64)
        asked = pa.table([pa.array(numbers), times, *keys.values()], names)

        def register(connection: Any) -> None:
            connection.register(ENTITIES, asked)

        sql = point_in_time_sql(views, TimeSpan(span["min"].as_py() or 0, span["max"].as_py() or 0), in_order=in_order)
        return engine.stream(sql, register)


def _checked_keys(rows: pa.Table, view: ViewJoin) -> dict[str, pa.ChunkedArray]:
    """Return the join keys of a view by their names in the entity rows.

    Raises:
        ValueError: if keys do not fit those of the source.
    """
    keys = {}
    for source, column in view.keys:
        keys[column] = rows.column(column)
        if view.table.schema is not None and source in view.table.schema.names:
            kind = view.table.schema.field(source).type
            refuse_truth_values(keys[column].type, column, kind)
            keys[column] = keys_as_in(kind, keys[column], column)
            refuse_rounded_keys(keys[column], column, kind)
    return keys


def _beside(rows: pa.Table, features: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in features:
        left = rows.slice(start, batch.num_rows)
        start += batch.num_rows
        yield from pa.table([*left.columns, *batch.columns], schema=schema).to_batches()
