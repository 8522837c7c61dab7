"""Redis Streams: `redis-stream://host:port/<database number>/<stream>`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import override

from mlplatform.config import DatasetConfig
from mlplatform.data.columns import source_columns
from mlplatform.data.errors import DataError, SourceUnavailableError
from mlplatform.data.sources.base import Batch, IncrementalSource, Position
from mlplatform.data.sources.messages import Message, StreamParams, require_time_column, rows_from_messages
from mlplatform.data.sources.servers import parse_address, read_credentials
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

EXPECTED = "redis-stream://host:port/database/stream, for example redis-stream://localhost:6379/0/readings"
DEFAULT_PORT = 6379
BEGINNING = "0-0"

logger = logging.getLogger(__name__)


class RedisStreamParams(StreamParams):
    """How to connect, and where an entry has its row.

    `field` is the entry's field that holds the JSON object; `null`: the entry's fields are the row. `group` is a
    consumer group that is moved along for whoever watches the lag; without one nothing is reported. `ssl` and
    `ssl_root_cert` (a file) switch TLS on.
    """

    field: str | None = "value"
    ssl: bool = False
    ssl_root_cert: str | None = None


@SOURCES.register("redis-stream")
class RedisStreamSource(IncrementalSource[RedisStreamParams]):
    """A stream whose entries are rows."""

    Params = RedisStreamParams
    operational = frozenset(RedisStreamParams.model_fields) - {"field"}
    is_stream = True

    @override
    def read_since(
        self,
        dataset: DatasetConfig,
        settings: Settings,
        position: Position | None,
    ) -> Iterator[Batch]:
        """Read the entries after the position's id up to the last one as of now; see `IncrementalSource.read_since`."""
        require_time_column(dataset)
        is_first = position is None
        position = self._checked(position, dataset)
        with self._client(dataset) as (client, stream):
            end = _info(client, stream, dataset)
            position = self._after_losses(end, position, dataset)
            while _order(position["id"]) < _order(end["last-generated-id"]):
                # Looked at again before every batch: the server deletes old entries while others are read.
                position = self._after_losses(_info(client, stream, dataset), position, dataset)
                entries = client.xrange(stream, f"({position['id']}", end["last-generated-id"], self.params.batch_rows)
                if not entries:
                    return
                position = _position(entries[-1][0].decode(), end)
                messages = [self._message(fields, dataset) for _, fields in entries]
                yield Batch(rows_from_messages(messages, dataset, is_first=is_first), position)
                is_first = False

    @override
    def acknowledge(self, dataset: DatasetConfig, settings: Settings, position: Position) -> None:
        """Move the consumer group, if there is one, to the position; see `IncrementalSource.acknowledge`."""
        if self.params.group is None:
            return
        import redis

        try:
            with self._client(dataset) as (client, stream):
                try:
                    client.xgroup_create(stream, self.params.group, position["id"])
                except redis.ResponseError as error:
                    if "BUSYGROUP" not in str(error):
                        raise
                    client.xgroup_setid(stream, self.params.group, position["id"])
        except DataError as error:
            logger.warning("Dataset %s: the position was not reported to Redis: %s", dataset.name, error)

    @override
    def fingerprint(self, dataset: DatasetConfig, settings: Settings) -> str:
        """Return the id of the last entry that was added; see `Source.fingerprint`."""
        with self._client(dataset) as (client, stream):
            return str(_info(client, stream, dataset)["last-generated-id"])

    def _checked(self, position: Position | None, dataset: DatasetConfig) -> Position:
        if position is None:
            return {"id": BEGINNING}
        try:
            _order(position["id"])
        except (KeyError, ValueError, AttributeError) as error:
            raise DataError(
                f"dataset {dataset.name!r}: the stored position {position} is not the id of an entry; read the dataset "
                "in full"
            ) from error
        return position

    def _after_losses(self, info: Mapping[str, Any], position: Position, dataset: DatasetConfig) -> Position:
        """Return where to go on.

        Raises:
            DataError: if entries after the position may be gone and `on_lost` does not allow for it.
        """
        lost = describe_loss(info, position)
        if lost is None:
            return position
        if self.params.on_lost == "error":
            raise DataError(
                f"dataset {dataset.name!r}: {dataset.source.uri} {lost}. Trim the stream later; to go on without them, "
                "set source.options.on_lost to earliest, or read the dataset in full"
            )
        logger.warning("Dataset %s: going on without lost entries: %s", dataset.name, lost)
        return {"id": BEGINNING}

    def _message(self, fields: dict[bytes, bytes], dataset: DatasetConfig) -> Message:
        """Return the entry as a JSON object, or as what is none if a column of the dataset is not in UTF-8."""
        import orjson

        if self.params.field is not None:
            return fields.get(self.params.field.encode())
        columns = {name.encode() for name in source_columns(dataset)}
        try:
            return orjson.dumps(
                {
                    name.decode(errors="replace"): value.decode(errors="strict" if name in columns else "replace")
                    for name, value in fields.items()
                }
            )
        except UnicodeDecodeError:
            return b" ".join(part for field in fields.items() for part in field)

    @contextmanager
    def _client(
        self, dataset: DatasetConfig
    ) -> Iterator[tuple[Any, str]]:  # redis types every answer as one that may be awaited
        """Open a client; every error in it comes out as a DataError without the password."""
        import redis
        from redis.backoff import ExponentialBackoff
        from redis.retry import Retry

        address = parse_address(dataset, EXPECTED)
        if len(address.path) != 2 or len(address.hosts) != 1 or not address.path[0].isdecimal():
            raise DataError(f"dataset {dataset.name!r}: source.uri is {dataset.source.uri!r}; expected {EXPECTED}")
        (host, port), (database, stream) = address.hosts[0], address.path
        credentials = read_credentials(dataset, self.params.user_env, self.params.password_env)
        client = redis.Redis(
            host=host,
            port=port or DEFAULT_PORT,
            db=int(database),
            username=credentials.user,
            password=credentials.password,
            socket_timeout=self.params.poll_timeout_s,
            socket_connect_timeout=self.params.poll_timeout_s,
            # A lost connection is made again; a server that is away is the caller's to wait for.
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
            ssl=self.params.ssl,
            ssl_ca_certs=self._root_cert(dataset),
        )
        where = f"dataset {dataset.name!r}: {dataset.source.uri}"
        try:
            yield client, stream
        except redis.RedisError as error:
            text = credentials.scrub(str(error))
            is_away = isinstance(error, (redis.ConnectionError, redis.TimeoutError))
            if is_away and not isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
                raise SourceUnavailableError(
                    f"{where} is not available: {text}. Check the server; then try again"
                ) from None
            raise DataError(f"{where} refuses: {text}. Check source.uri, source.options and the credentials") from None
        finally:
            client.close()

    def _root_cert(self, dataset: DatasetConfig) -> str | None:
        path = self.params.ssl_root_cert
        if path is not None and not Path(path).is_file():
            raise DataError(
                f"dataset {dataset.name!r}: source.options.ssl_root_cert names {path!r}, which is not a file"
            )
        return path


