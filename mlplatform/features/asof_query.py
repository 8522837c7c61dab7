"""SQL of the point-in-time join: for every entity row, the newest feature row at or before its time.

The join is DuckDB's `ASOF JOIN`, which sorts both sides once and merges them, so its cost grows with the rows and not
with rows x history. This module only builds text; it knows neither Feast nor a connection. Times are compared in UTC
at DuckDB's resolution of one microsecond; a time stamp without a zone is taken as UTC.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

ROW = "__row"
TIME = "__time"
ENTITIES = "__entities"


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet source and its time columns.

    Attributes:
        location: a file, a glob, or a remote address that DuckDB can read.
        timestamp: column of the event time.
        created: column of the creation time, which decides between rows of equal key and event time; or `None`.
    """

    location: str
    timestamp: str
    created: str | None = None


@dataclass(frozen=True)
class ViewJoin:
    """One feature view of a point-in-time join.

    Attributes:
        table: where the rows are.
        keys: pairs (source column, column of the entity rows); empty for a view without entities.
        features: pairs (source column, name in the result).
        ttl: how old a feature row may be, boundary included; `None` or zero for any age.
    """

    table: ParquetTable
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    ttl: dt.timedelta | None = None


def point_in_time_sql(views: Sequence[ViewJoin]) -> str:
    """Return the query that joins `views` to the relation `__entities`.

    `__entities` holds `__row` (position), `__time` (with time zone) and the key columns. The result has one row per
    entity row, in any order: `__row`, then the features of all views in turn.
    """
    sources = [f"f{position} AS ({_rows_sql(view)})" for position, view in enumerate(views)]
    joins = [_join_sql(position, view) for position, view in enumerate(views)]
    features = [_feature_sql(position, view, index) for position, view in enumerate(views) for index in _indices(view)]
    joined = " ".join([f"{ENTITIES} e", *joins])
    return f"WITH {', '.join(sources)} {_select([f'e.{ROW}', *features], joined)}"


def latest_sql(
    table: ParquetTable, keys: Sequence[str], features: Sequence[str], start: dt.datetime, end: dt.datetime
) -> str:
    """Return the query for the newest row of every key between `start` and `end`, both included."""
    partition = f"PARTITION BY {_columns(keys)} " if keys else ""
    newest = f"row_number() OVER ({partition}ORDER BY {_newest_first(table)}) = 1"
    return f"{rows_between_sql(table, keys, features, start, end)} QUALIFY {newest}"


def rows_between_sql(
    table: ParquetTable,
    keys: Sequence[str],
    features: Sequence[str],
    start: dt.datetime | None,
    end: dt.datetime | None,
) -> str:
    """Return the query for all rows between `start` and `end`, both included; `None` leaves a side open."""
    times = [table.timestamp, *([table.created] if table.created else [])]
    columns = [*map(quote, (*keys, *features)), *(f"{_aware(name)} AS {quote(name)}" for name in times)]
    conditions = [f"{quote(table.timestamp)} IS NOT NULL"]
    if start is not None:
        conditions.append(f"{_aware(table.timestamp)} >= {_literal(start)}")
    if end is not None:
        conditions.append(f"{_aware(table.timestamp)} <= {_literal(end)}")
    return _select(columns, _scan(table), conditions)


def quote(identifier: str) -> str:
    """Return an SQL identifier that may hold any character."""
    return '"' + identifier.replace('"', '""') + '"'


def _rows_sql(view: ViewJoin) -> str:
    """Return the candidate rows of a view under the aliases k0.. (keys), t (time) and v0.. (values)."""
    columns = [f"{quote(source)} AS k{index}" for index, (source, _) in enumerate(view.keys)]
    columns.append(f"{_aware(view.table.timestamp)} AS t")
    columns += [f"{quote(source)} AS v{index}" for index, (source, _) in enumerate(view.features)]
    conditions = [f"{quote(view.table.timestamp)} IS NOT NULL"]
    if view.keys:
        # Only the history of the entities that were asked for is sorted.
        wanted = _select([f"DISTINCT {_columns([column for _, column in view.keys])}"], ENTITIES)
        conditions.append(f"({_columns([source for source, _ in view.keys])}) IN ({wanted})")
    sql = _select(columns, _scan(view.table), conditions)
    if view.table.created is None:
        return sql
    # An as-of join matches on one inequality only, so rows of equal key and time are settled before it.
    same = ", ".join([*(quote(source) for source, _ in view.keys), _aware(view.table.timestamp)])
    newest = f"row_number() OVER (PARTITION BY {same} ORDER BY {_newest_first(view.table)}) = 1"
    return f"{sql} QUALIFY {newest}"


def _select(columns: Sequence[str], source: str, conditions: Sequence[str] = ()) -> str:
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {', '.join(columns)} FROM {source}{where}"  # noqa: S608  (every name and literal here is quoted)


def _join_sql(position: int, view: ViewJoin) -> str:
    alias = f"f{position}"
    conditions = [f"e.{quote(column)} = {alias}.k{index}" for index, (_, column) in enumerate(view.keys)]
    conditions.append(f"e.{TIME} >= {alias}.t")
    return f"ASOF LEFT JOIN {alias} ON {' AND '.join(conditions)}"


def _feature_sql(position: int, view: ViewJoin, index: int) -> str:
    value, name = f"f{position}.v{index}", quote(view.features[index][1])
    if not view.ttl:
        return f"{value} AS {name}"
    # The match is the newest row, so if it is too old, every other one is too.
    limit = round(view.ttl / dt.timedelta(microseconds=1))
    return f"CASE WHEN epoch_us(e.{TIME}) - epoch_us(f{position}.t) <= {limit} THEN {value} END AS {name}"


def _indices(view: ViewJoin) -> range:
    return range(len(view.features))


def _newest_first(table: ParquetTable) -> str:
    order = f"{_aware(table.timestamp)} DESC"
    return order if table.created is None else f"{order}, {_aware(table.created)} DESC NULLS LAST"


def _scan(table: ParquetTable) -> str:
    return "read_parquet('" + table.location.replace("'", "''") + "')"


def _aware(column: str) -> str:
    # Towards the zoned type, because that is free for zoned columns; the other way DuckDB asks its calendar per value.
    return f"CAST({quote(column)} AS TIMESTAMPTZ)"


def _columns(names: Sequence[str]) -> str:
    return ", ".join(quote(name) for name in names)


def _literal(moment: dt.datetime) -> str:
    utc = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    return f"TIMESTAMPTZ '{utc:%Y-%m-%d %H:%M:%S.%f}+00'"
