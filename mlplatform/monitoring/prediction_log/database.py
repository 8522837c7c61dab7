"""The log in a PostgreSQL database, for servers on several machines.

All experiments share the table `mlplatform_predictions`, which the first write creates. What is written together has an
id, and an id that was committed is never written again: a write whose success got lost on the way adds nothing.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlplatform.monitoring.prediction_log.compaction import Upkeep
from mlplatform.monitoring.prediction_log.rows import COLUMNS, log_schema, utc

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import URL, Connection, Engine, TableClause

logger = logging.getLogger(__name__)

TABLE, FLUSHES = "mlplatform_predictions", "mlplatform_prediction_flushes"
CONNECT_TIMEOUT_S = 10
# Of a write. A read may take as long as it takes.
STATEMENT_TIMEOUT_S = 30
# How long the ids of writes are remembered; a server does not try again for longer.
REMEMBERED = dt.timedelta(days=30)
READ_ROWS = 20_000
_LOCK_KEY = 0x6D6C_706C_6F67
_TYPES = {
    "string": "text",
    "int64": "bigint",
    "int32": "integer",
    "double": "double precision",
    "bool": "boolean",
    "timestamp[ns, tz=UTC]": "timestamptz",
}
# Lists, as JSON.
_LISTS = "text"
# Texts with a NUL have no place in PostgreSQL, and a line `\.` ends the data of a COPY before version 18.
_IMPOSSIBLE_TEXT = r"\x00|[\r\n]\\\.[\r\n]"


class Database:
    """The log of an experiment in PostgreSQL.

    Parameters:
        address: of the database, as SQLAlchemy writes it.

    Raises:
        ValueError: if it is not the address of a PostgreSQL database, or the driver is not installed.
    """

    def __init__(self, address: str, experiment: str) -> None:
        self.experiment = experiment
        self._url = _checked(address)
        self._writing, self._reading = (_engine(self._url, timeout) for timeout in (STATEMENT_TIMEOUT_S, 0))
        self._is_created = False

    def __str__(self) -> str:
        return f"in PostgreSQL ({self._url.host or 'local'}/{self._url.database})"

    def write(self, flush_id: str, rows: pa.Table) -> int:
        """Add rows with one COPY unless that was done under this id; return how many there are.

        Rows that PostgreSQL cannot hold are left out with a message.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, psycopg.Error: if the database does not take them; nothing is written then.
        """
        import psycopg

        possible = _possible(rows)
        if possible.num_rows < rows.num_rows:
            logger.error("dropped %d rows with text that PostgreSQL cannot hold", rows.num_rows - possible.num_rows)
        is_created, self._is_created = self._is_created, False
        try:
            with self._writing.begin() as connection:
                if not is_created:
                    _create(connection)
                if _is_new(connection, flush_id):
                    _copy(connection, possible)
        except psycopg.DataError as error:
            logger.error("dropped %d rows that PostgreSQL refuses: %s", rows.num_rows, error)
            return 0
        self._is_created = True
        written: int = possible.num_rows
        return written

    def batches(
        self, since: dt.datetime | None, until: dt.datetime | None, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows in the order they were served."""
        import sqlalchemy as sa

        rows = _table(TABLE, "row_id", *COLUMNS)
        query = sa.select(*(rows.c[name] for name in columns)).where(rows.c.experiment == self.experiment)
        if since is not None:
            query = query.where(rows.c.served_at >= utc(since))
        if until is not None:
            query = query.where(rows.c.served_at < utc(until))
        with self._reading.connect() as connection:
            present = _columns(connection)
            if not present:
                return
            # What later versions added is null in a table that none of them has written to.
            query = query.with_only_columns(
                *(rows.c[name] if name in present else sa.null().label(name) for name in columns)
            )
            streamed = connection.execution_options(stream_results=True, max_row_buffer=READ_ROWS)
            found = streamed.execute(query.order_by(rows.c.served_at, rows.c.row_id))
            for part in found.partitions(READ_ROWS):
                yield _batch(columns, part)

    def days(self) -> dict[dt.date, str]:
        """Return the number of rows and the newest row of each day that has some, oldest first."""
        import sqlalchemy as sa

        rows = _table(TABLE, "row_id", "experiment", "served_at")
        day = sa.func.date_trunc("day", rows.c.served_at)
        query = sa.select(day, sa.func.count(), sa.func.max(rows.c.row_id)).group_by(day).order_by(day)
        with self._reading.connect() as connection:
            if not _exists(connection):
                return {}
            found = connection.execute(query.where(rows.c.experiment == self.experiment))
            return {moment.astimezone(dt.UTC).date(): f"{count}:{newest}" for moment, count, newest in found}

    def maintain(self, today: dt.date, retention_days: int | None) -> Upkeep:
        """Delete rows of days that are older than the log is kept, and what is remembered of old writes."""
        import sqlalchemy as sa

        with self._reading.begin() as connection:
            if not _exists(connection):
                return Upkeep()
            flushes, rows = _table(FLUSHES, "written_at"), _table(TABLE, "experiment", "served_at")
            connection.execute(sa.delete(flushes).where(flushes.c.written_at < sa.func.now() - REMEMBERED))
            if retention_days is None:
                return Upkeep()
            first = dt.datetime.combine(today - dt.timedelta(days=retention_days), dt.time(), dt.UTC)
            is_old = (rows.c.experiment == self.experiment) & (rows.c.served_at < first)
            return Upkeep(deleted_rows=connection.execute(sa.delete(rows).where(is_old)).rowcount)


