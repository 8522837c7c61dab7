"""Predictions as the table takes them: of a day of the log, of a run in batch, or of a piece whose log is gone."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mlplatform.config import ENTITY
from mlplatform.forecasts import StoredRun
from mlplatform.monitoring.forecast_errors.pieces import BATCH, SERVED, Source
from mlplatform.monitoring.prediction_log import PRODUCTION_ARM, log_schema, prediction_batches
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

OF_LOG = (
    "served_at", "request_id", "version", "pair_id", "entity_id", "origin", "target", "step", "event_timestamp",
    "value", "label", "lower", "upper", "coverage", "observed", "is_fallback", "arm",
    "intervals",
)  # fmt: skip
BATCH_ROWS = 65_536


class DamagedPredictionsError(RuntimeError):
    """A file of predictions that cannot be read.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(f"cannot be read and is left out ({error})")
        self.path = path


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DamagedPredictionsError(path, error) from error


def prediction_schema() -> pa.Schema:
    """Return the columns that predictions have in the table.

    `known_at` is the moment by whose knowledge they were made, `request_row` the place in a request for rows of a
    table, which may have no other name there.
    """
    import pyarrow as pa

    fields = [log_schema().field(name) for name in OF_LOG]
    extra = [("source", pa.string()), ("known_at", pa.timestamp("ns", tz="UTC")), ("request_row", pa.int32())]
    return pa.schema([*fields, *(pa.field(name, kind) for name, kind in extra)])


def served_on(settings: Settings, experiment: str, day: dt.date, *, has_rows: bool) -> Iterator[pa.RecordBatch]:
    """Yield the logged predictions of a day in UTC.

    Parameters:
        has_rows: whether they are of rows of a table. Where the log does not say which rows of their requests, as
            earlier versions wrote it, these are numbered in the order of the log.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    numbers = _RowNumbers()
    columns = (*OF_LOG, "request_row")
    for batch in prediction_batches(settings, experiment, start, start + dt.timedelta(days=1), columns):
        places = batch["request_row"]
        if has_rows and places.null_count:
            places = pc.coalesce(places, pa.array(numbers.of(batch)))
        yield _completed(dict(zip(batch.schema.names, batch.columns, strict=True)), SERVED, batch["served_at"], places)


def of_run(run: StoredRun) -> Iterator[pa.RecordBatch]:
    """Yield the forecasts of a run in batch; the run's name is their request.

    Of an origin in the past, those of moments that the pair was trained on are left out: what it says of them is no
    forecast.

    Raises:
        DamagedPredictionsError: if a file cannot be read to its end.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = {"entity_id": ENTITY, "origin": "window_end", "event_timestamp": "timestamp", "is_fallback": "fallback"}
    of_run = {"served_at": run.made_at, "request_id": run.name, "arm": PRODUCTION_ARM}
    for path in run.files:
        with _reading(path):
            for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS):
                columns = {name: _column(batch, names.get(name, name)) for name in OF_LOG if name not in of_run}
                columns |= {
                    name: pa.repeat(pa.scalar(value, log_schema().field(name).type), batch.num_rows)
                    for name, value in of_run.items()
                }
                known_at = pa.repeat(pa.scalar(run.known_at, pa.timestamp("ns", tz="UTC")), batch.num_rows)
                made = _completed(columns, BATCH, known_at, pa.nulls(batch.num_rows, pa.int32()))
                if run.trained_until is not None:
                    made = made.filter(pc.field("event_timestamp") >= pa.scalar(run.trained_until, known_at.type))
                yield made


def of_piece(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the predictions of a piece of the table.

    Raises:
        DamagedPredictionsError: if it cannot be read to its end.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = prediction_schema()
    with _reading(path):
        file = pq.ParquetFile(path)
        present = [name for name in schema.names if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH_ROWS, columns=present):
            arrays = [_column(batch, field.name).cast(field.type) for field in schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column; nulls of what earlier versions did not write, or few pairs have."""
    import pyarrow as pa

    return batch[name] if name in batch.schema.names else pa.nulls(batch.num_rows)


def _completed(
    columns: dict[str, pa.Array], source: Source, known_at: pa.Array, request_row: pa.Array
) -> pa.RecordBatch:
    import pyarrow as pa

    schema = prediction_schema()
    columns |= {"source": pa.repeat(source, len(known_at)), "known_at": known_at, "request_row": request_row}
    arrays = [columns[field.name].cast(field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _RowNumbers:
    """Counts the rows of each request, which follow each other, also from one batch to the next."""

    def __init__(self) -> None:
        self._request: tuple[str | None, object] = (None, None)
        self._count = 0

    def of(self, batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
        """Return the place of every row in its request, from 0."""
        found = np.empty(batch.num_rows, dtype=np.int32)
        requests, moments = batch["request_id"].to_pylist(), batch["served_at"].cast("int64").to_pylist()
        for row, request in enumerate(zip(requests, moments, strict=True)):
            self._count = self._count + 1 if request == self._request else 0
            self._request, found[row] = request, self._count
        return found
