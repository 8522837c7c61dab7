"""Redis as the online store: its address, its lock, and what happens when it does not answer."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import pytest
import redis

from mlplatform.features.errors import FeatureStoreError, StoreUnavailableError
from mlplatform.features.feast import online_servers
from mlplatform.features.feast.online_servers import online_server, redis_connection, redis_options
from mlplatform.features.feast.repository import apply_dataset, open_store, repo_config
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.online.push import push_rows
from mlplatform.features.online.read import read_windows
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table
from mlplatform_tests.features.conftest import raw_frame, timeseries

DEFAULTS = "socket_timeout=10.0,socket_connect_timeout=3.0,retry=null"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", f"cache:6379,db=0,{DEFAULTS}"),
        ("redis://cache:7000/3", f"cache:7000,db=3,{DEFAULTS}"),
        ("rediss://me:p%40ss=1@cache", f'cache:6379,db=0,ssl=true,username="me",password="p@ss=1",{DEFAULTS}'),
        (
            "rediss://cache?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false&socket_timeout=1.5",
            "cache:6379,db=0,ssl=true,socket_timeout=1.5,socket_connect_timeout=3.0,retry=null,"
            'ssl_ca_certs="/etc/ca.pem",ssl_check_hostname=false',
        ),
        ("unix:///run/redis.sock?db=2", f'localhost:6379,db=2,unix_socket_path="/run/redis.sock",{DEFAULTS}'),
    ],
)
def test_an_address_becomes_feasts_connection_string(url: str, expected: str) -> None:
    assert redis_connection(url) == expected
    settings = Settings.from_env({"MLPLATFORM_HOME": "/nowhere", "MLPLATFORM_REDIS_URL": url})
    assert repo_config(settings)["online_store"]["type"].endswith(".WindowRedisOnlineStore")
    assert "cache" not in repr(settings)
    assert "p@ss" not in repr(repo_config(settings))


def test_feast_reads_the_same_options_from_its_connection_string() -> None:
    from feast.infra.online_stores.redis import RedisOnlineStore

    for url in ("rediss://me:p%40ss=1@cache:7000/3?ssl_cert_reqs=none", "unix://:pw@/run/redis.sock?db=2"):
        options = redis_options(url)
        nodes, values = RedisOnlineStore._parse_connection_string(redis_connection(url))
        assert values == {name: value for name, value in options.items() if name not in ("host", "port")}
        assert nodes == [{"host": options.get("host", "localhost"), "port": str(options.get("port", 6379))}]


@pytest.mark.parametrize(
    "url",
    [
        "http://cache",
        "redis://",
        "unix://",
        "redis://:secret@cache:port",
        "redis://:secret,1@cache",
        "redis://:secret@cache/first",
        "redis://:secret@cache?retries=secret",
        "redis://:secret@cache?socket_timeout=secret",
    ],
)
def test_a_bad_address_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(FeatureStoreError, match="MLPLATFORM_REDIS_URL") as caught:
        redis_connection(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.fixture
def unreachable(settings: Settings) -> Settings:
    """Settings whose Redis server does not exist; its port is held but nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return replace(settings, redis_url=f"redis://me:secret@127.0.0.1:{taken.getsockname()[1]}/0")


def test_a_server_that_is_not_there_is_named_without_its_password(unreachable: Settings) -> None:
    dataset = timeseries("plant")
    write_feature_table(raw_frame(), dataset, unreachable)
    apply_dataset(dataset, unreachable)

    def read() -> Any:
        return read_windows(dataset, [1], ["load"], 2, unreachable)

    for action in (
        read,
        lambda: push_rows(dataset, raw_frame().tail(1), unreachable),
        lambda: materialize_online(dataset, unreachable),
    ):
        with pytest.raises(StoreUnavailableError, match=r"the online store \(Redis at 127\.0\.0\.1:\d+\)") as caught:
            action()
        assert "secret" not in str(caught.value)
    assert "secret" not in repr(open_store(unreachable))
    assert "secret" not in repr(open_store(unreachable).config)


@pytest.fixture
def guarded(redis_server: str, settings: Settings) -> Iterator[tuple[str, Settings]]:
    """A server that asks for a password; yields the address with a wrong one, and settings with the right one."""
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    client.config_set("requirepass", "right=1 @")
    path = redis_server.removeprefix("unix://")
    yield f"unix://:wrong@{path}", replace(settings, redis_url=f"unix://:right%3D1%20%40@{path}")
    allowed = redis.Redis.from_url(redis_server, password="right=1 @")
    allowed.config_set("requirepass", "")
    allowed.close()
    client.close()


def test_a_password_is_passed_on_and_a_wrong_one_is_not_shown(guarded: tuple[str, Settings]) -> None:
    wrong, settings = guarded
    dataset = timeseries("plant")
    write_feature_table(raw_frame(), dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    assert read_windows(dataset, [1], ["load"], 2, settings).rows == 2
    with pytest.raises(StoreUnavailableError, match="1 try in") as caught:
        read_windows(dataset, [1], ["load"], 2, replace(settings, redis_url=wrong))
    assert "wrong" not in str(caught.value)


def test_a_lock_keeps_others_out_until_it_lapses(
    redis_server: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_servers, "LOCK_S", 0.3)
    monkeypatch.setattr(online_servers, "LOCK_WAIT_S", 0.1)
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    server = online_server(replace(settings, redis_url=redis_server))
    with server.lock("plant.write") as lease, server.lock("other.write"):
        with (
            pytest.raises(FeatureStoreError, match=r"'plant\.write' on the online store was not free"),
            server.lock("plant.write"),
        ):
            raise AssertionError("two holders")
        lease.confirm()
        client.delete("mlplatform:lock:plant.write")
        with pytest.raises(FeatureStoreError, match="lapsed while it was held; nothing more was written, repeat"):
            lease.confirm()
    client.close()
    with server.lock("plant.write") as lease:
        lease.confirm()


def test_a_slow_holder_keeps_its_lock(redis_server: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_servers, "LOCK_S", 0.4)
    monkeypatch.setattr(online_servers, "LOCK_WAIT_S", 0.1)
    server = online_server(replace(settings, redis_url=redis_server))
    with server.lock("plant.slow") as lease:
        time.sleep(1.0)
        with pytest.raises(FeatureStoreError, match="was not free"), server.lock("plant.slow"):
            raise AssertionError("two holders")
        lease.confirm()


def test_the_lock_of_a_killed_holder_is_free_within_seconds(
    redis_server: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert online_servers.LOCK_S <= 10
    monkeypatch.setattr(online_servers, "LOCK_S", 1.0)
    settings = replace(settings, redis_url=redis_server)

    def hold(ready: Connection) -> None:
        with online_server(settings).lock("plant.killed"):
            ready.send(True)
            time.sleep(600)

    forking = multiprocessing.get_context("fork")
    here, there = forking.Pipe()
    holder = forking.Process(target=hold, args=(there,))
    holder.start()
    assert here.recv()
    holder.kill()
    holder.join()
    began = time.monotonic()
    with online_server(settings).lock("plant.killed") as lease:
        lease.confirm()
    assert 0.2 < time.monotonic() - began < 5.0


def test_a_database_keeps_its_identity_until_it_is_emptied(redis_server: str, settings: Settings) -> None:
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    server = online_server(replace(settings, redis_url=redis_server))
    other = online_server(replace(settings, redis_url=redis_server.replace("db=0", "db=1")))
    first = server.identity()
    assert server.identity() == first
    assert other.identity() != first
    client.flushdb()
    client.close()
    assert server.identity() != first