def _checked(address: str) -> URL:
    """Return the address with its driver named; messages do not repeat it, because it holds a password."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    expected = "such as postgresql+psycopg://user:password@host:5432/database"
    try:
        url = make_url(address)
    except ArgumentError:
        raise ValueError(f"MLPLATFORM_PREDICTION_LOG_URL must be an address of SQLAlchemy, {expected}") from None
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ValueError(
            f"MLPLATFORM_PREDICTION_LOG_URL must name a PostgreSQL database, {expected}, but begins with "
            f"{url.drivername!r}"
        )
    return url.set(drivername="postgresql+psycopg")


def _engine(url: URL, statement_timeout_s: int) -> Engine:
    from sqlalchemy import NullPool, create_engine

    arguments = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "options": f"-c timezone=UTC -c statement_timeout={statement_timeout_s * 1000}",
    }
    try:
        return create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"MLPLATFORM_PREDICTION_LOG_URL needs the driver psycopg, which is not installed ({error}); install "
            "mlplatform[sources]"
        ) from None


def _create(connection: Connection) -> None:
    import sqlalchemy as sa

    # Two first uses at once would otherwise both find nothing there.
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    types = {field.name: _TYPES.get(str(field.type), _LISTS) for field in log_schema()}
    columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
    for statement in (
        f"CREATE TABLE IF NOT EXISTS {TABLE} (row_id bigint GENERATED ALWAYS AS IDENTITY, {columns})",
        f"CREATE INDEX IF NOT EXISTS {TABLE}_served ON {TABLE} (experiment, served_at, row_id)",
        f"CREATE TABLE IF NOT EXISTS {FLUSHES} (flush_id text PRIMARY KEY, written_at timestamptz NOT NULL)",
    ):
        connection.execute(sa.text(statement))
    present = _columns(connection)
    for name, kind in types.items():
        if name not in present:
            # Asked for again, because servers of an earlier version read and write beside this one.
            connection.execute(sa.text(f"ALTER TABLE {TABLE} ADD COLUMN IF NOT EXISTS {name} {kind}"))


def _columns(connection: Connection) -> set[str]:
    """Return the names of the table's columns; none if there is no table."""
    import sqlalchemy as sa

    query = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped"
    return set(connection.execute(sa.text(query), {"name": TABLE}).scalars())


def _exists(connection: Connection) -> bool:
    import sqlalchemy as sa

    return connection.execute(sa.text("SELECT to_regclass(:name)"), {"name": TABLE}).scalar() is not None


def _is_new(connection: Connection, flush_id: str) -> bool:
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import insert

    values = {"flush_id": flush_id, "written_at": sa.func.now()}
    flushes = _table(FLUSHES, *values)
    query = insert(flushes).values(values).on_conflict_do_nothing().returning(flushes.c.flush_id)
    return connection.execute(query).first() is not None


def _table(name: str, *columns: str) -> TableClause:
    import sqlalchemy as sa

    return sa.table(name, *(sa.column(column) for column in columns))


def _copy(connection: Connection, rows: pa.Table) -> None:
    import pyarrow as pa
    from pyarrow import csv

    for place, field in enumerate(rows.schema):
        if pa.types.is_list(field.type):
            texts = [None if value is None else json.dumps(value) for value in rows[field.name].to_pylist()]
            rows = rows.set_column(place, field.name, pa.array(texts, pa.string()))
    # Written by Arrow without Python's lock. Texts are quoted, nulls are empty and not.
    buffer = pa.BufferOutputStream()
    csv.write_csv(rows, buffer, csv.WriteOptions(include_header=False))
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {TABLE} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT csv)") as copy:
        copy.write(memoryview(buffer.getvalue()))


def _possible(rows: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [field.name for field in rows.schema if field.type == pa.string()]
    for name in texts:
        is_impossible = pc.match_substring_regex(rows[name], _IMPOSSIBLE_TEXT)
        if pc.any(is_impossible).as_py():
            rows = rows.filter(pc.invert(pc.fill_null(is_impossible, False)))
    return rows


def _batch(columns: Sequence[str], rows: Sequence[Any]) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = []
    for name, values in zip(columns, zip(*rows, strict=True), strict=True):
        wanted = log_schema().field(name).type
        # PostgreSQL keeps microseconds.
        read = pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(wanted) else wanted
        if pa.types.is_list(wanted):
            arrays.append(pa.array([None if value is None else json.loads(value) for value in values], wanted))
            continue
        arrays.append(pa.array(values, read).cast(wanted))
    return pa.RecordBatch.from_arrays(arrays, list(columns))
