"""Feast's SQLite online store, with windows in mind: bigger pages, readers beside a writer, fewer statements.

A window is some kilobytes per feature. Feast's store keeps it on pages that hold one value each, writes it with one
statement per value, reads every feature of a view whichever were asked for, makes readers wait for a writer, and takes
event times for local ones, which moves those in the hour of a change to summer time. It removes a file that others have
open, makes an empty one for whoever reads, and replaces newer rows by older ones; this one does not. The table is
Feast's own. Chosen in `feature_store.yaml` by class path (`online_store.type`); importing this module imports Feast.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from feast import Entity, FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.utils import to_naive_utc

from mlplatform.features.errors import MissingOnlineStoreError
from mlplatform.features.feast import Fence
from mlplatform.features.online.removal import without_removed
from mlplatform.locks import FileLock

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
# SQLite takes so many parameters in a statement, by its build, from 32,766 on.
KEYS_PER_STATEMENT = 10_000

OnlineRow = tuple[EntityKey, dict[str, Value], dt.datetime, dt.datetime | None]
ReadRow = tuple[dt.datetime | None, dict[str, Value] | None]


class WindowSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """The `online_store` section of `feature_store.yaml`; as for Feast's type `sqlite`."""

    type: ClassPath = "mlplatform.features.online.sqlite_store.WindowSqliteOnlineStore"  # type: ignore[assignment]


class WindowSqliteOnlineStore(SqliteOnlineStore):
    """Feast's SQLite online store, faster for wide values; without its search of texts, which nothing here asks for."""

    _opened: tuple[int, int] | None = None

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        """Return the connection to the file that is there now; only `update` makes one."""
        path = self._get_db_path(config)
        if self._conn is not None and _file_id(path) != self._opened:
            # The file was removed or replaced, and the connection would read the old one for as long as it lives.
            self._close()
        if self._conn is None:
            self._conn = _connect(path, "rw")
            self._opened = _file_id(path)
        connection: sqlite3.Connection = self._conn
        return connection

    def _close(self) -> None:
        if self._conn is not None:
            connection, self._conn = self._conn, None
            connection.close()

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make the tables that are not there, and the file."""
        path = self._get_db_path(config)
        with _lock(path):
            if _is_empty(path):
                self._close()
                _create(path)
            super().update(config, tables_to_delete, tables_to_keep, entities_to_delete, entities_to_keep, partial)

    def teardown(
        self,
        config: RepoConfig,
        tables: Sequence[FeatureView],  # noqa: ARG002  (Feast's signature; the file has only these)
        entities: Sequence[Entity],  # noqa: ARG002
    ) -> None:
        """Remove the file if no other process has it open; otherwise empty it, which the others see."""
        path = self._get_db_path(config)
        self._close()
        with _lock(path):
            if Path(path).exists():
                with contextlib.closing(_connect(path, "rw")) as connection:
                    _empty(connection)
                    if _is_alone(connection):
                        Path(path).unlink()
            if not Path(path).exists():
                _remove_companions(path)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[OnlineRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows in one transaction; one that is older than what is stored of its entity is left out.

        Rows that were pushed are newer than those that Feast materialises from the table afterwards. Entities that
        their source has removed since are left out, too.
        """
        self._write(config, table, without_removed(table, data), keep_newer=True)
        if progress is not None:
            progress(len(data))

    def overwrite(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[OnlineRow],
        fences: Sequence[Fence] = (),  # noqa: ARG002  (a lock on a file does not lapse)
    ) -> None:
        """Write rows in one transaction, whatever is stored: for callers that have compared them, or want them back."""
        self._write(config, table, data, keep_newer=False)

    def _write(self, config: RepoConfig, table: FeatureView, data: list[OnlineRow], *, keep_newer: bool) -> None:
        name = _table(config, table)
        sql = (
            f"INSERT INTO {name} "  # noqa: S608  (the name is quoted)
            "(entity_key, feature_name, value, event_ts, created_ts) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (entity_key, feature_name) DO UPDATE SET "
            "value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts"
        )
        keys = [_key(config, key) for key, *_ in data]
        connection = self._get_conn(config)
        with self._naming_causes(config), connection:
            connection.execute("BEGIN IMMEDIATE")
            newest = _stored_seconds(connection, name, keys) if keep_newer else {}
            rows = []
            for key, (_, values, event_time, created) in zip(keys, data, strict=True):
                seconds = _seconds(event_time)
                if seconds >= newest.get(key, seconds):
                    times = seconds, None if created is None else _seconds(created)
                    rows += [(key, feature, value.SerializeToString(), *times) for feature, value in values.items()]
            connection.executemany(sql, rows)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: Sequence[str] | None = None,
    ) -> list[ReadRow]:
        """Return event time and values of every key, of one moment."""
        keys = [_key(config, key) for key in entity_keys]
        names = [field.name for field in table.features] if requested_features is None else list(requested_features)
        connection = self._get_conn(config)
        with self._naming_causes(config), _waiting(connection, READ_WAIT_MS):
            found = _read(connection, _table(config, table), keys, names)
        values: dict[bytes, dict[str, Value]] = {}
        seconds: dict[bytes, int] = {}
        for key, name, value, event_seconds in found:
            values.setdefault(key, {})[name] = Value.FromString(value)
            seconds[key] = event_seconds
        times = {moment: dt.datetime.fromtimestamp(moment, dt.UTC) for moment in set(seconds.values())}
        return [(times[seconds[key]], values[key]) if key in values else (None, None) for key in keys]

    @contextlib.contextmanager
    def _naming_causes(self, config: RepoConfig) -> Iterator[None]:
        """Say what a missing table or a broken file comes from, and open the file anew the next time."""
        try:
            yield
        except sqlite3.OperationalError as error:
            path = self._get_db_path(config)
            if str(error).startswith("no such table"):
                raise MissingOnlineStoreError(f"{path} is emptied, or was never filled for this view") from error
            if (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF == sqlite3.SQLITE_IOERR:
                self._close()
            raise


def _connect(path: str, mode: Literal["rw", "rwc"]) -> sqlite3.Connection:
    """Open the file as Feast does, but make one only where that is meant.

    Raises:
        MissingOnlineStoreError: if there is no file, and `mode` makes none.
    """
    try:
        return sqlite3.connect(
            f"file:{quote(str(Path(path).absolute()))}?mode={mode}",
            uri=True,
            detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES,
            check_same_thread=False,
        )
    except sqlite3.OperationalError as error:
        if mode == "rw" and not Path(path).exists():
            raise MissingOnlineStoreError(f"{path} is not there: it was never made, deleted or torn down") from error
        raise


def _create(path: str) -> None:
    """Make an empty file with big pages and a write-ahead log; the caller holds the lock."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Processes that have a removed file open still hold its log and the index of it, and would keep every reader of a
    # new file beside these from its rows ("disk I/O error"). Theirs live on without a name.
    _remove_companions(path)
    with contextlib.closing(_connect(path, "rwc")) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # takes effect in a file that is still empty
        # Another process may be converting or using the file.
        with contextlib.suppress(sqlite3.OperationalError), _waiting(connection, READ_WAIT_MS):
            connection.execute("PRAGMA journal_mode = WAL")


def _empty(connection: sqlite3.Connection) -> None:
    """Drop all tables in one transaction, and forget the file's identity, so that all is materialised again."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        for (name,) in tables:
            connection.execute(f"DROP TABLE {_quoted(name)}")
        connection.execute("PRAGMA user_version = 0")


def _is_alone(connection: sqlite3.Connection) -> bool:
    """Give up the write-ahead log, which SQLite grants to the only connection to a file."""
    try:
        with _waiting(connection, READ_WAIT_MS):
            return str(connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]) == "delete"
    except sqlite3.OperationalError:
        return False


