"""SQL of the as-of store: the point-in-time join, the newest rows, the rows of a time range and their entities.

For every entity row the join finds the newest feature row at or before its time. It is DuckDB's `ASOF JOIN`, which
sorts both sides once and merges them, so its cost grows with the rows and not with rows x history. This module only
builds text; it knows neither Feast nor a connection. Times are compared in UTC at DuckDB's resolution of one
microsecond; a time stamp without a zone is taken as UTC.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

ROW = "__row"
TIME = "__time"
ENTITIES = "__entities"

_MICROSECOND = dt.timedelta(microseconds=1)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet source and its time columns.

    Attributes:
        files: what DuckDB reads: paths on disk, or addresses of a file system registered with the connection.
        timestamp: column of the event time.
        created: column of the creation time, which decides between rows of equal key and event time; or `None`.
        partitions: pairs (column, SQL type) of the columns that stand in the paths as `column=value`.
        schema: the columns of the first file and of the paths.
    """

    files: tuple[str, ...]
    timestamp: str
    created: str | None = None
    partitions: tuple[tuple[str, str], ...] = ()
    schema: pa.Schema | None = None


@dataclass(frozen=True)
class ViewJoin:
    """One feature view of a point-in-time join.

    Attributes:
        table: where the rows are.
        keys: pairs (source column, column of the entity rows); empty for a view without entities.
        features: pairs (source column, name in the result).
        ttl: how old a feature row may be, boundary included; `None` or zero for any age.
        known_by_then: whether only feature rows count that were created at or before the time of the entity row; for
            a table without creation times it has no effect.
    """

    table: ParquetTable
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    ttl: dt.timedelta | None = None
    known_by_then: bool = False


@dataclass(frozen=True)
class TimeSpan:
    """The first and last time of the entity rows, in microseconds since 1970 UTC."""

    first: int
    last: int


def point_in_time_sql(views: Sequence[ViewJoin], span: TimeSpan, *, in_order: bool) -> str:
    """Return the query that joins `views` to the relation `__entities`.

    `__entities` holds `__row` (position), `__time` (with time zone, within `span`) and the key columns. The result has
    one row per entity row: the features of all views in turn, in the order of `__row` if `in_order`; otherwise in any
    order, with `__row` in front.
    """
    sources = [f"f{position} AS ({_rows_sql(view, span)})" for position, view in enumerate(views)]
    joins = [_join_sql(position, view) for position, view in enumerate(views)]
    features = [_feature_sql(position, view, index) for position, view in enumerate(views) for index in _indices(view)]
    columns = features if in_order else [f"e.{ROW}", *features]
    joined = " ".join([f"{ENTITIES} e", *joins])
    order = f" ORDER BY e.{ROW}" if in_order else ""
    return f"WITH {', '.join(sources)} {_select(columns, joined)}{order}"


def entities_sql(views: Sequence[ViewJoin], end: dt.datetime, time_column: str) -> str:
    """Return the query for the entities that have a row in one of `views` that is alive at `end`, in key order.

    All views have the same key columns. A row has `end` as its time, followed by the keys; a null key is left out.
    """
    last = microseconds(end)
    selects = []
    for view in views:
        conditions = _alive(view, TimeSpan(last, last))
        conditions += [f"{quote(source)} IS NOT NULL" for source, _ in view.keys]
        names = sorted(view.keys, key=lambda pair: pair[1])
        columns = [f"{quote(source)} AS {quote(column)}" for source, column in names]
        selects.append(_select(columns, _scan(view.table), conditions))
    keys = sorted(quote(column) for _, column in views[0].keys)
    everywhere = f"({' UNION ALL '.join(selects)})"
    entities = _select([f"DISTINCT {_moment(last)} AS {quote(time_column)}", *keys], everywhere)
    return f"{entities} ORDER BY {', '.join(keys)}"


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
    plain = [name for name in dict.fromkeys([*keys, *features]) if name not in times]
    columns = [*map(quote, plain), *(f"{_aware(name)} AS {quote(name)}" for name in times)]
    first = None if start is None else microseconds(start)
    last = None if end is None else microseconds(end)
    return _select(columns, _scan(table), _between(table, first, last))


def time_range_sql(entities: str, time_column: str) -> str:
    """Return the query for the first and last time of the rows that the query `entities` gives."""
    time = _aware(time_column)
    return _select([f"min({time})", f"max({time})"], f"({entities})")


def microseconds(moment: dt.datetime) -> int:
    """Return a moment in microseconds since 1970 UTC; one without a zone is taken as UTC."""
    return ((moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment) - _EPOCH) // _MICROSECOND


def quote(identifier: str) -> str:
    """Return an SQL identifier that may hold any character."""
    return '"' + identifier.replace('"', '""') + '"'


