"""Writers that come late to the online store: with older rows, or with a lock that has passed on to another one."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import multiprocessing
import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import pandas as pd
import pytest
import redis
from feast import FeatureStore, RepoConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from mlplatform.config import DatasetConfig
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.feast import Fence, online_servers
from mlplatform.features.feast.online_servers import online_server
from mlplatform.features.feast.repository import open_store, repo_config
from mlplatform.features.online import materialize as materialize_module
from mlplatform.features.online import push as push_module
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.online.push import push_rows
from mlplatform.features.online.read import read_rows, read_windows
from mlplatform.settings import Settings
from mlplatform_tests.features.stores import fill_store

VIEW = "plant_windows"
KEY = EntityKey(join_keys=["entity_id"], entity_values=[Value(int64_val=1)])
FEASTS_OWN = {"type": "redis", "skip_dedup": True}


@pytest.fixture
def filled(raw: pd.DataFrame, dataset: DatasetConfig, online_settings: Settings) -> DatasetConfig:
    fill_store(raw, dataset, online_settings)
    return dataset


@pytest.fixture
def on_redis(raw: pd.DataFrame, dataset: DatasetConfig, redis_server: str, settings: Settings) -> Settings:
    """Settings of an installation on Redis whose store is filled."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    settings = replace(settings, redis_url=redis_server)
    fill_store(raw, dataset, settings)
    return settings


def end_of(dataset: DatasetConfig, settings: Settings) -> pd.Timestamp:
    (last,) = read_windows(dataset, [1], ["load"], 1, settings).timestamps
    (latest,) = read_rows(dataset, [1], ["load"], settings).timestamps
    assert last == latest
    return pd.Timestamp(last, tz="UTC")