def _is_empty(path: str) -> bool:
    return not Path(path).exists() or Path(path).stat().st_size == 0


def _remove_companions(path: str) -> None:
    for ending in ("-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)


def _lock(path: str) -> FileLock:
    """Return the lock under which the file is made and removed."""
    return FileLock(Path(f"{path}.lock"))


def _read(
    connection: sqlite3.Connection, table: str, keys: Sequence[bytes], names: Sequence[str]
) -> list[tuple[bytes, str, bytes, int]]:
    """Return key, feature, value and seconds of what is stored, of one moment however many keys there are."""
    found: list[tuple[bytes, str, bytes, int]] = []
    is_long = len(keys) > KEYS_PER_STATEMENT
    if is_long:
        connection.execute("BEGIN")
    try:
        for start in range(0, len(keys), KEYS_PER_STATEMENT):
            block = keys[start : start + KEYS_PER_STATEMENT]
            # The sum keeps the converter of the column's type from making a date and time of every value's time.
            sql = (
                f"SELECT entity_key, feature_name, value, event_ts + 0 FROM {table} "  # noqa: S608  (quoted)
                f"WHERE entity_key IN ({_marks(block)}) AND feature_name IN ({_marks(names)})"
            )
            found += connection.execute(sql, [*block, *names]).fetchall()
    finally:
        if is_long:
            connection.rollback()
    return found


def _stored_seconds(connection: sqlite3.Connection, table: str, keys: Sequence[bytes]) -> dict[bytes, int]:
    """Return the event time of what is stored of entities, in seconds since 1970 UTC."""
    stored: dict[bytes, int] = {}
    for start in range(0, len(keys), KEYS_PER_STATEMENT):
        block = keys[start : start + KEYS_PER_STATEMENT]
        sql = (
            f"SELECT entity_key, MAX(event_ts + 0) FROM {table} "  # noqa: S608  (quoted)
            f"WHERE entity_key IN ({_marks(block)}) GROUP BY entity_key"
        )
        stored |= dict(connection.execute(sql, block).fetchall())
    return stored


@contextlib.contextmanager
def _waiting(connection: sqlite3.Connection, milliseconds: int) -> Iterator[None]:
    """Have SQLite wait at most so long for a lock while the context is open."""
    connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {WRITE_WAIT_MS}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


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
    return _quoted(name)


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