def _rows_sql(view: ViewJoin, span: TimeSpan) -> str:
    """Return the candidate rows of a view under the aliases k0.. (keys), t (time), o (order) and v0.. (values).

    Without creation times, the order is the time, and stands in its place: every column here is sorted and copied.
    """
    columns = [f"{quote(source)} AS k{index}" for index, (source, _) in enumerate(view.keys)]
    columns.append(f"{_order_sql(view)} AS o")
    if view.ttl and view.table.created is not None:
        columns.append(f"{_aware(view.table.timestamp)} AS t")
    columns += [f"{quote(source)} AS v{index}" for index, (source, _) in enumerate(view.features)]
    conditions = _alive(view, span)
    if view.keys:
        # Only the history of the entities that were asked for is sorted.
        wanted = _select([f"DISTINCT {_columns([column for _, column in view.keys])}"], ENTITIES)
        conditions.append(f"({_columns([source for source, _ in view.keys])}) IN ({wanted})")
    sql = _select(columns, _scan(view.table), conditions)
    if not _is_known_by_then(view):
        return sql
    # A row that was created after a newer one was, or after a newer version of itself, is never the answer. Once those
    # are gone, the later a row became known the newer it is, and one inequality finds the newest known.
    keys = [f"k{index}" for index in range(len(view.keys))]
    partition = f"PARTITION BY {', '.join(keys)} " if keys else ""
    created = _aware(str(view.table.created))
    version = _version(_aware(view.table.timestamp), created)
    return f"{sql} QUALIFY {version} = max({version}) OVER ({partition}ORDER BY o)"


def _alive(view: ViewJoin, span: TimeSpan) -> list[str]:
    """Return the conditions that keep rows which can be an answer to any time in `span`; they also skip files."""
    first = span.first - view.ttl // _MICROSECOND if view.ttl else None
    conditions = _between(view.table, first, span.last)
    if _is_known_by_then(view):
        conditions.append(f"{_aware(str(view.table.created))} <= {_moment(span.last)}")
    return conditions


def _between(table: ParquetTable, first: int | None, last: int | None) -> list[str]:
    time = _aware(table.timestamp)
    conditions = [f"{quote(table.timestamp)} IS NOT NULL"]
    if first is not None:
        conditions.append(f"{time} >= {_moment(first)}")
    if last is not None:
        conditions.append(f"{time} <= {_moment(last)}")
    return conditions


def _is_known_by_then(view: ViewJoin) -> bool:
    return view.known_by_then and view.table.created is not None


def _order_sql(view: ViewJoin) -> str:
    """Return what the rows of a view are matched by: the last one at or below the bound of an entity row counts."""
    time = _aware(view.table.timestamp)
    if view.table.created is None:
        return time
    created = _aware(view.table.created)
    return f"greatest({time}, {created})" if view.known_by_then else _version(time, created)


def _version(time: str, created: str) -> str:
    """Return one number that orders rows by event time and then by creation time, a missing one first.

    An as-of join matches on one inequality only. A creation time has 62 bits, which is 73,000 years to each side.
    """
    return f"(epoch_us({time}) * {1 << 62}::HUGEINT + coalesce(epoch_us({created}), {-(1 << 61)}))"


def _bound_sql(view: ViewJoin) -> str:
    if view.table.created is None or view.known_by_then:
        return f"e.{TIME}"
    return f"(epoch_us(e.{TIME}) * {1 << 62}::HUGEINT + {(1 << 61) - 1})"


def _join_sql(position: int, view: ViewJoin) -> str:
    alias = f"f{position}"
    conditions = [f"e.{quote(column)} = {alias}.k{index}" for index, (_, column) in enumerate(view.keys)]
    conditions.append(f"{_bound_sql(view)} >= {alias}.o")
    return f"ASOF LEFT JOIN {alias} ON {' AND '.join(conditions)}"


def _feature_sql(position: int, view: ViewJoin, index: int) -> str:
    value, name = f"f{position}.v{index}", quote(view.features[index][1])
    if not view.ttl:
        return f"{value} AS {name}"
    # The match is the newest row, so if it is too old, every other one is too.
    limit = view.ttl // _MICROSECOND
    time = f"f{position}.{'o' if view.table.created is None else 't'}"
    return f"CASE WHEN epoch_us(e.{TIME}) - epoch_us({time}) <= {limit} THEN {value} END AS {name}"


def _indices(view: ViewJoin) -> range:
    return range(len(view.features))


def _newest_first(table: ParquetTable) -> str:
    order = f"{_aware(table.timestamp)} DESC"
    return order if table.created is None else f"{order}, {_aware(table.created)} DESC NULLS LAST"


def _select(columns: Sequence[str], source: str, conditions: Sequence[str] = ()) -> str:
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {', '.join(columns)} FROM {source}{where}"  # noqa: S608  (every name and literal here is quoted)


def _scan(table: ParquetTable) -> str:
    files = ", ".join(_text(_without_wildcards(path)) for path in table.files)
    options = ["union_by_name = true", f"hive_partitioning = {str(bool(table.partitions)).lower()}"]
    if table.partitions:
        types = ", ".join(f"{_text(name)}: {kind}" for name, kind in table.partitions)
        options.append(f"hive_types = {{{types}}}")
    return f"read_parquet([{files}], {', '.join(options)})"


def _without_wildcards(path: str) -> str:
    """Return a pattern that matches this path only."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _aware(column: str) -> str:
    # Towards the zoned type, because that is free for zoned columns; the other way DuckDB asks its calendar per value.
    return f"CAST({quote(column)} AS TIMESTAMPTZ)"


def _columns(names: Sequence[str]) -> str:
    return ", ".join(quote(name) for name in names)


def _moment(since_1970: int) -> str:
    return f"make_timestamptz({since_1970})"