def describe_loss(info: Mapping[str, Any], position: Position) -> str | None:
    """Return what is missing between a position and the entries that are left, or `None` if nothing is.

    Entries are deleted from the front. If even the position's own is gone, the ones after it may be as well; since
    Redis 7 the stream counts what was ever added, and `added` in the position says what that was there.

    Parameters:
        info: Redis' XINFO STREAM: `last-generated-id`, `first-entry`, `length` and, since Redis 7, `entries-added`.
    """
    if position["id"] == BEGINNING:
        return None
    if _order(info["last-generated-id"]) < _order(position["id"]):
        return f"ends at {info['last-generated-id']}, but was read to {position['id']}, so it was made anew"
    first = info["first-entry"]
    if first is None and info["last-generated-id"] == position["id"]:
        return None
    if first is not None and _order(first[0].decode()) <= _order(position["id"]):
        return None
    if "added" in position and "entries-added" in info:
        lost = info["entries-added"] - position["added"] - info["length"]
        return f"has deleted {lost} entries after {position['id']} that were not read yet" if lost > 0 else None
    return f"has deleted the entries up to {position['id']}, and may have deleted some that were not read yet"


def _position(last: str, end: Mapping[str, Any]) -> Position:
    is_end = last == end["last-generated-id"] and "entries-added" in end
    return {"id": last, "added": end["entries-added"]} if is_end else {"id": last}


def _info(client: Any, stream: str, dataset: DatasetConfig) -> dict[str, Any]:
    """Return XINFO STREAM with the last id as text.

    Raises:
        DataError: if there is no such stream.
    """
    if not client.exists(stream):
        raise DataError(
            f"dataset {dataset.name!r}: there is no stream {stream!r} at {dataset.source.uri}; add a first entry, or "
            "correct source.uri"
        )
    info: dict[str, Any] = client.xinfo_stream(stream)
    return {**info, "last-generated-id": info["last-generated-id"].decode()}


def _order(entry_id: str) -> tuple[int, int]:
    """Return an entry's id as numbers, because as text 10-0 would come before 9-0."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)
