"""The same rows in a table of an SQL database, one transaction per run.

The key of a row is experiment, entity, origin, step, target and version. A run writes its rows over those of the same
key and deletes what an earlier run for the same experiment, origin and version left beyond them, so that any number of
runs leaves what the last one found. Readers see the rows of before, or all of them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.config import ENTITY, ForecastDatabase
from mlplatform.forecasts.rows import INTERVALS
from mlplatform.forecasts.table import ORIGIN, chunk_files, origin_of
from mlplatform.settings import secret_from_env

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

KEY = ("experiment", ENTITY, ORIGIN, "step", "target", "version")
ROWS_PER_STATEMENT = 2_000


class ForecastDatabaseError(RuntimeError):
    """A database that cannot take the rows. The message has no password."""


def upsert_table(folder: Path, experiment: str, version: int, target: ForecastDatabase) -> int:
    """Write the table of one origin into the database and return the number of rows.

    Parameters:
        folder: of the origin.

    Raises:
        ForecastDatabaseError: if the environment variable is not set, the database is of a kind without an upsert that
            is known here, or it refuses; nothing is changed then.
    """
    import sqlalchemy as sa
    from sqlalchemy.pool import NullPool

    address = secret_from_env(target.address_env)
    if address is None:
        raise ForecastDatabaseError(
            f"experiment {experiment!r}: forecasts.database.address_env names {target.address_env}, which is not set; "
            "set it to the database's SQLAlchemy address, such as postgresql+psycopg://user:password@host/database"
        )
    run = uuid.uuid4().hex
    origin = origin_of(folder.name).to_pydatetime()
    engine = None
    try:
        engine = sa.create_engine(address, poolclass=NullPool, hide_parameters=True)
        table = _table(target.table, _columns(folder))
        statement = _upsert(engine.dialect.name, table)
        table.metadata.create_all(engine)
        rows = 0
        with engine.begin() as connection:
            for path in chunk_files(folder):
                for batch in _batches(path, {ORIGIN: origin, "run_id": run}):
                    connection.execute(statement, batch)
                    rows += len(batch)
            left = (table.c.experiment == experiment) & (table.c.origin == origin) & (table.c.version == version)
            connection.execute(sa.delete(table).where(left & (table.c.run_id != run)))
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        # Not chained: nobody can vouch for what a driver's own errors carry.
        raise _refused(error, address, target, experiment) from None
    finally:
        if engine is not None:
            engine.dispose()
    return rows


def _columns(folder: Path) -> Sequence[str]:
    import pyarrow.parquet as pq

    return [name for path in chunk_files(folder)[:1] for name in pq.read_schema(path).names]


def _table(name: str, columns: Sequence[str]) -> sa.Table:
    """Return the table that takes rows of some columns; that of the intervals is there where several are made."""
    import sqlalchemy as sa

    schema, _, table = name.rpartition(".")
    moment = sa.DateTime(timezone=True)
    return sa.Table(
        table,
        sa.MetaData(),
        sa.Column("experiment", sa.String(128), primary_key=True),
        # Text whatever the dataset has: experiments share the table.
        sa.Column(ENTITY, sa.String(255), primary_key=True),
        sa.Column(ORIGIN, moment, primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("target", sa.String(128), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("timestamp", moment),
        *(sa.Column(column, sa.Double) for column in ("value", "lower", "upper", "coverage")),
        sa.Column("label", sa.Text),
        sa.Column("probabilities", sa.Text),
        sa.Column("pair_id", sa.String(64)),
        sa.Column("window_end", moment),
        sa.Column("event_time", moment),
        sa.Column("age_seconds", sa.Double),
        sa.Column("stale", sa.Boolean),
        sa.Column("observed", sa.Double),
        sa.Column("fallback", sa.Boolean),
        sa.Column("marks", sa.Text),
        *([sa.Column(INTERVALS, sa.Text)] if INTERVALS in columns else []),
        sa.Column("run_id", sa.String(32)),
        schema=schema or None,
    )


def _upsert(dialect: str, table: sa.Table) -> Any:
    """Return the statement that writes a row over one of the same key."""
    rest = [column.name for column in table.columns if column.name not in KEY]
    if dialect in ("postgresql", "sqlite"):
        from sqlalchemy.dialects import postgresql, sqlite

        statement = {"postgresql": postgresql, "sqlite": sqlite}[dialect].insert(table)
        return statement.on_conflict_do_update(
            index_elements=list(KEY), set_={name: statement.excluded[name] for name in rest}
        )
    if dialect in ("mysql", "mariadb"):
        from sqlalchemy.dialects import mysql

        replacing = mysql.insert(table)
        return replacing.on_duplicate_key_update({name: replacing.inserted[name] for name in rest})
    raise ForecastDatabaseError(
        f"forecasts.database: rows cannot be written over each other in a database of the kind {dialect!r}; use one of "
        "postgresql, sqlite, mysql, mariadb, or load the Parquet table"
    )


def _batches(path: Path, common: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a file as plain values."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(ROWS_PER_STATEMENT):
        columns = {name: _plain(name, batch.column(name)) for name in batch.schema.names}
        names = list(columns)
        yield [{**dict(zip(names, row, strict=True)), **common} for row in zip(*columns.values(), strict=True)]


def _plain(name: str, column: pa.Array) -> Sequence[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        # Python's own times have no nanoseconds, nor do databases.
        return list(column.cast(pa.timestamp("us", tz="UTC"), safe=False).to_pylist())
    values = column.to_pylist()
    if name == ENTITY:
        return [str(value) for value in values]
    if name == "marks":
        return [json.dumps(value) for value in values]
    if name == INTERVALS:
        return [None if value is None else json.dumps(value) for value in values]
    if name == "probabilities":
        return [None if value is None else json.dumps(dict(value)) for value in values]
    return list(values)


def _refused(error: Exception, address: str, target: ForecastDatabase, experiment: str) -> ForecastDatabaseError:
    import sqlalchemy as sa

    text = " ".join(str(getattr(error, "orig", None) or error).split())
    try:
        password = sa.make_url(address).password
    except sa.exc.ArgumentError:
        password, text = None, "the address cannot be read"
    if password:
        text = text.replace(str(password), "***")
    return ForecastDatabaseError(
        f"experiment {experiment!r}: the database that {target.address_env} names refuses the table {target.table}: "
        f"{text}; nothing was changed in it. Check the address, the rights and the columns of the table"
    )
