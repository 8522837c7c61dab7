"""Feast's SQLite online store, with windows in mind: bigger pages, readers beside a writer, fewer statements.

A window is some kilobytes per feature. Feast's store keeps it on pages that hold one value each, writes it with one
statement per value, reads every feature of a view whichever were asked for, makes readers wait for a writer, and takes
event times for local ones, which moves those in the hour of a change to summer time. The table is Feast's own. Chosen
in `feature_store.yaml` by class path (`online_store.type`); importing this module imports Feast.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.utils import to_naive_utc

# The second is the path of earlier versions, which stands in feature_store.yaml files of users.
ClassPath = Literal[
    "mlplatform.features.online.sqlite_store.WindowSqliteOnlineStore",
    "mlplatform.features.sqlite_store.WindowSqliteOnlineStore",
]
PAGE_BYTES = 16_384
# How long SQLite waits for a lock. A reader gives up soon, because its caller decides about another try within the time
# that a request has; with a write-ahead log it hardly ever meets a lock.
READ_WAIT_MS = 100
WRITE_WAIT_MS = 5_000

OnlineRow = tuple[EntityKey, dict[str, Value], dt.datetime, dt.datetime | None]
ReadRow = tuple[dt.datetime | None, dict[str, Value] | None]


class WindowSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """The `online_store` section of `feature_store.yaml`; as for Feast's type `sqlite`."""

    type: ClassPath = "mlplatform.features.online.sqlite_store.WindowSqliteOnlineStore"  # type: ignore[assignment]


class WindowSqliteOnlineStore(SqliteOnlineStore):
    """Feast's SQLite online store, faster for wide values; without its search of texts, which nothing here asks for."""

    _opened: tuple[int, int] | None = None

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        path = self._get_db_path(config)
        if self._conn is not None and _file_id(path) != self._opened:
            # The file was removed or replaced, and the connection would read the old one for as long as it lives.
            self._conn.close()
            self._conn = None
        is_new = self._conn is None
        connection: sqlite3.Connection = super()._get_conn(config)
        if is_new:
            # The page size takes effect in a file that is still empty.
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            # Another process may be converting or using the file; then a later connection converts it.
            with contextlib.suppress(sqlite3.OperationalError), _waiting(connection, READ_WAIT_MS):
                connection.execute("PRAGMA journal_mode = WAL")
            self._opened = _file_id(path)
        return connection

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[OnlineRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows in one transaction; a row that is there is replaced."""
        rows = []
        for key, values, event_time, created in data:
            key_bytes = _key(config, key)
            times = _seconds(event_time), None if created is None else _seconds(created)
            for name, value in values.items():
                rows.append((key_bytes, name, value.SerializeToString(), *times))
        sql = (
            f"INSERT INTO {_table(config, table)} "  # noqa: S608  (the name is quoted)
            "(entity_key, feature_name, value, event_ts, created_ts) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (entity_key, feature_name) DO UPDATE SET "
            "value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts"
        )
        connection = self._get_conn(config)
        with connection:
            connection.executemany(sql, rows)
        if progress is not None:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: Sequence[str] | None = None,
    ) -> list[ReadRow]:
        """Return event time and values of every key, in one statement and hence of one moment."""
        keys = [_key(config, key) for key in entity_keys]
        names = [field.name for field in table.features] if requested_features is None else list(requested_features)
        # The sum keeps the converter of the column's type from making a date and time of every single value's time.
        sql = (
            f"SELECT entity_key, feature_name, value, event_ts + 0 FROM {_table(config, table)} "  # noqa: S608  (quoted)
            f"WHERE entity_key IN ({_marks(keys)}) AND feature_name IN ({_marks(names)})"
        )
        connection = self._get_conn(config)
        with _waiting(connection, READ_WAIT_MS):
            found = connection.execute(sql, [*keys, *names]).fetchall()
        values: dict[bytes, dict[str, Value]] = {}
        seconds: dict[bytes, int] = {}
        for key, name, value, event_seconds in found:
            values.setdefault(key, {})[name] = Value.FromString(value)
            seconds[key] = event_seconds
        times = {moment: dt.datetime.fromtimestamp(moment, dt.UTC) for moment in set(seconds.values())}
        return [(times[seconds[key]], values[key]) if key in values else (None, None) for key in keys]


@contextlib.contextmanager
def _waiting(connection: sqlite3.Connection, milliseconds: int) -> Iterator[None]:
    """Have SQLite wait at most so long for a lock while the context is open."""
    connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {WRITE_WAIT_MS}")


def _file_id(path: str) -> tuple[int, int] | None:
    """Return what tells the file at a path from another one that was there before; `None` if there is none."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _key(config: RepoConfig, key: EntityKey) -> bytes:
    return _key_bytes(key.SerializeToString(), config.entity_key_serialization_version)


@functools.lru_cache(maxsize=65_536)
def _key_bytes(message: bytes, version: int) -> bytes:
    """Return the key of an entity in the table; working it out takes longer than looking it up here."""
    return bytes(serialize_entity_key(EntityKey.FromString(message), entity_key_serialization_version=version))


def _seconds(moment: dt.datetime) -> int:
    return int(to_naive_utc(moment).replace(tzinfo=dt.UTC).timestamp())


def _table(config: RepoConfig, view: FeatureView) -> str:
    name = compute_table_id(config.project, view, config.registry.enable_online_feature_view_versioning)
    return '"' + name.replace('"', '""') + '"'


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
