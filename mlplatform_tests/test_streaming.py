"""The consumer program: nothing lost and nothing doubled, however it ends, and it outlasts what it depends on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tenacity import RetryCallState, Retrying, wait_exponential
from tenacity.wait import wait_base

from mlplatform.config import DatasetConfig, load_dataset
from mlplatform.data.errors import DataError, SourceUnavailableError
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import read_raw
from mlplatform.data.sources.kafka import KafkaSource
from mlplatform.features.errors import StoreUnavailableError, UnknownEntityError
from mlplatform.features.feast import apply_dataset
from mlplatform.features.online import materialize_online, read_windows
from mlplatform.features.tables import update_feature_table
from mlplatform.settings import Settings
from mlplatform.streaming import BACKOFF, consume, main
from mlplatform_tests.data.servers import Kafka, free_port, kafka_cluster

ENTITIES = 10
HOURS = 1_000
SHORT = wait_exponential(0.01, max=0.04)


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with kafka_cluster() as cluster:
        yield cluster


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    return Settings.from_env(environment(tmp_path))


def environment(folder: Path) -> dict[str, str]:
    return {"MLPLATFORM_HOME": str(folder / "home"), "MLPLATFORM_CONF_DIR": str(folder / "conf")}


def make_dataset(settings: Settings, address: str, **options: Any) -> DatasetConfig:
    """Write and load the dataset `pump`, on a topic of its own."""
    assert settings.conf_dir is not None
    values = {
        "name": "pump",
        "source": {"uri": f"kafka://{address}/pump-{uuid.uuid4().hex}", "options": {"batch_rows": 500} | options},
        "time_column": "time",
        "entity_column": "pump",
        "frequency": "1h",
        "window_steps": 24,
        "columns": {"flow": {"nullable": False}},
    }
    (settings.conf_dir / "dataset" / "pump.yaml").write_text(yaml.safe_dump(values))
    return load_dataset("pump", settings)


def topic_of(dataset: DatasetConfig) -> str:
    return dataset.source.uri.rpartition("/")[2]


def messages(hours: int = HOURS, first: int = 0) -> list[bytes]:
    start = pd.Timestamp("2024-01-01", tz="UTC")
    return [
        json.dumps(
            {"pump": pump, "time": (start + pd.Timedelta(hours=hour)).isoformat(), "flow": pump + hour / 1000}
        ).encode()
        for hour in range(first, first + hours)
        for pump in range(ENTITIES)
    ]


def start_program(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    """Start the program as a user would, without the online store."""
    return subprocess.Popen(
        [sys.executable, "-m", "mlplatform.streaming", "pump", "--raw-only", "--interval", "0.05", *arguments],
        env={**os.environ, **environment(settings.home.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )


def stored(dataset: DatasetConfig, settings: Settings) -> int:
    try:
        return len(read_raw(dataset, settings))
    except DataError:
        return 0


def wait_for_rows(dataset: DatasetConfig, settings: Settings, rows: int, program: subprocess.Popen[str]) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (found := stored(dataset, settings)) >= rows:
            return found
        assert program.poll() is None, program.stderr and program.stderr.read()
        time.sleep(0.01)
    raise TimeoutError(f"fewer than {rows} rows after 60 s")


def assert_all_there_once(dataset: DatasetConfig, settings: Settings) -> None:
    rows = read_raw(dataset, settings)
    expected = [pump + hour / 1000 for pump in range(ENTITIES) for hour in range(HOURS)]
    assert not rows.duplicated(["entity_id", "event_timestamp"]).any()
    assert rows["flow"].tolist() == pytest.approx(expected)


def test_a_killed_consumer_and_a_replay_lose_and_double_nothing(kafka: Kafka, settings: Settings) -> None:
    dataset = make_dataset(settings, kafka.address, batch_rows=1_000)
    kafka.send(topic_of(dataset), messages())
    with start_program(settings) as program:
        at_kill = wait_for_rows(dataset, settings, 1_000, program)
        program.kill()
    assert at_kill < ENTITIES * HOURS, "the program was too fast to be killed midway"
    consume(dataset, settings, threading.Event(), push=None, once=True)
    assert_all_there_once(dataset, settings)
    before = read_raw(dataset, settings)
    kafka.send(topic_of(dataset), messages())
    consume(dataset, settings, threading.Event(), push=None, once=True)
    assert_all_there_once(dataset, settings)
    pd.testing.assert_frame_equal(read_raw(dataset, settings), before)


def test_a_signal_ends_it_with_success_after_a_whole_batch(kafka: Kafka, settings: Settings) -> None:
    dataset = make_dataset(settings, kafka.address, batch_rows=50)
    kafka.send(topic_of(dataset), messages(hours=400))
    with start_program(settings) as program:
        wait_for_rows(dataset, settings, 50, program)
        program.send_signal(signal.SIGTERM)
        _, said = program.communicate(timeout=30)
    assert program.returncode == 0
    assert "SIGTERM: finishing the batch at hand" in said
    found = stored(dataset, settings)
    assert found % 50 == 0
    assert found < ENTITIES * 400


def test_an_interrupt_ends_the_wait_for_more(kafka: Kafka, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(settings, kafka.address)
    kafka.send(topic_of(dataset), messages(hours=1))
    for name, value in environment(settings.home.parent).items():
        monkeypatch.setenv(name, value)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    interrupt = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    try:
        interrupt.start()
        assert main(["pump", "--raw-only", "--interval", "60"]) == 0
    finally:
        interrupt.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert stored(dataset, settings) == 10


def run_until(rows: int, dataset: DatasetConfig, settings: Settings, **arguments: Any) -> threading.Thread:
    """Consume in a thread until so many rows are stored, then stop."""
    stop = threading.Event()

    def watch() -> None:
        while stored(dataset, settings) < rows:
            time.sleep(0.02)
        stop.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    consume(dataset, settings, stop, interval_s=0.02, backoff=SHORT, **arguments)
    watcher.join(10)
    return watcher


def test_messages_are_taken_as_they_arrive(kafka: Kafka, settings: Settings) -> None:
    dataset = make_dataset(settings, kafka.address)
    kafka.send(topic_of(dataset), messages(hours=2))
    later = threading.Timer(0.4, kafka.send, (topic_of(dataset), messages(hours=3, first=2)))
    later.start()
    run_until(50, dataset, settings, push=None)
    later.join()
    assert stored(dataset, settings) == 50


def test_rows_are_pushed_before_they_are_committed(kafka: Kafka, settings: Settings) -> None:
    dataset = make_dataset(settings, kafka.address, batch_rows=20)
    kafka.send(topic_of(dataset), [*messages(hours=5), b"not JSON"])
    pushed: list[pd.DataFrame] = []
    stored_at_push: list[int] = []

    def push(rows: pd.DataFrame) -> None:
        stored_at_push.append(stored(dataset, settings))
        pushed.append(rows)

    consume(dataset, settings, threading.Event(), push=push, once=True)
    assert sum(len(rows) for rows in pushed) == 50
    assert stored_at_push == [0, *(sum(len(rows) for rows in pushed[:count]) for count in (1, 2))]
    assert list(pushed[0].columns) == ["entity_id", "event_timestamp", "flow"]
    assert ingest(dataset, settings).quarantined == 1


def test_a_store_that_is_away_is_waited_for_and_gets_every_row(
    kafka: Kafka, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dataset = make_dataset(settings, kafka.address, batch_rows=20)
    kafka.send(topic_of(dataset), messages(hours=4))
    attempts: list[pd.DataFrame] = []
    pushed: list[pd.DataFrame] = []

    def push(rows: pd.DataFrame) -> None:
        attempts.append(rows)
        if 2 <= len(attempts) <= 4:
            raise StoreUnavailableError("the online store", ConnectionError("gone"), 1, 0.1, "wait")
        pushed.append(rows)

    consume(dataset, settings, threading.Event(), push=push, once=True, backoff=SHORT)
    assert [len(rows) for rows in pushed] == [20, 20]
    assert [text.partition(":")[0] for text in caplog.messages if text.startswith("Failure")] == [
        "Failure 1 in a row, next try in 0.01 s",
        "Failure 2 in a row, next try in 0.02 s",
        "Failure 3 in a row, next try in 0.04 s",
    ]
    assert "back after 3 failures" in caplog.text
    assert stored(dataset, settings) == 40


def test_brokers_that_are_away_are_waited_for(
    kafka: Kafka, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(settings, kafka.address)
    kafka.send(topic_of(dataset), messages(hours=1))
    working, calls = KafkaSource.read_since, []

    def failing_twice(self: KafkaSource, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) <= 2:
            raise SourceUnavailableError("no broker")
        return working(self, *arguments)

    monkeypatch.setattr(KafkaSource, "read_since", failing_twice)
    consume(dataset, settings, threading.Event(), push=None, once=True, backoff=SHORT)
    assert len(calls) == 3
    assert stored(dataset, settings) == 10


def test_waiting_for_brokers_ends_with_the_signal(settings: Settings) -> None:
    dataset = make_dataset(settings, f"127.0.0.1:{free_port()}", poll_timeout_s=0.1)
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    consume(dataset, settings, stop, push=None, backoff=wait_exponential(30.0))
    assert time.monotonic() - began < 5


def test_the_pause_doubles_up_to_its_limit() -> None:
    def pauses(backoff: wait_base) -> list[float]:
        state = RetryCallState(Retrying(), None, (), {})
        paused = []
        for state.attempt_number in (1, 2, 3, 4, 5, 1000):
            paused.append(backoff(state))
        return paused

    assert pauses(wait_exponential(1.0, max=10.0)) == [1, 2, 4, 8, 10, 10]
    assert pauses(BACKOFF) == [1, 2, 4, 8, 16, 60]


def test_pushed_rows_equal_the_offline_windows(kafka: Kafka, settings: Settings) -> None:
    from mlplatform.features.feast.repository import apply_dataset
    from mlplatform.features.online.materialize import materialize_online
    from mlplatform.features.online.push import push_rows
    from mlplatform.features.online.read import read_windows
    from mlplatform.features.retrieval.offline import offline_windows
    from mlplatform.features.tables.feature_table import update_feature_table

    dataset = make_dataset(settings, kafka.address)
    kafka.send(topic_of(dataset), messages(hours=30))
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    kafka.send(topic_of(dataset), messages(hours=5, first=30))
    consume(dataset, settings, threading.Event(), push=lambda rows: push_rows(dataset, rows, settings), once=True)
    entities = list(range(ENTITIES))
    pushed = read_windows(dataset, entities, ["flow"], 24, settings)
    update_feature_table(dataset, settings)
    end = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(hours=34)
    (offline,) = offline_windows(dataset, entities, [end.to_pydatetime()], ["flow"], 24, settings)
    assert pushed.timestamps.tolist() == offline.timestamps.tolist()
    assert pushed.columns["flow"].tobytes() == offline.columns["flow"].tobytes()
    assert pushed.timestamps.max() == end.tz_localize(None)


def test_whoever_a_tombstone_names_is_gone_when_the_program_has_read_it(kafka: Kafka, settings: Settings) -> None:
    dataset = make_dataset(settings, kafka.address)
    kafka.send(topic_of(dataset), messages(hours=30), partition=0)
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    kafka.send(topic_of(dataset), [None], partition=0, key=b"7")
    kafka.send(topic_of(dataset), messages(hours=1, first=30)[:1], partition=0)
    environ = environment(settings.home.parent)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        assert main(["pump", "--once"]) == 0
    assert read_windows(dataset, [0], ["flow"], 1, settings).columns["flow"].tolist() == pytest.approx([0.03])
    with pytest.raises(UnknownEntityError, match="7"):
        read_windows(dataset, [7], ["flow"], 1, settings)
    update_feature_table(dataset, settings)
    assert materialize_online(dataset, settings, "incremental").entities == ENTITIES - 1
    with pytest.raises(UnknownEntityError, match="7"):
        read_windows(dataset, [7], ["flow"], 1, settings)


def test_a_source_that_cannot_tell_what_is_new_is_refused(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(settings.home.parent).items():
        monkeypatch.setenv(name, value)
    assert main(["diabetes", "--raw-only"]) == 1
    assert "cannot tell what is new" in caplog.text
    assert main(["nowhere"]) == 1
    assert "unknown dataset 'nowhere'" in caplog.text
