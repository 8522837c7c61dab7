"""Kafka topics: `kafka://host:port,host:port/topic`.

Where to go on is kept with the rows, not at the broker: only so do rows and offsets change in one step. The offsets
that are committed to the broker are there for whoever watches the lag.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import Field, field_validator
from typing_extensions import override

from mlplatform.config import SECRET_NAME, DatasetConfig
from mlplatform.data.errors import DataError, SourceUnavailableError
from mlplatform.data.sources.base import Batch, IncrementalSource, Position
from mlplatform.data.sources.messages import Message, StreamParams, Tombstone, require_time_column, rows_from_messages
from mlplatform.data.sources.servers import parse_address, read_credentials, required_secret
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError
    from confluent_kafka import Message as Received

EXPECTED = "kafka://host:port/topic, with commas between several hosts"
DEFAULT_PORT = 9092
# How long one call to the client waits for a batch to fill up.
SLICE_S = 0.1
OWN_PROPERTIES = ("bootstrap.servers", "group.id", "enable.auto.commit", "auto.offset.reset", "enable.partition.eof")

logger = logging.getLogger(__name__)


class KafkaParams(StreamParams):
    """How to connect.

    `client` holds further properties of librdkafka, such as `security.protocol`, and `client_env` the names of
    environment variables for those that are secret, such as `ssl.key.password`. `user_env` and `password_env` stand for
    `sasl.username` and `sasl.password`.
    """

    client: dict[str, str | int | float | bool] = Field(default_factory=dict)
    client_env: dict[str, str] = Field(default_factory=dict)

    @field_validator("client", "client_env")
    @classmethod
    def _not_the_sources_own(cls, value: dict[str, Any]) -> dict[str, Any]:
        own = [name for name in value if name in OWN_PROPERTIES]
        if own:
            raise ValueError(f"{', '.join(own)} is set by the source itself; remove it")
        return value

    @field_validator("client")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        secret = [name for name in value if SECRET_NAME.search(name) or name.endswith(".pem")]
        if secret:
            raise ValueError(f"{', '.join(secret)} is a secret; name an environment variable for it in client_env")
        return value


@dataclass(frozen=True)
class _Limits:
    """The offsets of a partition: the first that is there, and the one that comes after the last."""

    low: int
    high: int


class _Reading:
    """How far a call has come: where to go on in every partition, and the ends of those not yet read to theirs."""

    def __init__(self, offsets: dict[int, int], ends: dict[int, int]) -> None:
        self.offsets = dict(offsets)
        self.ends = dict(ends)

    def pass_by(self, partition: int, offset: int) -> bool:
        """Go past a message; return whether it lies before the end, and so is one to read."""
        is_before = partition in self.ends and offset < self.ends[partition]
        if is_before:
            self.offsets[partition] = offset + 1
        # What arrived since the beginning of this call is left for the next one.
        if not is_before or offset + 1 >= self.ends[partition]:
            self.leave(partition)
        return is_before

    def leave(self, partition: int) -> None:
        """Expect no more of a partition."""
        self.ends.pop(partition, None)


@SOURCES.register("kafka")
class KafkaSource(IncrementalSource[KafkaParams]):
    """A topic whose messages are JSON objects, one row each."""

    Params = KafkaParams
    operational = frozenset(KafkaParams.model_fields)  # the URI alone says which messages
    is_stream = True

    @override
    def read_since(
        self,
        dataset: DatasetConfig,
        settings: Settings,
        position: Position | None,
    ) -> Iterator[Batch]:
        """Read all partitions from the position's offsets to their ends as of now; see `IncrementalSource.read_since`.

        Partitions that the position does not know are read from their beginning.
        """
        from confluent_kafka import TopicPartition

        require_time_column(dataset)
        with self._consumer(dataset) as consumer:
            topic = _topic(dataset)
            limits = self._limits(consumer, dataset)
            offsets = self._first_offsets(limits, position, dataset)
            waiting = [partition for partition, limit in limits.items() if offsets[partition] < limit.high]
            consumer.assign([TopicPartition(topic, partition, offsets[partition]) for partition in waiting])
            is_first = position is None
            for messages, reached in self._messages(consumer, dataset, offsets, {p: limits[p].high for p in waiting}):
                frame = rows_from_messages(messages, dataset, is_first=is_first)
                is_first = False
                yield Batch(frame, {"offsets": {str(partition): offset for partition, offset in reached.items()}})

    @override
    def acknowledge(self, dataset: DatasetConfig, settings: Settings, position: Position) -> None:
        """Commit the position's offsets to the broker, where they show the lag; see `IncrementalSource.acknowledge`."""
        from confluent_kafka import TopicPartition

        topic = _topic(dataset)
        offsets = [TopicPartition(topic, int(partition), at) for partition, at in position["offsets"].items()]
        try:
            with self._consumer(dataset) as consumer:
                # A commit has no timeout of its own and would wait most of a minute for a broker that is away.
                consumer.committed(offsets, timeout=self.params.poll_timeout_s)
                consumer.commit(offsets=offsets, asynchronous=False)
        except DataError as error:
            logger.warning("Dataset %s: the offsets were not reported to the broker: %s", dataset.name, error)

    @override
    def fingerprint(self, dataset: DatasetConfig, settings: Settings) -> str:
        """Return the end offsets of all partitions; see `Source.fingerprint`."""
        with self._consumer(dataset) as consumer:
            limits = self._limits(consumer, dataset)
        return " ".join(f"{partition}:{limit.high}" for partition, limit in sorted(limits.items()))

    def _messages(
        self, consumer: Consumer, dataset: DatasetConfig, offsets: dict[int, int], ends: dict[int, int]
    ) -> Iterator[tuple[list[Message], dict[int, int]]]:
        """Yield batches of messages, with the offsets to go on from, until every partition is read to its end."""
        batch: list[Message] = []
        reading, heard = _Reading(offsets, ends), time.monotonic()
        while reading.ends:
            received = consumer.consume(self.params.batch_rows - len(batch), SLICE_S)
            if received:
                heard = time.monotonic()
            elif time.monotonic() - heard > self.params.poll_timeout_s:
                self._refuse_silence(dataset, reading)
            batch += [_content(message) for message in received if self._take(message, reading, dataset)]
            if len(batch) >= self.params.batch_rows or (batch and not reading.ends):
                yield batch, dict(reading.offsets)
                batch, heard = [], time.monotonic()

    def _take(self, message: Received, reading: _Reading, dataset: DatasetConfig) -> bool:
        """Take note of what the client delivered; return whether it is a message to read."""
        from confluent_kafka import KafkaError

        partition, offset = message.partition(), message.offset()
        assert partition is not None
        error = message.error()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                self._raise(dataset, error)
            # The end of what can be read: before the high watermark if a transaction is open or markers are last.
            reading.leave(partition)
            return False
        assert offset is not None
        return reading.pass_by(partition, offset)

    def _refuse_silence(self, dataset: DatasetConfig, reading: _Reading) -> NoReturn:
        left = ", ".join(
            f"{partition}: {reading.offsets[partition]} of {end}" for partition, end in reading.ends.items()
        )
        raise SourceUnavailableError(
            f"dataset {dataset.name!r}: {dataset.source.uri} delivered nothing for {self.params.poll_timeout_s:g} s, "
            f"but has messages that are not read yet (partition: offset of end): {left}. Check the brokers, or raise "
            "source.options.poll_timeout_s"
        )

    def _limits(self, consumer: Consumer, dataset: DatasetConfig) -> dict[int, _Limits]:
        from confluent_kafka import TopicPartition

        topic = _topic(dataset)
        found = consumer.list_topics(topic, timeout=self.params.poll_timeout_s).topics[topic]
        if found.error is not None:
            self._raise(dataset, found.error)
        return {
            partition: _Limits(
                *consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=self.params.poll_timeout_s)
            )
            for partition in sorted(found.partitions)
        }

    def _first_offsets(
        self, limits: dict[int, _Limits], position: Position | None, dataset: DatasetConfig
    ) -> dict[int, int]:
        """Return where to begin in every partition.

        Raises:
            DataError: if messages from the position on are gone and `on_lost` does not allow for it.
        """
        known = _known_offsets(position, dataset)
        offsets = {partition: known.get(partition, limit.low) for partition, limit in limits.items()}
        lost = [
            f"partition {partition}: offsets {offsets[partition]} to {limit.low - 1} are deleted"
            if offsets[partition] < limit.low
            else f"partition {partition}: goes to {limit.high} only, but was read to {offsets[partition]}, so it was "
            "made anew"
            for partition, limit in limits.items()
            if not limit.low <= offsets[partition] <= limit.high
        ]
        lost += [f"partition {partition} is gone" for partition in sorted(set(known) - set(limits))]
        if lost and self.params.on_lost == "error":
            raise DataError(
                f"dataset {dataset.name!r}: {dataset.source.uri} no longer has messages that were not read yet "
                f"({'; '.join(lost)}). Raise the topic's retention; to go on without them, set source.options.on_lost "
                "to earliest, or read the dataset in full"
            )
        if lost:
            logger.warning("Dataset %s: going on without lost messages: %s", dataset.name, "; ".join(lost))
        return {
            partition: offset if limits[partition].low <= offset <= limits[partition].high else limits[partition].low
            for partition, offset in offsets.items()
        }

    @contextmanager
    def _consumer(self, dataset: DatasetConfig) -> Iterator[Consumer]:
        """Open a client; every error in it comes out as a DataError without the password."""
        from confluent_kafka import Consumer, KafkaException

        secrets = self._secrets(dataset)
        seen: list[KafkaError] = []
        configured = {**self._properties(dataset), **secrets, "error_cb": seen.append}
        failure: KafkaError | None = None
        consumer = None
        try:
            consumer = Consumer(configured, logger=logger)
            yield consumer
        except KafkaException as error:
            failure = error.args[0]
            if consumer is not None:
                consumer.poll(0)  # delivers to error_cb why the brokers could not be reached
            failure = next((other for other in seen if not _is_transient(other)), failure)
            self._raise(dataset, failure, tuple(secrets.values()))
        finally:
            if consumer is not None:
                consumer.close()

    def _properties(self, dataset: DatasetConfig) -> dict[str, Any]:
        address = parse_address(dataset, EXPECTED)
        hosts = ",".join(f"{host}:{port or DEFAULT_PORT}" for host, port in address.hosts)
        return {
            # Reports on use go to the brokers' owner unless told otherwise.
            "enable.metrics.push": False,
            **self.params.client,
            "bootstrap.servers": hosts,
            "group.id": self.params.group or f"mlplatform-{dataset.name}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }

    def _secrets(self, dataset: DatasetConfig) -> dict[str, str]:
        credentials = read_credentials(dataset, self.params.user_env, self.params.password_env)
        named = {"sasl.username": credentials.user, "sasl.password": credentials.password}
        secrets = {name: value for name, value in named.items() if value is not None}
        for name, variable in self.params.client_env.items():
            secrets[name] = required_secret(dataset, f"client_env.{name}", variable)
        return secrets

    def _raise(self, dataset: DatasetConfig, error: KafkaError, secrets: tuple[str, ...] = ()) -> NoReturn:
        text = error.str()
        for secret in secrets:
            text = text.replace(secret, "***")
        where = f"dataset {dataset.name!r}: {dataset.source.uri}"
        if _is_transient(error):
            raise SourceUnavailableError(
                f"{where} is not available: {text}. Check the brokers; then try again"
            ) from None
        raise DataError(f"{where} refuses: {text}. Check source.uri, source.options and the credentials") from None


def _content(message: Received) -> Message:
    value, key = message.value(), message.key()
    if value is not None or key is None:
        return value
    return Tombstone(key if isinstance(key, bytes) else key.encode())


def _topic(dataset: DatasetConfig) -> str:
    address = parse_address(dataset, EXPECTED)
    if len(address.path) != 1 or not address.hosts:
        raise DataError(f"dataset {dataset.name!r}: source.uri is {dataset.source.uri!r}; expected {EXPECTED}")
    return address.path[0]


def _known_offsets(position: Position | None, dataset: DatasetConfig) -> dict[int, int]:
    try:
        return {} if position is None else {int(key): int(value) for key, value in position["offsets"].items()}
    except (KeyError, AttributeError, ValueError) as error:
        raise DataError(
            f"dataset {dataset.name!r}: the stored position {position} does not hold offsets; read the dataset in full"
        ) from error


def _is_transient(error: KafkaError) -> bool:
    """Return whether the error may go away by itself. A topic that is not there yet is not expected to appear."""
    from confluent_kafka import KafkaError

    lasting = {
        KafkaError._AUTHENTICATION,
        KafkaError._INVALID_ARG,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._SSL,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.TOPIC_EXCEPTION,
    }
    return error.code() not in lasting
