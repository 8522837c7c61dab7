"""A Kafka replay of the same 10,000 messages twice, the consumer killed (SIGKILL) midway: what is lost or doubled.

The broker is librdkafka's mock, which speaks Kafka's protocol on loopback. The consumer is the program itself, with the
online store; every message is pushed and stored. The peer of its speed is reading and parsing the same messages alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from mlplatform.config import DatasetConfig
    from mlplatform.settings import Settings

ENTITIES = 50
HISTORY_HOURS = 48
HOURS = 200
WINDOW = 168
BATCH_ROWS = 500
TOPIC = "readings"
NAME = "replay"
START_LIMIT_S = 120.0


def run() -> None:
    """Print what was lost or doubled, and how many messages a second the consumer takes."""
    from confluent_kafka import Producer
    from figures import report

    producer = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    with tempfile.TemporaryDirectory() as name:
        settings, dataset = _installation(Path(name), f"{broker.host}:{broker.port}")
        history, wave, later = (
            _messages(first, hours)
            for first, hours in ((0, HISTORY_HOURS), (HISTORY_HOURS, HOURS), (HISTORY_HOURS + HOURS, HOURS))
        )
        _send(producer, history)
        _prepare(dataset, settings)
        _send(producer, wave)
        at_kill = _kill_midway(dataset, settings, len(history) + len(wave) // 2)
        _consume(dataset, settings)
        _send(producer, wave)
        replay_s = _consume(dataset, settings)
        lost, doubled = _compare([*history, *wave], dataset, settings)
        differ = _windows_that_differ(dataset, settings)
        _send(producer, later)
        fresh_s = _consume(dataset, settings)
        parse_s = _parse_alone(broker, len(wave))
    count = len(wave)
    report("replay", f"messages stored when the consumer was killed, of {count:,}", at_kill - len(history), "messages")
    report("replay", "rows lost", lost, "rows", aim="0", met=lost == 0)
    report("replay", "rows doubled", doubled, "rows", aim="0", met=doubled == 0)
    report("replay", "online windows unlike the offline ones", differ, "windows", aim="0", met=differ == 0)
    for case, seconds in (("new messages, pushed and stored", fresh_s), ("the same messages again", replay_s)):
        case = f"{case}, {BATCH_ROWS} at a time"
        report("replay", case, count / seconds, "messages/s", peer="read and parse alone", peer_value=count / parse_s)


def _installation(folder: Path, address: str) -> tuple[Settings, DatasetConfig]:
    import yaml

    from feature_platform.readings import COLUMNS
    from mlplatform.config import load_dataset
    from mlplatform.settings import Settings

    values = {
        "name": NAME,
        "source": {"uri": f"kafka://{address}/{TOPIC}", "options": {"batch_rows": BATCH_ROWS}},
        "time_column": "time",
        "entity_column": "unit",
        "frequency": "1h",
        "window_steps": WINDOW,
        "columns": {column: {} for column in COLUMNS},
    }
    path = folder / "conf" / "dataset" / f"{NAME}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(values))
    settings = Settings.from_env({"MLPLATFORM_HOME": str(folder / "home"), "MLPLATFORM_CONF_DIR": str(folder / "conf")})
    return settings, load_dataset(NAME, settings)


def _messages(first_hour: int, hours: int) -> list[dict[str, Any]]:
    from feature_platform.readings import COLUMNS, START

    values = np.random.default_rng(first_hour).standard_normal((hours, ENTITIES, len(COLUMNS)), dtype=np.float32)
    return [
        {
            "time": f"{START + first_hour + hour}:00:00Z",
            "unit": unit + 1,
            **dict(zip(COLUMNS, values[hour, unit].tolist(), strict=True)),
        }
        for hour in range(hours)
        for unit in range(ENTITIES)
    ]


def _send(producer: Any, messages: list[dict[str, Any]]) -> None:
    for message in messages:
        producer.produce(TOPIC, value=json.dumps(message).encode(), key=str(message["unit"]))
    assert producer.flush(30) == 0


def _prepare(dataset: DatasetConfig, settings: Settings) -> None:
    """Bring the history into both stores, as the dataset's assets do."""
    from mlplatform.data import ingest
    from mlplatform.features.feast import apply_dataset
    from mlplatform.features.online import materialize_online
    from mlplatform.features.tables import update_feature_table

    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)


