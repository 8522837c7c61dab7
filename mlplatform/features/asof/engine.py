"""Running the as-of store's queries in DuckDB, and putting their rows back into the order of the entity rows."""

from __future__ import annotations

import contextlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Rows that are on their way from DuckDB at a time, and in a row group of what is written.
BATCH_ROWS = 131_072

Places = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Engine:
    """How to open a connection.

    Attributes:
        memory_limit: most memory that a query takes, such as "4GB"; what needs more spills to disk.
        threads: threads of a query; `None`: one per core.
        filesystems: fsspec file systems that the query reads from. Left out of `repr`, for they may hold credentials.
    """

    memory_limit: str
    threads: int | None = None
    filesystems: tuple[Any, ...] = field(default=(), repr=False)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """Yield a connection to an empty database of its own.

        Raises:
            ValueError: if DuckDB finds the query wrong for its tables.
        """
        import duckdb

        # Two databases must not share the folder that they spill to.
        with tempfile.TemporaryDirectory(prefix="asof-", ignore_cleanup_errors=True) as spill:
            config: dict[str, Any] = {**self._SETTINGS, "memory_limit": self.memory_limit, "temp_directory": spill}
            if self.threads is not None:
                config["threads"] = self.threads
            with duckdb.connect(config=config) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                for filesystem in self.filesystems:
                    connection.register_filesystem(filesystem)
                try:
                    yield connection
                except (duckdb.BinderException, duckdb.ConversionException) as error:
                    raise ValueError(f"the sources do not fit what was asked for: {error}") from error

    def table(self, sql: str) -> pa.Table:
        """Return the rows of a query."""
        with self.connect() as connection:
            return connection.execute(sql).to_arrow_table()

    def stream(self, sql: str, prepare: Callable[[Any], None] | None = None) -> pa.RecordBatchReader:
        """Return the rows of a query as they come; the connection closes after the last.

        Parameters:
            prepare: called with the connection before the query.
        """
        stack = contextlib.ExitStack()
        with contextlib.ExitStack() as opening:
            connection = opening.enter_context(self.connect())
            if prepare is not None:
                prepare(connection)
            reader = connection.execute(sql).to_arrow_reader(BATCH_ROWS)
            stack = opening.pop_all()

        def batches() -> Iterator[pa.RecordBatch]:
            with stack:
                yield from reader

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    _SETTINGS: ClassVar[dict[str, str]] = {
        # DuckDB takes an Arrow table for a single row, and would answer so few with a nested loop over the history.
        "asof_loop_join_threshold": "0",
        # Nothing is fetched from the network.
        "autoinstall_known_extensions": "false",
    }


def placed(reader: pa.RecordBatchReader, rows: int) -> pa.Table:
    """Return the rows of `reader` in order, without its first column, which holds their places 0 to `rows` - 1.

    Numbers go straight from each batch to their places, so that the result is in memory once; this is linear, where
    sorting took as long as the join.
    """
    names = reader.schema.names[1:]
    columns = [_column(kind, rows) for kind in reader.schema.types[1:]]
    for batch in reader:
        places = batch.column(0).to_numpy()
        for column, values in zip(columns, batch.columns[1:], strict=True):
            column.put(places, values)
    return pa.table([column.result() for column in columns], names=names)


class _Column(ABC):
    """A column in the making."""

    @abstractmethod
    def put(self, places: Places, values: pa.Array) -> None:
        """Put values to their places."""

    @abstractmethod
    def result(self) -> pa.Array | pa.ChunkedArray:
        """Return the column, once every place is filled."""


class _Numbers(_Column):
    """Values of a fixed width, written to their places at once."""

    def __init__(self, kind: pa.DataType, rows: int) -> None:
        self._kind = kind
        self._values = np.empty(rows, dtype=f"u{kind.bit_width // 8}")
        self._valid: npt.NDArray[np.bool_] | None = None

    def put(self, places: Places, values: pa.Array) -> None:
        if not len(values):  # has no buffer
            return
        raw = np.frombuffer(values.buffers()[1], dtype=self._values.dtype, count=len(values) + values.offset)
        self._values[places] = raw[values.offset :]
        if values.null_count and self._valid is None:
            self._valid = np.ones(len(self._values), dtype=np.bool_)
        if self._valid is not None and values.null_count:
            self._valid[places] = values.is_valid().to_numpy(zero_copy_only=False)

    def result(self) -> pa.Array:
        valid = None if self._valid is None else pa.py_buffer(np.packbits(self._valid, bitorder="little"))
        return pa.Array.from_buffers(self._kind, len(self._values), [valid, pa.py_buffer(self._values)])


class _Anything(_Column):
    """Values of any other type, kept as they came and ordered at the end."""

    def __init__(self, kind: pa.DataType, rows: int) -> None:
        self._kind = kind
        self._rows = rows
        self._places: list[Places] = []
        self._values: list[pa.Array] = []

    def put(self, places: Places, values: pa.Array) -> None:
        self._places.append(places)
        self._values.append(values)

    def result(self) -> pa.ChunkedArray:
        positions = np.empty(self._rows, dtype=np.int64)
        positions[np.concatenate([np.empty(0, np.int64), *self._places])] = np.arange(self._rows)
        values = pa.chunked_array(self._values, self._kind)
        # In pieces, because an Arrow array of text holds 2 GB at most.
        pieces = [values.take(pa.array(piece)) for piece in _pieces(positions)]
        return pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], self._kind)


def _pieces(positions: Places) -> Sequence[Places]:
    return [positions[start : start + BATCH_ROWS] for start in range(0, len(positions), BATCH_ROWS)]


def _column(kind: pa.DataType, rows: int) -> _Column:
    is_number = pa.types.is_primitive(kind) and not pa.types.is_boolean(kind)
    return _Numbers(kind, rows) if is_number and kind.bit_width <= 64 else _Anything(kind, rows)
