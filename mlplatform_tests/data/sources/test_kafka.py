"""Kafka: where reading begins and ends, what is reported as lost, and what errors say."""

from __future__ import annotations

import json
import logging
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from mlplatform.config import ConfigError, DatasetConfig, check_source
from mlplatform.data.errors import DataError, SourceUnavailableError
from mlplatform.data.raw import ingest
from mlplatform.data.sources import Batch, open_source
from mlplatform.data.sources.kafka import KafkaSource
from mlplatform.settings import Settings
from mlplatform_tests.data.conftest import hourly_dataset
from mlplatform_tests.data.servers import Kafka, free_port


def message(flow: int) -> bytes:
    time = f"2024-{1 + flow // 672:02d}-{1 + flow // 24 % 28:02d}T{flow % 24:02d}:00:00Z"
    return json.dumps({"time": time, "flow": flow, "pressure": 1, "state": "open"}).encode()


@pytest.fixture
def topic() -> str:
    return f"pump-{uuid.uuid4().hex}"


def dataset_on(address: str, topic: str, **options: Any) -> DatasetConfig:
    return hourly_dataset(source={"uri": f"kafka://{address}/{topic}", "options": options})


def source_of(dataset: DatasetConfig) -> KafkaSource:
    source = open_source(dataset)
    assert isinstance(source, KafkaSource)
    return source


def flows(batches: list[Batch]) -> list[float]:
    return sorted(flow for batch in batches for flow in batch.frame["flow"])


def test_all_partitions_are_read_to_their_ends_in_batches(kafka: Kafka, topic: str, settings: Settings) -> None:
    kafka.send(topic, [message(n) for n in range(50)])
    dataset = dataset_on(kafka.address, topic, batch_rows=20)
    batches = list(source_of(dataset).read_since(dataset, settings, None))
    assert [len(batch.frame) for batch in batches] == [20, 20, 10]
    assert flows(batches) == list(range(50))
    assert batches[-1].position == {"offsets": {"0": 13, "1": 13, "2": 12, "3": 12}}


def test_going_on_at_any_position_loses_and_repeats_nothing(kafka: Kafka, topic: str, settings: Settings) -> None:
    kafka.send(topic, [message(n) for n in range(50)])
    dataset = dataset_on(kafka.address, topic, batch_rows=7)
    batches = list(source_of(dataset).read_since(dataset, settings, None))
    for number in (0, 3, len(batches) - 1):
        rest = list(source_of(dataset).read_since(dataset, settings, batches[number].position))
        assert flows(batches[: number + 1] + rest) == list(range(50))


def test_what_arrives_while_it_reads_is_left_for_the_next_call(kafka: Kafka, topic: str, settings: Settings) -> None:
    kafka.send(topic, [message(n) for n in range(20)])
    dataset = dataset_on(kafka.address, topic, batch_rows=5)
    reading = source_of(dataset).read_since(dataset, settings, None)
    batches = [next(reading)]
    kafka.send(topic, [message(n) for n in range(20, 40)])
    batches += reading
    assert flows(batches) == list(range(20))
    batches += source_of(dataset).read_since(dataset, settings, batches[-1].position)
    assert flows(batches) == list(range(40))


class ScriptedConsumer:
    """Delivers `(partition, offset, error code)` in the given portions."""

    def __init__(self, *portions: list[tuple[int, int, int | None]]) -> None:
        self.portions = list(portions)

    def consume(self, _count: int, _timeout: float) -> list[Any]:
        return [self.message(*entry) for entry in self.portions.pop(0)]

    @staticmethod
    def message(partition: int, offset: int, code: int | None) -> Any:
        error = None if code is None else SimpleNamespace(code=lambda: code, str=lambda: "scripted")
        value = f"{partition}-{offset}".encode()
        content = {"partition": partition, "offset": offset, "error": error, "value": value, "key": None}
        return SimpleNamespace(**{name: lambda value=value: value for name, value in content.items()})


def test_later_messages_are_left_and_the_end_of_a_partition_ends_it() -> None:
    from confluent_kafka import KafkaError

    portions = [[(0, 0, None), (0, 1, None)], [(0, 2, None), (1, 5, None)], [(1, 6, KafkaError._PARTITION_EOF)]]
    dataset = dataset_on("host", "topic", batch_rows=3)
    offsets = {0: 0, 1: 5, 2: 7}
    # The last offsets of partition 1 hold no message, as after a transaction.
    batches = list(source_of(dataset)._messages(ScriptedConsumer(*portions), dataset, offsets, {0: 2, 1: 8}))  # type: ignore[arg-type]
    assert batches == [([b"0-0", b"0-1", b"1-5"], {0: 2, 1: 6, 2: 7})]


