"""Redis Streams: where reading begins and ends, what is reported as lost, and what errors say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from mlplatform.config import DatasetConfig
from mlplatform.data import ingest, open_raw, read_raw
from mlplatform.data.errors import DataError, SourceUnavailableError
from mlplatform.data.sources import Batch, open_source
from mlplatform.data.sources.redis_stream import RedisStreamSource, describe_loss
from mlplatform.features.tables import update_feature_table
from mlplatform.settings import Settings
from mlplatform_tests.data.conftest import hourly_dataset
from mlplatform_tests.data.servers import free_port, redis_server


class Stream:
    """A stream to fill."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self.address = address
        self.name = f"pump-{uuid.uuid4().hex}"
        # redis types every answer as one that may be awaited.
        self.client: Any = redis_client.Redis(host=host, port=int(port), db=1)

    def add(self, *flows: int, **limits: Any) -> None:
        for flow in flows:
            value = {"time": f"2024-01-01T{flow:02d}:00:00Z", "flow": flow, "pressure": 1, "state": "open"}
            self.client.xadd(self.name, {"value": json.dumps(value)}, **limits)

    def dataset(self, **options: Any) -> DatasetConfig:
        return hourly_dataset(source={"uri": f"redis-stream://{self.address}/1/{self.name}", "options": options})


@pytest.fixture
def stream(redis: str) -> Iterator[Stream]:
    stream = Stream(redis)
    yield stream
    stream.client.close()


@pytest.fixture(scope="module")
def new_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    executable = shutil.which("redis-server")
    version = subprocess.run([executable, "--version"], capture_output=True, text=True).stdout if executable else ""
    found = re.search(r"v=(\d+)", version)
    if executable is None or found is None or int(found.group(1)) < 7:
        pytest.skip("no redis-server 7 or newer on the path, which counts the entries that were ever added")
    with redis_server(tmp_path_factory.mktemp("redis"), executable) as address:
        yield address


def read(dataset: DatasetConfig, settings: Settings, position: dict[str, Any] | None = None) -> list[Batch]:
    source = open_source(dataset)
    assert isinstance(source, RedisStreamSource)
    return list(source.read_since(dataset, settings, position))


def flows(batches: list[Batch]) -> list[float]:
    return [flow for batch in batches for flow in batch.frame["flow"]]


def test_a_stream_is_read_in_batches_and_from_any_position_on(stream: Stream, settings: Settings) -> None:
    stream.add(*range(10))
    dataset = stream.dataset(batch_rows=4)
    batches = read(dataset, settings)
    assert [len(batch.frame) for batch in batches] == [4, 4, 2]
    assert flows(batches) == list(range(10))
    stream.add(10, 11)
    for number in range(3):
        assert flows(batches[: number + 1] + read(dataset, settings, batches[number].position)) == list(range(12))
    assert read(dataset, settings, read(dataset, settings, batches[-1].position)[-1].position) == []


@pytest.mark.parametrize("wrong", ["1970-01-01T00:00:07Z", "1999-12-31T23:00:00Z", "2024-01-01T00:20:00Z"])
def test_a_wrong_time_at_the_very_beginning_gives_way_to_what_follows(
    stream: Stream, settings: Settings, wrong: str
) -> None:
    """The first message is the first commit, and neither the grid nor its beginning is the message's."""
    value = {"time": wrong, "flow": 1, "pressure": 1, "state": "open"}
    stream.client.xadd(stream.name, {"value": json.dumps(value)})
    dataset = stream.dataset(batch_rows=1)
    assert ingest(dataset, settings).rows == 1
    stream.add(*range(1, 6))
    report = ingest(dataset, settings)
    rows = read_raw(dataset, settings)
    times = rows["event_timestamp"].dt.strftime("%Y-%m-%dT%H").tolist()
    # Of two rows on two grids neither is believed more: the first right one may be lost with the wrong one.
    assert times in ([f"2024-01-01T{hour:02d}" for hour in range(first, 6)] for first in (1, 2))
    assert report.rows == len(rows)
    assert report.quarantined == 6 - len(rows)
    table = open_raw(dataset, settings)
    assert table is not None
    assert table.spans[["first", "last"]].iloc[0].tolist() == [
        int(rows["event_timestamp"].iloc[place].value) for place in (0, -1)
    ]
    assert update_feature_table(dataset, settings).rows == len(rows)