def _kill_midway(dataset: DatasetConfig, settings: Settings, rows: int) -> int:
    """Start the program, kill it when so many rows are stored, and return how many there are then."""
    from mlplatform.data import read_raw

    environment = {"MLPLATFORM_HOME": str(settings.home), "MLPLATFORM_CONF_DIR": str(settings.conf_dir)}
    command = [sys.executable, "-m", "mlplatform.streaming", NAME]
    with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL) as program:
        deadline = time.monotonic() + START_LIMIT_S
        while len(read_raw(dataset, settings)) < rows:
            if program.poll() is not None or time.monotonic() > deadline:
                program.kill()
                raise RuntimeError(f"the consumer did not store {rows} rows")
            time.sleep(0.02)
        program.kill()
    return len(read_raw(dataset, settings))


def _consume(dataset: DatasetConfig, settings: Settings) -> float:
    """Take everything that is there in this process, and return the seconds."""
    from mlplatform.features.online import push_rows
    from mlplatform.streaming import consume

    began = time.perf_counter()
    consume(dataset, settings, threading.Event(), push=lambda rows: push_rows(dataset, rows, settings), once=True)
    return time.perf_counter() - began


def _compare(messages: list[dict[str, Any]], dataset: DatasetConfig, settings: Settings) -> tuple[int, int]:
    """Return how many messages are not in the raw table with their values, and how many rows are there twice."""
    import pandas as pd

    from mlplatform.data import read_raw

    keys, columns = ["entity_id", "event_timestamp"], list(dataset.columns)
    raw = read_raw(dataset, settings)
    sent = pd.DataFrame(messages).rename(columns={"unit": keys[0], "time": keys[1]})
    sent[keys[1]] = pd.to_datetime(sent[keys[1]], utc=True)
    single = raw.drop_duplicates(keys)
    found = sent[keys].merge(single, on=keys, how="left")
    is_equal = (found[columns].to_numpy(np.float32) == sent[columns].to_numpy(np.float32)).all(axis=1)
    return int((~is_equal).sum()), len(raw) - len(single)


def _windows_that_differ(dataset: DatasetConfig, settings: Settings) -> int:
    from mlplatform.features.online import read_windows
    from mlplatform.features.retrieval import offline_windows
    from mlplatform.features.tables import update_feature_table

    update_feature_table(dataset, settings)
    ids, columns = np.arange(1, ENTITIES + 1), tuple(dataset.columns)
    online = read_windows(dataset, ids, columns, WINDOW, settings)
    (offline,) = offline_windows(dataset, ids, ["now"], columns, WINDOW, settings)
    ours, theirs = (panel.matrix(columns).reshape(len(ids), -1) for panel in (online, offline))
    return sum(a.tobytes() != b.tobytes() for a, b in zip(ours, theirs, strict=True))


def _parse_alone(broker: Any, count: int) -> float:
    """Return the seconds for reading so many messages and making frames of them, and nothing else."""
    import pandas as pd
    from confluent_kafka import Consumer, TopicPartition

    began = time.perf_counter()
    settings = {"bootstrap.servers": f"{broker.host}:{broker.port}", "group.id": "peer", "log_level": 3}
    consumer = Consumer(settings)
    partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in partitions])
    read = 0
    while read < count:
        frame: pd.DataFrame = pd.DataFrame(
            [json.loads(message.value() or b"") for message in consumer.consume(BATCH_ROWS, 1.0)]
        )
        read += len(frame)
    consumer.close()
    return time.perf_counter() - began