def test_a_partition_whose_next_messages_were_just_deleted_is_an_error() -> None:
    from confluent_kafka import KafkaError

    dataset = dataset_on("host", "topic")
    consumer = ScriptedConsumer([(0, 0, KafkaError._AUTO_OFFSET_RESET)])
    with pytest.raises(SourceUnavailableError, match="scripted"):
        list(source_of(dataset)._messages(consumer, dataset, {0: 0}, {0: 2}))  # type: ignore[arg-type]


def test_brokers_that_fall_silent_are_named_with_what_is_left() -> None:
    dataset = dataset_on("host", "topic", poll_timeout_s=0.01)
    consumer = ScriptedConsumer(*([] for _ in range(100_000)))
    with pytest.raises(SourceUnavailableError, match=r"nothing for 0\.01 s.*offset of end\): 0: 3 of 9"):
        list(source_of(dataset)._messages(consumer, dataset, {0: 3}, {0: 9}))  # type: ignore[arg-type]


def test_a_new_partition_is_read_from_its_beginning(kafka: Kafka, topic: str, settings: Settings) -> None:
    kafka.send(topic, [message(n) for n in range(8)])
    dataset = dataset_on(kafka.address, topic)
    position = {"offsets": {"0": 2, "1": 2, "2": 2}}
    assert flows(list(source_of(dataset).read_since(dataset, settings, position))) == [3, 7]


def test_the_brokers_committed_offsets_are_for_show(kafka: Kafka, topic: str, settings: Settings) -> None:
    from confluent_kafka import Consumer, TopicPartition

    kafka.send(topic, [message(n) for n in range(8)])
    dataset = dataset_on(kafka.address, topic, group=f"lag-{topic}")
    source = source_of(dataset)
    (batch,) = source.read_since(dataset, settings, None)
    source.acknowledge(dataset, settings, batch.position)
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": f"lag-{topic}"})
    committed = consumer.committed([TopicPartition(topic, partition) for partition in range(4)], timeout=10)
    consumer.close()
    assert [partition.offset for partition in committed] == [2, 2, 2, 2]
    assert len(list(source.read_since(dataset, settings, None))) == 1