def test_what_arrives_while_it_reads_is_left_for_the_next_call(stream: Stream, settings: Settings) -> None:
    stream.add(*range(6))
    dataset = stream.dataset(batch_rows=3)
    source = open_source(dataset)
    assert isinstance(source, RedisStreamSource)
    reading = source.read_since(dataset, settings, None)
    batches = [next(reading)]
    stream.add(6)
    batches += reading
    assert flows(batches) == list(range(6))
    assert flows(read(dataset, settings, batches[-1].position)) == [6]


def test_without_a_field_the_entry_is_the_row(stream: Stream, settings: Settings) -> None:
    stream.client.xadd(stream.name, {"time": "2024-01-01T00:00:00Z", "flow": "1.5", "pressure": 2, "state": "für"})
    (batch,) = read(stream.dataset(field=None), settings)
    assert batch.frame.iloc[0].to_dict() == {
        "time": "2024-01-01T00:00:00Z",
        "flow": "1.5",
        "pressure": "2",
        "state": "für",
    }


def test_an_entry_that_is_not_utf8_is_a_bad_row_where_it_is_read(stream: Stream, settings: Settings) -> None:
    row: dict[Any, Any] = {"time": "2024-01-01T00:00:00Z", "flow": "1.5", "pressure": 2, "state": "open"}
    stream.client.xadd(stream.name, row | {"picture": b"\xff"})
    stream.client.xadd(stream.name, row | {"state": b"f\xfcr"})
    (batch,) = read(stream.dataset(field=None), settings)
    assert batch.frame["state"].tolist() == ["open", None]
    assert batch.frame["time"].iloc[1].startswith("not a JSON object: time 2024-01-01")


def test_an_entry_without_the_field_is_a_bad_row(stream: Stream, settings: Settings) -> None:
    stream.add(0)
    stream.client.xadd(stream.name, {"other": "x"})
    (batch,) = read(stream.dataset(), settings)
    assert batch.frame["time"].tolist() == ["2024-01-01T00:00:00Z", "not a JSON object: no value"]