def push_hour(hours: int, raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> pd.Timestamp:
    """Push a row so many hours behind the last one of the table, and return its time."""
    row = raw[raw["entity_id"] == 1].tail(1)
    row = row.assign(event_timestamp=row["event_timestamp"] + pd.Timedelta(hours=hours))
    push_rows(dataset, row, settings)
    return pd.Timestamp(row["event_timestamp"].item())


def write(store: FeatureStore, moment: dt.datetime, end_ns: int) -> None:
    """Write a window by Feast's interface."""
    view = store.registry.get_feature_view(VIEW, store.project)
    values = {"end_ns": Value(int64_val=end_ns)}
    store.provider.online_store.online_write_batch(store.config, view, [(KEY, values, moment, None)], None)


def stored(store: FeatureStore) -> tuple[dt.datetime, int]:
    view = store.registry.get_feature_view(VIEW, store.project)
    ((moment, values),) = store.provider.online_store.online_read(store.config, view, [KEY])
    return moment, values["end_ns"].int64_val


def test_what_feast_materialises_does_not_move_pushed_windows_back(
    filled: DatasetConfig, raw: pd.DataFrame, online_settings: Settings
) -> None:
    end = end_of(filled, online_settings)
    pushed = push_hour(1, raw, filled, online_settings)
    store = open_store(online_settings)
    store.materialize(
        start_date=dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        end_date=(end + pd.Timedelta(days=1)).to_pydatetime(),
        feature_views=["plant_features", VIEW],
    )
    assert end_of(filled, online_settings) == pushed
    # The platform's own full run is asked for by name, and brings the table back.
    materialize_online(filled, online_settings)
    assert end_of(filled, online_settings) == end
    # A newer row and a corrected one of the same time are written.
    for later in (0, 1):
        moment = (end + pd.Timedelta(hours=later)).to_pydatetime()
        write(store, moment, later)
        assert stored(store)[1] == later


def test_the_server_compares_times_as_they_are_ordered(on_redis: Settings) -> None:
    store = open_store(on_redis)
    view = store.registry.get_feature_view(VIEW, store.project)
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    seconds = (
        -2_208_988_800.0,
        -129.0,
        -128.5,
        -1.0,
        -0.000001,
        0.000001,
        0.5,
        127.0,
        128.0,
        16_384.25,
        4_102_444_800.0,
    )
    for (_, before), (number, after) in itertools.product(enumerate(seconds), repeat=2):
        old, new = epoch + dt.timedelta(seconds=before), epoch + dt.timedelta(seconds=after)
        store.provider.online_store.overwrite(store.config, view, [(KEY, {"end_ns": Value(int64_val=-7)}, old, None)])
        write(store, new, number)
        assert stored(store)[1] == (number if after >= before else -7), (before, after)
    # The time 0 is that of an entity that was taken out.
    store.provider.online_store.overwrite(store.config, view, [(KEY, {"end_ns": Value()}, epoch, None)])
    write(store, epoch - dt.timedelta(days=1), 5)
    assert stored(store)[1] == 5


def test_feasts_own_type_reads_and_writes_the_same_rows(on_redis: Settings) -> None:
    ours = open_store(on_redis)
    config = repo_config(on_redis)
    feasts = FeatureStore(config=RepoConfig(**{**config, "online_store": {**config["online_store"], **FEASTS_OWN}}))
    end, _ = stored(ours)
    assert stored(feasts) == stored(ours)
    write(feasts, end - dt.timedelta(hours=1), 3)
    assert stored(ours) == (end - dt.timedelta(hours=1), 3)
    write(ours, end, 4)
    assert stored(feasts) == (end, 4)


def test_writes_that_are_waited_for_elsewhere_keep_the_newer_row_too(on_redis: Settings) -> None:
    store = FeatureStore(config=RepoConfig(**repo_config(on_redis)))
    view = store.registry.get_feature_view(VIEW, store.project)
    end, _ = stored(store)
    # The newest of one batch wins, whatever its place.
    rows = [(KEY, {"end_ns": Value(int64_val=hours)}, end + dt.timedelta(hours=hours), None) for hours in (-1, 2, 1)]
    written: list[int] = []
    asyncio.run(store.provider.online_store.online_write_batch_async(store.config, view, rows, written.append))
    assert stored(store) == (end + dt.timedelta(hours=2), 2)
    assert written == [3]


def test_rows_expire_where_feast_is_told_so(on_redis: Settings) -> None:
    config = repo_config(on_redis)
    store = FeatureStore(
        config=RepoConfig(**{**config, "online_store": {**config["online_store"], "key_ttl_seconds": 60}})
    )
    assert on_redis.redis_url is not None
    with redis.Redis.from_url(on_redis.redis_url) as client:
        (key,) = [key for key in client.scan_iter() if key.endswith(b"mlplatform") and b"\x01\x00\x00\x00\x00" in key]
        assert client.ttl(key) == -1
        write(store, dt.datetime(2030, 1, 1, tzinfo=dt.UTC), 1)
        assert 0 < client.ttl(key) <= 60


def stopped_before(module: Any, action: Any, ready: Connection) -> None:
    """Do something in a process that stops itself when it has the lock and goes to write; send what it raised."""
    original = module.write_windows

    def stopping(*arguments: Any) -> None:
        module.write_windows = original
        os.kill(os.getpid(), signal.SIGSTOP)
        original(*arguments)

    module.write_windows = stopping
    try:
        action()
    except FeatureStoreError as error:
        ready.send(str(error))
    else:
        ready.send("")


@pytest.mark.parametrize("late", ["push", "materialize"])
def test_a_writer_that_was_stopped_for_longer_than_its_lease_is_refused(
    late: str, raw: pd.DataFrame, dataset: DatasetConfig, on_redis: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_servers, "LOCK_S", 0.5)
    actions = {
        "push": (push_module, lambda: push_hour(1, raw, dataset, on_redis)),
        "materialize": (materialize_module, lambda: materialize_online(dataset, on_redis)),
    }
    forking = multiprocessing.get_context("fork")
    here, there = forking.Pipe()
    process = forking.Process(target=stopped_before, args=(*actions[late], there))
    process.start()
    assert process.pid is not None
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        newer = push_hour(3, raw, dataset, on_redis)  # has to wait until the lease has lapsed
        os.kill(process.pid, signal.SIGCONT)
        assert here.poll(30)
        assert "lapsed while it was held; nothing more was written, repeat" in here.recv()
    finally:
        process.kill()
        process.join()
    assert end_of(dataset, on_redis) == newer


def test_a_holder_without_a_successor_may_write_late(
    raw: pd.DataFrame, dataset: DatasetConfig, on_redis: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on_redis.redis_url is not None
    original = push_module.write_windows

    def late(*arguments: Any) -> None:
        with redis.Redis.from_url(str(on_redis.redis_url)) as client:
            client.delete("mlplatform:lock:plant.write")
        original(*arguments)

    monkeypatch.setattr(push_module, "write_windows", late)
    assert end_of(dataset, on_redis) < push_hour(1, raw, dataset, on_redis) == end_of(dataset, on_redis)


def test_the_numbers_of_holders_rise(on_redis: Settings) -> None:
    server, numbers = online_server(on_redis), []
    for _ in range(3):
        with server.lock("plant.counted") as lease:
            numbers.append(lease.fences[0].number)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("loss", ["flushed", "restored"])
def test_a_holder_from_before_a_server_lost_its_counters_is_refused(loss: str, on_redis: Settings) -> None:
    """What was written since stays; so does what nobody has written, until another one holds the lock."""
    server, store = online_server(on_redis), open_store(on_redis)
    view = store.registry.get_feature_view(VIEW, store.project)
    end, _ = stored(store)

    def overwrite(content: int, fences: tuple[Fence, ...]) -> None:
        store.provider.online_store.overwrite(
            store.config, view, [(KEY, {"end_ns": Value(int64_val=content)}, end, None)], fences
        )

    with redis.Redis.from_url(str(on_redis.redis_url)) as client:
        with server.lock("plant.lost") as late:
            kept = client.dump(late.fences[0].key)
        if loss == "restored":
            with server.lock("plant.lost") as late:
                pass
        client.flushdb()
        if loss == "restored":
            # As a copy of the server knows it that was made before the last holder.
            client.restore(late.fences[0].key, 0, kept)
        with pytest.raises(FeatureStoreError, match="lapsed while it was held"):
            overwrite(1, late.fences)
        with server.lock("plant.lost") as lease:
            overwrite(2, lease.fences)
        assert lease.fences[0].number > late.fences[0].number
        with pytest.raises(FeatureStoreError, match="lapsed while it was held"):
            overwrite(3, late.fences)
    assert stored(store) == (end, 2)
