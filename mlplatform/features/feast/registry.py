"""Feast's registry of an installation: a file by default, a database where `MLPLATFORM_FEAST_REGISTRY` names one.

A file is read, modified and written back as a whole by every change, and a database object by object; either way a
change reads before it writes, so changes are made under a lock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.features.errors import FeatureStoreError, StoreUnavailableError
from mlplatform.features.feast.secret import Secret
from mlplatform.locks import FileLock
from mlplatform.settings import Settings, sqlite_file

# How long a process goes on with what it read from a database. A file is looked at every time: that costs microseconds.
DATABASE_TTL_S = 60
LOCK_WAIT_S = 600
CONNECT_S = 3
LOCK_NAME = "mlplatform_feast_registry"
LOCK_KEY = 7_304_118_252_901_133_221


@dataclass(frozen=True)
class _LockStatements:
    """How a database locks: both statements take `:key` and `:name`; taking the lock answers neither 0 nor null."""

    take: str
    free: str


# Databases of one machine (SQLite) are covered by the file lock.
_LOCKS = {
    "postgresql": _LockStatements("SELECT pg_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"),
    "mysql": _LockStatements(f"SELECT GET_LOCK(:name, {LOCK_WAIT_S})", "SELECT RELEASE_LOCK(:name)"),
    "mariadb": _LockStatements(f"SELECT GET_LOCK(:name, {LOCK_WAIT_S})", "SELECT RELEASE_LOCK(:name)"),
}


def registry_config(settings: Settings) -> dict[str, Any]:
    """Return the section `registry` of Feast's configuration."""
    if settings.feast_registry is None:
        return file_registry(settings.feast_dir / "registry.db")
    return {
        "registry_type": "sql",
        "path": Secret(settings.feast_registry),
        "cache_ttl_seconds": DATABASE_TTL_S,
        # A pooled connection that a restarted server has dropped is replaced instead of failing a request.
        "sqlalchemy_config_kwargs": {"echo": False, "pool_pre_ping": True, **_patience(settings.feast_registry)},
    }


def file_registry(path: Path) -> dict[str, Any]:
    """Return the section `registry` of Feast's configuration for a registry in a file."""
    return {
        "path": str(path),
        "registry_store_type": "mlplatform.features.feast.registry_store.AtomicFileRegistryStore",
    }


def _patience(address: str) -> dict[str, Any]:
    """Return how long a server may take to answer a new connection: without it, minutes where packets are dropped."""
    scheme = address.partition(":")[0].partition("+")[0]
    return {"connect_args": {"connect_timeout": CONNECT_S}} if scheme in _LOCKS else {}


def registry_version(settings: Settings) -> tuple[int, ...]:
    """Return what changes whenever objects read from the registry must be read again."""
    if settings.feast_registry is not None:
        return (int(time.monotonic() // DATABASE_TTL_S),)
    try:
        status = (settings.feast_dir / "registry.db").stat()
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def require_registry(settings: Settings) -> None:
    """Refuse to go on without a registry that a look at it would make anew.

    Raises:
        StoreUnavailableError: if the registry is a file, and is not there.
    """
    path = settings.feast_dir / "registry.db"
    if settings.feast_registry is not None:
        named = sqlite_file(settings.feast_registry)
        if named is None:
            return
        path = named
    if not path.exists():
        action = "bring it back, or run apply_dataset"
        raise StoreUnavailableError(f"the Feast registry ({path})", FileNotFoundError(), 1, 0.0, action)


@contextlib.contextmanager
def registry_lock(settings: Settings) -> Iterator[None]:
    """Hold the right to change the registry, against other threads and processes, and machines if it is on a server."""
    with FileLock(settings.feast_dir / "registry.lock"), contextlib.ExitStack() as stack:
        if settings.feast_registry is not None:
            stack.enter_context(_database_lock(settings))
        yield


@contextlib.contextmanager
def registry_errors(settings: Settings) -> Iterator[None]:
    """Raise `StoreUnavailableError` for a registry database that does not answer; the message has no credentials."""
    if settings.feast_registry is None:
        yield
        return
    from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError

    began = time.monotonic()
    try:
        yield
    except (ArgumentError, NoSuchModuleError):
        # Not chained: SQLAlchemy repeats what it was given.
        raise FeatureStoreError(
            "MLPLATFORM_FEAST_REGISTRY must be a database address of SQLAlchemy with an installed driver, such as "
            "postgresql+psycopg://user:password@host:5432/feast or sqlite:////path/registry.db"
        ) from None
    except (OperationalError, InterfaceError) as error:
        action = "check that the server runs and that MLPLATFORM_FEAST_REGISTRY names it"
        name = _shown(settings.feast_registry)
        raise StoreUnavailableError(name, error, 1, time.monotonic() - began, action) from None


def _shown(url: str) -> str:
    from sqlalchemy.engine import make_url

    parts = make_url(url)
    place = f" at {parts.host}:{parts.port}" if parts.host and parts.port else f" at {parts.host}" if parts.host else ""
    return f"the Feast registry ({parts.get_backend_name()}{place})"


@contextlib.contextmanager
def _database_lock(settings: Settings) -> Iterator[None]:
    from sqlalchemy import NullPool, create_engine, text

    assert settings.feast_registry is not None
    with contextlib.ExitStack() as stack:
        with registry_errors(settings):
            engine = create_engine(settings.feast_registry, poolclass=NullPool)
            statements = _LOCKS.get(engine.dialect.name)
            if statements is not None:
                connection = stack.enter_context(engine.connect())
                values = {"key": LOCK_KEY, "name": LOCK_NAME}
                used = [name for name in values if f":{name}" in statements.take]
                bound = {name: values[name] for name in used}
                if connection.execute(text(statements.take), bound).scalar() in (0, None):
                    raise FeatureStoreError(f"the lock on the Feast registry was not free within {LOCK_WAIT_S} s")
                stack.callback(lambda: connection.execute(text(statements.free), bound))
        yield
