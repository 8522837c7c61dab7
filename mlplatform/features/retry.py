"""Asking a store again when that can help, and saying clearly when it did not.

Only failures that pass by themselves are repeated: a locked SQLite file, a lost Redis connection, a time-out, a file
that was replaced while it was read. What a repeat cannot change (an unknown entity, a missing table, a wrong password)
is raised at once. The number of tries and the time they may take together are bounded.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

import numpy as np
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    wait_exponential,
)

from mlplatform.features.errors import MissingOnlineStoreError, StoreUnavailableError
from mlplatform.settings import Settings

T = TypeVar("T")

_SQLITE_TRANSIENT = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
# A file that is not there may be back: tables are replaced as a whole while others read them.
_OS_PERMANENT = (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


@dataclass(frozen=True)
class RetryPolicy:
    """How often to ask, and for how long.

    Attributes:
        tries: most calls, the first included.
        deadline_s: no further try begins when this much time has passed.
        pause_s: pause before the second try; doubles with every further one, and is shortened at random by up to
            half, so that callers that failed together do not come back together.
    """

    tries: int
    deadline_s: float
    pause_s: float


# A client waits for an online read; a run that fills the store or trains can wait out the restart of a server.
ONLINE_READS = RetryPolicy(tries=3, deadline_s=0.5, pause_s=0.05)
ONLINE_WRITES = RetryPolicy(tries=6, deadline_s=30.0, pause_s=0.25)
OFFLINE_READS = RetryPolicy(tries=6, deadline_s=30.0, pause_s=0.25)


@dataclass(frozen=True)
class StoreAccess:
    """A store as the caller of `call_store` asks it.

    Attributes:
        name: what error messages call it; without credentials.
        action: what to do when it does not answer.
        policy: how often to ask.
    """

    name: str
    action: str
    policy: RetryPolicy


class Failure(Enum):
    """What an exception says about the store."""

    TRANSIENT = "the same call may succeed later"
    PERMANENT = "the store cannot answer this call"
    OTHER = "not a failure of the store"


def online_access(settings: Settings, policy: RetryPolicy = ONLINE_READS) -> StoreAccess:
    """Return how the online store of an installation is asked."""
    if settings.redis_url is None:
        name = f"the online store (SQLite, {settings.feast_dir / 'online.db'})"
        return StoreAccess(name, "materialise online_features, and check that no process holds the file locked", policy)
    name = f"the online store (Redis{_address(settings.redis_url)})"
    return StoreAccess(name, "check that the server runs and that MLPLATFORM_REDIS_URL names it", policy)


def offline_access(settings: Settings, policy: RetryPolicy = OFFLINE_READS) -> StoreAccess:
    """Return how the offline store of an installation is asked."""
    return StoreAccess(
        f"the offline store ({settings.features_dir})", "check the files and materialise feature_table", policy
    )


def call_store(operation: Callable[[], T], access: StoreAccess) -> T:
    """Return what `operation` returns, repeating it while its failures are transient and the policy allows it.

    Parameters:
        operation: reads from a store; must be safe to repeat.

    Raises:
        StoreUnavailableError: if the store does not answer. Errors that are not the store's pass through unchanged.
    """
    began = time.monotonic()
    try:
        # Nearly always all there is to do: what follows costs more than many a read.
        return operation()
    except Exception as error:
        if classify(error) is Failure.OTHER:
            raise
        return _ask_again(operation, access, error, began)


def _ask_again(operation: Callable[[], T], access: StoreAccess, first: Exception, began: float) -> T:
    """Go on after a first try, which began at `began` and failed."""
    policy = access.policy
    failed = [first]
    doubling = wait_exponential(policy.pause_s)

    def ask() -> T:
        if failed:
            raise failed.pop()
        return operation()

    def pause(state: RetryCallState) -> float:
        return doubling(state) * float(np.random.default_rng().uniform(0.5, 1.0))

    def is_over(state: RetryCallState) -> bool:
        next_try_s = time.monotonic() - began + state.upcoming_sleep
        is_last = state.attempt_number >= policy.tries or next_try_s >= policy.deadline_s
        return is_last or classify(_error(state)) is Failure.PERMANENT

    def give_up(state: RetryCallState) -> NoReturn:
        error, passed = _error(state), time.monotonic() - began
        raise StoreUnavailableError(access.name, error, state.attempt_number, passed, _action(error, access)) from error

    asking = Retrying(
        retry=retry_if_exception(lambda error: classify(error) is not Failure.OTHER),
        stop=is_over,
        wait=pause,
        retry_error_callback=give_up,
    )
    return asking(ask)


def _action(error: BaseException, access: StoreAccess) -> str:
    """Return what to do, after the cause where it is known."""
    if isinstance(error, MissingOnlineStoreError):
        return f"{error}; {access.action}"
    if _sqlite_code(error) == sqlite3.SQLITE_IOERR:
        return (
            "the disk fails, or the file was removed or replaced while others had it open: stop them, remove the file "
            f"with its -wal and -shm, and materialise again; {access.action}"
        )
    return access.action


def _sqlite_code(error: BaseException) -> int:
    """Return SQLite's primary code, 0 if there is none; the upper bytes are details of the lowest one."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def classify(error: BaseException) -> Failure:
    """Return what an exception says about the store that was asked."""
    if isinstance(error, OSError):
        return Failure.PERMANENT if isinstance(error, _OS_PERMANENT) else Failure.TRANSIENT
    if isinstance(error, sqlite3.Error):
        return Failure.TRANSIENT if _sqlite_code(error) in _SQLITE_TRANSIENT else Failure.PERMANENT
    for library, classes in _LIBRARIES.items():
        # Only a library that is loaded can have raised.
        module = sys.modules.get(library)
        if module is not None and isinstance(error, getattr(module, classes.base)):
            transient = tuple(getattr(module, name) for name in classes.transient)
            permanent = tuple(getattr(module, name) for name in classes.permanent)
            is_transient = isinstance(error, transient) and not isinstance(error, permanent)
            return Failure.TRANSIENT if is_transient else Failure.PERMANENT
    return Failure.OTHER


@dataclass(frozen=True)
class _Classes:
    """Names of a library's exceptions: the base of its store failures, those that pass, and exceptions among these."""

    base: str
    transient: tuple[str, ...]
    permanent: tuple[str, ...] = ()


_LIBRARIES = {
    "redis.exceptions": _Classes(
        "RedisError",
        ("ConnectionError", "TimeoutError", "ClusterDownError", "TryAgainError"),
        ("AuthenticationError", "AuthorizationError"),
    ),
    "duckdb": _Classes("IOException", ("IOException",)),
}


def _address(url: str) -> str:
    """Return host and port as they belong into a message; nothing if the URL cannot be taken apart safely."""
    try:
        parts = urlsplit(url)
        return f" at {parts.hostname}:{parts.port or 6379}" if parts.hostname else f" at {parts.path}"
    except ValueError:
        return ""


def _error(state: RetryCallState) -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error
