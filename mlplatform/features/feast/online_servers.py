"""The servers that an online store can be: how Feast is told about one, its lock, and how to recognise it.

SQLite by default, Redis where `MLPLATFORM_REDIS_URL` names one.
"""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.feast.leases import Fence, Lease, lapsed
from mlplatform.features.feast.secret import Secret
from mlplatform.features.retry import StoreAccess, call_store, online_access
from mlplatform.locks import FileLock
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

# A lock on Redis lasts this long after its holder last renewed it, which a thread does several times as often: one that
# was killed does not keep the others waiting, and one that is slow keeps its lock.
LOCK_S = 10.0
RENEWALS_PER_LEASE = 4
LOCK_WAIT_S = 600.0
# A server that hangs must not hang every request with it. Redis-py by itself tries for ten seconds to reach a server
# that is not there; how often to ask is decided in `retry`, which knows who waits.
CONNECTION: dict[str, Any] = {"socket_timeout": 10.0, "socket_connect_timeout": 3.0, "retry": None}


class OnlineServer(Protocol):
    """What the platform needs of an online store's server beyond Feast's own interface."""

    def config(self) -> dict[str, Any]:
        """Return the section `online_store` of Feast's configuration."""

    def identity(self) -> str:
        """Return text that another server, or this one emptied, does not return."""

    def lock(self, name: str) -> AbstractContextManager[Lease]:
        """Hold a lock against all other processes that write to this server."""


def online_server(settings: Settings) -> OnlineServer:
    """Return the server of an installation."""
    if settings.redis_url is None:
        return SqliteServer(settings.feast_dir)
    return RedisServer(settings.redis_url, online_access(settings))


class SqliteServer:
    """A SQLite file in Feast's folder; its writers are on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def _path(self) -> Path:
        return self._folder / "online.db"

    def config(self) -> dict[str, Any]:
        """Return the section `online_store` of Feast's configuration."""
        return {"type": "mlplatform.features.online.sqlite_store.WindowSqliteOnlineStore", "path": str(self._path)}

    def identity(self) -> str:
        """Return a number drawn once per file, which the file keeps in its header."""
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            number = _user_version(connection)
            if number == 0:
                connection.execute(f"PRAGMA user_version = {secrets.randbelow(2**31 - 1) + 1}")
                number = _user_version(connection)
        return f"sqlite {number}"

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[Lease]:
        """Hold a file lock; the system frees it when its holder ends."""
        with FileLock(self._folder / f"{name}.lock"):
            yield Lease()


class RedisServer:
    """A Redis server; its writers may be on several machines.

    Parameters:
        url: `redis[s]://[user[:password]@]host[:port][/db]` or `unix://[user[:password]@]/path[?db=n]`; further options
            of the connection follow `?`.
        access: how the server is asked.
    """

    def __init__(self, url: str, access: StoreAccess) -> None:
        self._url = url
        self._access = access

    def config(self) -> dict[str, Any]:
        """Return the section `online_store` of Feast's configuration."""
        return {
            "type": "mlplatform.features.online.redis_store.WindowRedisOnlineStore",
            "connection_string": Secret(redis_connection(self._url)),
        }

    def identity(self) -> str:
        """Return text drawn once per database, which the database keeps under a key."""
        client, key = _redis_client(self._url), "mlplatform:online_store"
        client.set(key, uuid.uuid4().hex, nx=True)
        return f"redis {client.get(key)!r}"

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[Lease]:
        """Hold a lock on the server; it is renewed while its holder lives, and lapses seconds after that was killed.

        A holder that could not renew it in time (stopped, or cut off from the server) learns that when it confirms. One
        that is stopped after that is refused by the server as soon as another one has taken the lock: what it writes
        bears its number, and the server keeps that of the last holder.

        Raises:
            FeatureStoreError: if another holder does not let go of it.
            StoreUnavailableError: if the server does not answer.
        """
        from redis.exceptions import LockError, RedisError

        from mlplatform.features.feast.redis_lock import FencedLock

        lock = FencedLock(
            _redis_client(self._url),
            f"mlplatform:lock:{name}",
            counter=f"mlplatform:fence:{name}",
            timeout=LOCK_S,
            sleep=0.02,
            thread_local=False,  # another thread renews it
        )
        if not call_store(lambda: lock.acquire(blocking_timeout=LOCK_WAIT_S), self._access):
            raise FeatureStoreError(f"the lock {name!r} on the online store was not free within {LOCK_WAIT_S:.0f} s")

        def is_held() -> bool:
            try:
                return bool(lock.reacquire())
            except LockError:
                return False

        def confirm() -> None:
            if not call_store(is_held, self._access):
                raise lapsed(name)

        try:
            with _repeating(is_held, LOCK_S / RENEWALS_PER_LEASE):
                yield Lease(confirm, (Fence(name, lock.counter, lock.number),))
        finally:
            # Lapsed, it is no longer ours to free; and a server that is gone frees it by itself.
            with contextlib.suppress(LockError, RedisError):
                lock.release()


