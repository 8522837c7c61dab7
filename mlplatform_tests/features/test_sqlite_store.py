"""The SQLite online store when its file goes away."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore, RepoConfig

from mlplatform.config import DatasetConfig
from mlplatform.features.errors import StoreUnavailableError
from mlplatform.features.feast.repository import apply_dataset, open_store, repo_config
from mlplatform.features.online import sqlite_store
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.online.push import push_rows
from mlplatform.features.online.read import read_rows, read_windows
from mlplatform.settings import Settings
from mlplatform_tests.features.stores import fill_store

# A process that has written to the file and keeps it open.
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
with connection:
    connection.execute("CREATE TABLE held (number INTEGER)")
print("held", flush=True)
sys.stdin.read()
"""
READER = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])
"""


@pytest.fixture
def filled(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> DatasetConfig:
    fill_store(raw, dataset, settings)
    return dataset


@pytest.fixture
def database(settings: Settings) -> Path:
    return settings.feast_dir / "online.db"


@contextlib.contextmanager
def held_open(database: Path) -> Iterator[None]:
    command = [sys.executable, "-c", HOLDER, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate()


def seen_by_another_process(database: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", READER, str(database)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def end_of(dataset: DatasetConfig, settings: Settings, entity: Any = 1) -> pd.Timestamp:
    (last,) = read_windows(dataset, [entity], ["load"], 1, settings).timestamps
    (latest,) = read_rows(dataset, [entity], ["load"], settings).timestamps
    assert last == latest
    return pd.Timestamp(last, tz="UTC")


def push_next_hour(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> pd.Timestamp:
    row = raw[raw["entity_id"] == 1].tail(1)
    row = row.assign(event_timestamp=row["event_timestamp"] + pd.Timedelta(hours=1))
    assert push_rows(dataset, row, settings).added == 1
    return pd.Timestamp(row["event_timestamp"].item())


def tear_down(settings: Settings) -> None:
    """Do what `feast teardown` does to the online store, in a store of its own."""
    store = FeatureStore(config=RepoConfig(**repo_config(settings)))
    store.provider.online_store.teardown(store.config, [], [])


def test_a_deleted_file_is_made_anew_beside_processes_that_have_the_old_one_open(
    filled: DatasetConfig, settings: Settings, database: Path
) -> None:
    with held_open(database):
        database.unlink()
        with pytest.raises(StoreUnavailableError, match=r"online\.db is not there: .* deleted or torn down; material"):
            end_of(filled, settings)
        materialize_online(filled, settings)
        end = end_of(filled, settings)
        tables = seen_by_another_process(database)
    assert int(tables) >= 2
    assert seen_by_another_process(database) == tables
    assert end_of(filled, settings) == end


def test_whoever_reads_or_pushes_makes_no_file(
    filled: DatasetConfig, raw: pd.DataFrame, settings: Settings, database: Path
) -> None:
    for path in database.parent.glob("online.db*"):
        path.unlink()
    with pytest.raises(StoreUnavailableError, match="is not there"):
        end_of(filled, settings)
    with pytest.raises(StoreUnavailableError, match="is not there"):
        push_next_hour(raw, filled, settings)
    assert not list(database.parent.glob("online.db*"))


@pytest.mark.usefixtures("filled")
def test_a_teardown_leaves_nothing_of_a_file_that_nobody_has_open(settings: Settings, database: Path) -> None:
    online = open_store(settings).provider.online_store
    online.teardown(open_store(settings).config, [], [])
    assert not [path.name for path in database.parent.glob("online.db*") if path.suffix != ".lock"]
    online.teardown(open_store(settings).config, [], [])


def test_a_teardown_under_a_process_that_has_pushed_is_seen_by_it_and_can_be_made_good(
    filled: DatasetConfig, raw: pd.DataFrame, settings: Settings, database: Path
) -> None:
    end = end_of(filled, settings)
    push_next_hour(raw, filled, settings)
    with held_open(database):
        tear_down(settings)
        with pytest.raises(StoreUnavailableError, match=r"online\.db is emptied, or was never filled .*; materialise"):
            end_of(filled, settings)
        assert seen_by_another_process(database) == "0"
        apply_dataset(filled, settings)
        assert materialize_online(filled, settings, "incremental").mode == "full"
        assert end_of(filled, settings) == end
    push_next_hour(raw, filled, settings)


def test_a_failing_disk_is_named_with_what_else_it_can_be(
    filled: DatasetConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHORT_READ
        raise error

    monkeypatch.setattr(sqlite_store, "_read", fail)
    with pytest.raises(StoreUnavailableError, match="removed or replaced while others had it open: stop them, remove"):
        end_of(filled, settings)
    monkeypatch.undo()
    assert end_of(filled, settings)


def test_more_entities_than_a_statement_takes_are_read_in_blocks(
    filled: DatasetConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_windows(filled, [2, 1, 2], ["load"], 3, settings)
    monkeypatch.setattr(sqlite_store, "KEYS_PER_STATEMENT", 1)
    blocks = read_windows(filled, [2, 1, 2], ["load"], 3, settings)
    assert blocks.timestamps.tolist() == whole.timestamps.tolist()
    assert blocks.columns["load"].tobytes() == whole.columns["load"].tobytes()
    assert not open_store(settings).provider.online_store._conn.in_transaction