def test_acknowledging_to_a_broker_that_is_away_warns(
    topic: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = dataset_on(f"127.0.0.1:{free_port()}", topic, poll_timeout_s=0.3)
    source_of(dataset).acknowledge(dataset, settings, {"offsets": {"0": 1}})
    assert "the offsets were not reported" in caplog.text


def test_the_fingerprint_is_the_end_of_the_topic(kafka: Kafka, topic: str, settings: Settings) -> None:
    kafka.send(topic, [message(0)])
    dataset = dataset_on(kafka.address, topic)
    assert source_of(dataset).fingerprint(dataset, settings) == "0:1 1:0 2:0 3:0"


def test_messages_that_retention_deleted_are_named(
    kafka: Kafka, topic: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.send(topic, [message(0)], partition=0)
    dataset = dataset_on(kafka.address, topic)
    (read,) = source_of(dataset).read_since(dataset, settings, None)
    # A mock broker keeps at most 5 MB per partition.
    filler = message(1)[:-1] + b', "filler": "' + b"x" * 900_000 + b'"}'
    for _ in range(8):
        kafka.send(topic, [filler], partition=0)
    with pytest.raises(
        DataError, match=r"partition 0: offsets 1 to \d deleted|partition 0: offsets 1 to \d are"
    ) as caught:
        list(source_of(dataset).read_since(dataset, settings, read.position))
    assert "on_lost to earliest" in str(caught.value)
    forgiving = dataset_on(kafka.address, topic, on_lost="earliest")
    assert 0 < len(flows(list(source_of(forgiving).read_since(forgiving, settings, read.position)))) < 8
    assert "going on without lost messages: partition 0" in caplog.text


def test_how_a_topic_is_read_can_change_between_two_ingests_and_which_one_cannot(
    kafka: Kafka, topic: str, settings: Settings
) -> None:
    kafka.send(topic, [message(n) for n in range(8)])
    kafka.send(f"{topic}-2", [message(n) for n in range(8)])
    ingest(dataset_on(kafka.address, topic), settings)
    kafka.send(topic, [message(n) for n in range(8, 12)])
    report = ingest(dataset_on(kafka.address, topic, on_lost="earliest", batch_rows=2), settings)
    assert (report.rows, report.rows_read) == (12, 4)
    with pytest.raises(DataError, match="its source changed"):
        ingest(dataset_on(kafka.address, f"{topic}-2"), settings)


def test_a_topic_that_was_made_anew_is_noticed(kafka: Kafka, topic: str, settings: Settings) -> None:
    kafka.send(topic, [message(n) for n in range(8)])
    dataset = dataset_on(kafka.address, topic)
    position = {"offsets": {"0": 9, "1": 2, "2": 2, "3": 2, "4": 1}}
    with pytest.raises(DataError, match=r"partition 0: goes to 2 only, but was read to 9.*partition 4 is gone"):
        list(source_of(dataset).read_since(dataset, settings, position))
    forgiving = dataset_on(kafka.address, topic, on_lost="earliest")
    assert flows(list(source_of(forgiving).read_since(forgiving, settings, position))) == [0, 4]


def test_a_topic_that_does_not_exist_is_an_error_and_no_outage(kafka: Kafka, topic: str, settings: Settings) -> None:
    dataset = dataset_on(kafka.address, topic)
    with pytest.raises(DataError, match=r"refuses: .*Unknown topic") as caught:
        list(source_of(dataset).read_since(dataset, settings, None))
    assert not isinstance(caught.value, SourceUnavailableError)


def test_brokers_that_are_away_are_worth_another_try(topic: str, settings: Settings) -> None:
    dataset = dataset_on(f"127.0.0.1:{free_port()}", topic, poll_timeout_s=0.5)
    with pytest.raises(SourceUnavailableError, match=r"is not available: .*Check the brokers"):
        source_of(dataset).fingerprint(dataset, settings)


def test_a_position_of_another_source_is_refused(kafka: Kafka, topic: str, settings: Settings) -> None:
    kafka.send(topic, [message(0)])
    dataset = dataset_on(kafka.address, topic)
    with pytest.raises(DataError, match="does not hold offsets; read the dataset in full"):
        list(source_of(dataset).read_since(dataset, settings, {"id": "0-0"}))


def test_without_a_time_column_a_stream_is_refused(settings: Settings) -> None:
    dataset = hourly_dataset(kind="tabular", time_column=None, source={"uri": "kafka://host/topic"})
    with pytest.raises(DataError, match="time_column is missing; a stream can repeat its messages"):
        list(source_of(dataset).read_since(dataset, settings, None))


@pytest.mark.parametrize("uri", ["kafka://host", "kafka:///topic", "kafka://host/a/b", "kafka://host:port/topic"])
def test_a_uri_that_is_not_a_topic_says_how_one_is_written(uri: str, settings: Settings) -> None:
    dataset = hourly_dataset(source={"uri": uri})
    with pytest.raises(DataError, match="expected kafka://host:port/topic"):
        source_of(dataset).fingerprint(dataset, settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client": {"sasl.password": "hunter2"}}, r"sasl\.password is a secret"),
        ({"client": {"ssl.key.pem": "hunter2"}}, r"ssl\.key\.pem is a secret"),
        ({"client": {"group.id": "x"}}, r"group\.id is set by the source itself"),
        ({"on_lost": "ignore"}, "on_lost.*error"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_source(dataset_on("host", "topic", **options))
    assert "hunter2" not in str(caught.value)


def test_secrets_come_from_the_environment_and_stay_out_of_messages(
    topic: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PUMP_USER", "ann")
    monkeypatch.setenv("PUMP_PASSWORD", "hunter2")
    monkeypatch.setenv("PUMP_KEY", "hunter3")
    options = {
        "user_env": "PUMP_USER",
        "password_env": "PUMP_PASSWORD",
        "client": {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"},
        "client_env": {"ssl.key.password": "PUMP_KEY"},
        "poll_timeout_s": 0.3,
    }
    dataset = dataset_on(f"127.0.0.1:{free_port()}", topic, **options)
    source = source_of(dataset)
    assert source._secrets(dataset) == {
        "sasl.username": "ann",
        "sasl.password": "hunter2",
        "ssl.key.password": "hunter3",
    }
    with pytest.raises(DataError) as caught:
        source.fingerprint(dataset, settings)
    assert "hunter" not in str(caught.value) + repr(source) + caplog.text


def test_a_property_that_the_client_does_not_know_is_named(topic: str, settings: Settings) -> None:
    dataset = dataset_on("127.0.0.1:1", topic, client={"no.such.thing": 1})
    with pytest.raises(DataError, match=r"no\.such\.thing"):
        source_of(dataset).fingerprint(dataset, settings)