def redis_connection(url: str) -> str:
    """Translate the address of a Redis server to Feast's comma-separated form.

    Raises:
        FeatureStoreError: if the address cannot be written in that form. The message does not repeat it.
    """
    options = redis_options(url)
    address = f"{options.pop('host', 'localhost')}:{options.pop('port', 6379)}"
    pairs = [f"{name}={json.dumps(value)}" for name, value in options.items()]
    if any("," in pair for pair in pairs):
        raise FeatureStoreError("MLPLATFORM_REDIS_URL: Feast cannot take a user, password or path with a comma")
    return ",".join([address, *pairs])


def redis_options(url: str) -> dict[str, Any]:
    """Return the address of a Redis server as the parameters of redis-py's client.

    Raises:
        FeatureStoreError: if it is no such address. The message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError as error:
        raise FeatureStoreError("MLPLATFORM_REDIS_URL has no valid port") from error.__cause__
    is_socket = parts.scheme == "unix"
    if parts.scheme not in ("redis", "rediss", "unix") or not (parts.path if is_socket else parts.hostname):
        raise FeatureStoreError(
            "MLPLATFORM_REDIS_URL must look like redis://user:password@host:6379/0, rediss://... for TLS, or "
            "unix:///path/to/socket?db=0"
        )
    query = dict(parse_qsl(parts.query))
    database = query.pop("db", "") if is_socket else parts.path.strip("/")
    if database and not database.isdecimal():
        raise FeatureStoreError("MLPLATFORM_REDIS_URL: the database must be a number")
    options: dict[str, Any] = {"db": int(database or 0)}
    if is_socket:
        options["unix_socket_path"] = unquote(parts.path)
    else:
        options = {"host": parts.hostname, "port": port, **options}
    if parts.scheme == "rediss":
        options["ssl"] = True
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value:
            options[name] = unquote(value)
    return {**options, **CONNECTION, **_query_options(query)}


def _query_options(query: dict[str, str]) -> dict[str, Any]:
    unknown = sorted(set(query) - set(_QUERY))
    if unknown:
        raise FeatureStoreError(f"MLPLATFORM_REDIS_URL: unknown options {unknown}; known: {', '.join(_QUERY)}")
    try:
        return {name: _QUERY[name](value) for name, value in query.items()}
    except (ValueError, KeyError):
        raise FeatureStoreError("MLPLATFORM_REDIS_URL: an option behind '?' has no valid value") from None


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_QUERY: dict[str, Callable[[str], Any]] = {
    "socket_timeout": float,
    "socket_connect_timeout": float,
    "health_check_interval": int,
    "ssl_ca_certs": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_cert_reqs": str,
    "ssl_check_hostname": _flag,
}


@contextlib.contextmanager
def _repeating(renew: Callable[[], bool], every_s: float) -> Iterator[None]:
    """Call `renew` in a thread of its own, again and again until it returns `False`, while the context is open."""
    from redis.exceptions import RedisError

    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.wait(every_s):
            # A server that does not answer now may do so before the lease ends.
            with contextlib.suppress(RedisError):
                if not renew():
                    return

    threading.Thread(target=repeat, name="renew-lock", daemon=True).start()
    try:
        yield
    finally:
        # Not waited for: the server may hang, and what is renewed after its release is told by its token.
        is_over.set()


@functools.lru_cache(maxsize=8)
def _redis_client(url: str) -> Redis:
    """Return a client for locks and bookkeeping; Feast's own one is not for others to use."""
    from redis import Redis

    return Redis(**redis_options(url))


def _user_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
