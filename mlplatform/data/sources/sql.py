"""What all SQL databases share: one query, streamed from a server-side cursor in a read-only transaction.

With a watermark column (the time or number of a row's last change, which must never go down) the source is incremental:
rows are read in its order from the last watermark on, equality included, because rows that share it may have been
committed between two reads.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from mlplatform.config import DatasetConfig, Frozen, time_step
from mlplatform.data.columns import require_columns, source_columns
from mlplatform.data.errors import DataError, SourceUnavailableError
from mlplatform.data.sources.base import Batch, IncrementalSource, Position
from mlplatform.data.sources.cells import cell_frame
from mlplatform.data.sources.servers import Address, Credentials, parse_address, read_credentials
from mlplatform.data.sources.watermarks import Watermark, decode_watermark, encode_watermark, lowered
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import URL, BindParameter, ColumnClause, Connection, FromClause

TABLE_NAME = re.compile(r'(?:(?P<schema>[^."]+|"[^"]+")\.)?(?P<table>[^."]+|"[^"]+")')
STATEMENT = re.compile(r"\s*(select|with)\b", re.IGNORECASE)


class SqlParams(Frozen):
    """What to read and how to connect.

    `table` (or `schema.table`; a name that contains a dot goes into double quotes) or `query`, one SELECT. `user_env`
    and `password_env` name environment variables. `overlap` reads back beyond the last watermark, for rows that were
    committed late: a time step such as 1h for times, a number for numbers. `chunk_rows` rows are in memory at a time.
    `ssl` and `ssl_root_cert` (a file) mean what libpq's sslmode and sslrootcert mean.
    """

    table: str | None = None
    query: str | None = None
    user_env: str | None = None
    password_env: str | None = None
    watermark_column: str | None = None
    overlap: int | str | None = None
    chunk_rows: int = Field(default=100_000, ge=1)
    connect_timeout_s: int = Field(default=10, ge=1)
    ssl: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    ssl_root_cert: str | None = None

    @model_validator(mode="after")
    def _one_statement(self) -> SqlParams:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either table or query")
        if self.table is not None and TABLE_NAME.fullmatch(self.table) is None:
            raise ValueError(f"table must be a name or schema.name, but is {self.table!r}")
        if self.query is not None and STATEMENT.match(self.query) is None:
            raise ValueError("query must be one SELECT statement")
        return self

    @model_validator(mode="after")
    def _overlap_fits(self) -> SqlParams:
        if self.overlap is not None and self.watermark_column is None:
            raise ValueError("overlap needs watermark_column")
        if isinstance(self.overlap, str):
            time_step(self.overlap)
        return self


class SqlSource(IncrementalSource[SqlParams]):
    """A table or query of an SQL database; each plug-in says what is particular to its own.

    Class attributes:
        expected: how the URI is written, for messages.
        session: statements that make a new connection read-only and its times UTC.
    """

    Params = SqlParams
    operational = frozenset(
        {"user_env", "password_env", "overlap", "chunk_rows", "connect_timeout_s", "ssl", "ssl_root_cert"}
    )
    expected: ClassVar[str]
    session: ClassVar[Sequence[str]]

    @abstractmethod
    def url(self, address: Address, credentials: Credentials) -> URL:
        """Return SQLAlchemy's URL, with the driver."""

    @abstractmethod
    def connect_args(self) -> dict[str, Any]:
        """Return the driver's own arguments for the connection timeout and TLS."""

    @abstractmethod
    def is_transient(self, error: BaseException) -> bool:
        """Return whether the driver's error may go away by itself, as after a restart of the server."""

    @override
    def is_incremental(self, dataset: DatasetConfig, settings: Settings) -> bool:
        """Return whether there is a watermark column."""
        return self.params.watermark_column is not None

    @override
    def read_batches(self, dataset: DatasetConfig, settings: Settings) -> Iterator[pd.DataFrame]:
        """Read everything, `chunk_rows` rows at a time; see `Source.read_batches`."""
        for frame, _ in self._frames(dataset, None):
            yield frame

    @override
    def read_since(
        self,
        dataset: DatasetConfig,
        settings: Settings,
        position: Position | None,
    ) -> Iterator[Batch]:
        """Read the rows from the position's watermark on, less the overlap; see `IncrementalSource.read_since`."""
        if self.params.watermark_column is None:
            raise DataError(f"dataset {dataset.name!r}: reading what is new needs source.options.watermark_column")
        start = None if position is None else decode_watermark(position, dataset)
        for frame, watermark in self._frames(dataset, start):
            yield Batch(frame, encode_watermark(watermark, dataset))

    @override
    def fingerprint(self, dataset: DatasetConfig, settings: Settings) -> str | None:
        """Return the highest watermark and how many rows are within the overlap of it; `None` without a watermark."""
        import sqlalchemy as sa

        if self.params.watermark_column is None:
            return None
        with self._connection(dataset) as connection:
            selectable = self._selectable(connection, dataset)
            watermark = _column(self.params.watermark_column)
            highest = connection.scalar(sa.select(sa.func.max(watermark)).select_from(selectable))
            if highest is None:
                return "no rows"
            # Rows that share the highest watermark, or are within the overlap, can arrive without raising it.
            reached = watermark >= _bound(lowered(highest, self.params.overlap, dataset))
            rows = connection.scalar(sa.select(sa.func.count()).select_from(selectable).where(reached))
        return f"{highest} {rows}"

    def _frames(self, dataset: DatasetConfig, start: Watermark | None) -> Iterator[tuple[pd.DataFrame, Any]]:
        """Yield frames with the watermark of their last row, `None` without a watermark column."""
        import sqlalchemy as sa

        names = list(source_columns(dataset))
        with self._connection(dataset) as connection:
            selectable = self._selectable(connection, dataset)
            columns = [_column(name) for name in names]
            statement = sa.select(*columns).select_from(selectable)
            if self.params.watermark_column is not None:
                watermark = _column(self.params.watermark_column)
                _refuse_missing(connection, selectable, watermark, dataset)
                # Read once more under a name of its own, because it may be among the dataset's columns.
                statement = statement.add_columns(watermark.label("mlplatform_watermark")).order_by(watermark)
                if start is not None:
                    statement = statement.where(watermark >= _bound(lowered(start, self.params.overlap, dataset)))
            result = connection.execute(statement, execution_options={"yield_per": self.params.chunk_rows})
            for rows in result.partitions():
                cells = [[row[position] for row in rows] for position in range(len(names))]
                frame = cell_frame(dict(zip(names, cells, strict=True)), dataset)
                yield frame, rows[-1][-1] if self.params.watermark_column is not None else None

    def _selectable(self, connection: Connection, dataset: DatasetConfig) -> FromClause:
        """Return the table or the query as a FROM clause, after checking that it has the columns that are read."""
        import sqlalchemy as sa

        if self.params.table is not None:
            match = TABLE_NAME.fullmatch(self.params.table)
            assert match is not None
            schema, table = (part and sa.quoted_name(part.strip('"'), quote=True) for part in match.groups())
            selectable: FromClause = sa.table(table, schema=schema)
            what = f"table {self.params.table}"
        else:
            assert self.params.query is not None
            # A colon would start a parameter; the line break ends a comment.
            text = self.params.query.strip().rstrip(";").replace(":", "\\:") + "\n"
            selectable = sa.text(text).columns().subquery("source")
            what = "the query"
        found = list(connection.execute(sa.select(sa.text("*")).select_from(selectable).limit(0)).keys())
        require_columns(found, dataset, f"{what} at {dataset.source.uri}")
        if self.params.watermark_column not in (None, *found):
            raise DataError(
                f"dataset {dataset.name!r}: {what} at {dataset.source.uri} lacks the watermark column "
                f"{self.params.watermark_column!r}; columns found: {', '.join(found)}. "
                "Correct source.options.watermark_column"
            )
        return selectable

    @contextmanager
    def _connection(self, dataset: DatasetConfig) -> Iterator[Connection]:
        """Open a read-only connection; every error in it comes out as a DataError without the password."""
        import sqlalchemy as sa
        from sqlalchemy.pool import NullPool

        address = self._address(dataset)
        if self.params.ssl_root_cert is not None and not Path(self.params.ssl_root_cert).is_file():
            raise DataError(
                f"dataset {dataset.name!r}: source.options.ssl_root_cert names {self.params.ssl_root_cert!r}, which is "
                "not a file"
            )
        credentials = read_credentials(dataset, self.params.user_env, self.params.password_env)
        engine = sa.create_engine(
            self.url(address, credentials), connect_args=self.connect_args(), poolclass=NullPool, hide_parameters=True
        )
        sa.event.listen(engine, "connect", self._prepare)
        try:
            with engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            # Not chained: nobody can vouch for what a driver's own errors carry.
            raise self._failure(dataset, error, credentials) from None
        finally:
            engine.dispose()

    def _address(self, dataset: DatasetConfig) -> Address:
        address = parse_address(dataset, self.expected)
        if len(address.path) != 1 or len(address.hosts) > 1:
            raise DataError(f"dataset {dataset.name!r}: source.uri is {dataset.source.uri!r}; expected {self.expected}")
        return address

    def _prepare(self, connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for statement in self.session:
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    def _failure(self, dataset: DatasetConfig, error: Exception, credentials: Credentials) -> DataError:
        cause = getattr(error, "orig", None) or error
        text = credentials.scrub(" ".join(str(cause).split()))
        where = f"dataset {dataset.name!r}: {dataset.source.uri}"
        if self.is_transient(cause) or getattr(error, "connection_invalidated", False):
            return SourceUnavailableError(
                f"{where} is not available: {text}. Check that the server runs; then try again"
            )
        return DataError(f"{where} refuses: {text}. Check source.uri, source.options and the credentials")


def _column(name: str) -> ColumnClause[Any]:
    import sqlalchemy as sa

    return sa.column(sa.quoted_name(name, quote=True))


def _bound(value: Watermark) -> BindParameter[Any]:
    """Return a parameter of the value's exact type: by default whole numbers have 32 bits."""
    from decimal import Decimal

    import sqlalchemy as sa

    types: dict[type, Any] = {int: sa.BigInteger(), Decimal: sa.Numeric(), float: sa.Double(), str: sa.Text()}
    return sa.bindparam("start", value, types.get(type(value)))


def _refuse_missing(
    connection: Connection, selectable: FromClause, watermark: ColumnClause[Any], dataset: DatasetConfig
) -> None:
    import sqlalchemy as sa

    missing: sa.Select[Any] = (
        sa.select(sa.literal_column("1")).select_from(selectable).where(watermark.is_(None)).limit(1)
    )
    if connection.execute(missing).first() is not None:
        raise DataError(
            f"dataset {dataset.name!r}: the watermark column {watermark.name!r} is NULL in some rows, whose changes "
            "would never be seen; fill it, or use a query with COALESCE as its watermark"
        )