def test_entries_that_may_be_lost_are_an_error_unless_allowed(
    stream: Stream, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    stream.add(*range(4))
    position = read(stream.dataset(), settings)[-1].position
    stream.add(*range(4, 12), maxlen=3, approximate=False)
    with pytest.raises(DataError, match=r"has deleted the entries up to \d+-\d+, and may have.*on_lost to earliest"):
        read(stream.dataset(), settings, {"id": position["id"]})
    assert flows(read(stream.dataset(on_lost="earliest"), settings, position)) == [9, 10, 11]
    assert "going on without lost entries" in caplog.text


def test_trimming_what_was_read_loses_nothing(stream: Stream, settings: Settings) -> None:
    stream.add(*range(4))
    position = read(stream.dataset(), settings)[-1].position
    stream.client.xtrim(stream.name, minid=position["id"], approximate=False)
    stream.add(4)
    assert flows(read(stream.dataset(), settings, position)) == [4]
    stream.client.xtrim(stream.name, maxlen=0, approximate=False)
    (last,) = stream.client.xrevrange(stream.name, count=1) or [(None, None)]
    assert last is not None
    caught_up = {"id": stream.client.xinfo_stream(stream.name)["last-generated-id"].decode()}
    assert read(stream.dataset(), settings, caught_up) == []


def test_since_redis_7_lost_entries_are_counted(new_redis: str, settings: Settings) -> None:
    stream = Stream(new_redis)
    stream.add(*range(4))
    position = read(stream.dataset(), settings)[-1].position
    stream.client.xtrim(stream.name, maxlen=0, approximate=False)
    stream.add(4, 5)
    assert flows(read(stream.dataset(), settings, position)) == [4, 5]
    stream.add(6, 7, maxlen=1, approximate=False)
    with pytest.raises(DataError, match=r"has deleted 3 entries after \d+-\d+ that were not read yet"):
        read(stream.dataset(), settings, position)
    stream.client.close()


def test_losses_by_the_count_of_what_was_added() -> None:
    info = {"last-generated-id": "9-0", "first-entry": (b"8-0", {}), "length": 2, "entries-added": 10}
    assert describe_loss(info, {"id": "4-0", "added": 8}) is None
    assert "deleted 1 entries" in str(describe_loss(info, {"id": "4-0", "added": 7}))
    assert "may have deleted" in str(describe_loss(info, {"id": "4-0"}))
    assert describe_loss(info, {"id": "8-0"}) is None
    assert "made anew" in str(describe_loss(info, {"id": "10-0"}))


def test_a_stream_that_was_made_anew_is_noticed(stream: Stream, settings: Settings) -> None:
    stream.add(0)
    with pytest.raises(DataError, match="so it was made anew"):
        read(stream.dataset(), settings, {"id": "99999999999999-0"})


def test_the_group_shows_the_lag(stream: Stream, settings: Settings) -> None:
    stream.add(*range(3))
    dataset = stream.dataset(group="platform")
    (batch,) = read(dataset, settings)
    source = open_source(dataset)
    assert isinstance(source, RedisStreamSource)
    for expected in ("0-1", batch.position["id"]):
        source.acknowledge(dataset, settings, {"id": expected})
        (group,) = stream.client.xinfo_groups(stream.name)
        assert (group["name"], group["last-delivered-id"]) == (b"platform", expected.encode())


def test_the_fingerprint_is_the_last_id(stream: Stream, settings: Settings) -> None:
    stream.add(0)
    seen = open_source(stream.dataset()).fingerprint(stream.dataset(), settings)
    stream.add(1)
    assert open_source(stream.dataset()).fingerprint(stream.dataset(), settings) != seen


def test_a_stream_that_is_not_there_is_named(stream: Stream, settings: Settings) -> None:
    with pytest.raises(DataError, match=rf"there is no stream '{stream.name}'"):
        read(stream.dataset(), settings)


def test_a_key_that_is_no_stream_is_refused(stream: Stream, settings: Settings) -> None:
    stream.client.set(stream.name, "x")
    with pytest.raises(DataError, match=r"refuses: .*(WRONGTYPE|wrong kind)"):
        read(stream.dataset(), settings)


def test_a_server_that_is_away_is_worth_another_try(settings: Settings) -> None:
    dataset = hourly_dataset(
        source={"uri": f"redis-stream://127.0.0.1:{free_port()}/0/s", "options": {"poll_timeout_s": 0.2}}
    )
    with pytest.raises(SourceUnavailableError, match="is not available"):
        read(dataset, settings)


def test_a_wrong_password_is_an_error_and_not_shown(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path, None, "--requirepass", "right-one") as address:
        stream = Stream(address)
        for password, message in (("hunter2", r"refuses"), ("right-one", r"there is no stream")):
            monkeypatch.setenv("PUMP_PASSWORD", password)
            with pytest.raises(DataError, match=message) as caught:
                read(stream.dataset(password_env="PUMP_PASSWORD"), settings)
            assert not isinstance(caught.value, SourceUnavailableError)
            assert password not in str(caught.value)


@pytest.mark.parametrize("uri", ["redis-stream://host/stream", "redis-stream:///0/s", "redis-stream://a,b/0/s"])
def test_a_uri_that_is_not_a_stream_says_how_one_is_written(uri: str, settings: Settings) -> None:
    with pytest.raises(DataError, match="expected redis-stream://host:port/database/stream"):
        read(hourly_dataset(source={"uri": uri}), settings)


def test_a_user_in_the_uri_is_refused_and_not_repeated(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"source\.uri names a user") as caught:
        read(hourly_dataset(source={"uri": "redis-stream://hunter2@host/0/s"}), settings)
    assert "hunter2" not in str(caught.value)
