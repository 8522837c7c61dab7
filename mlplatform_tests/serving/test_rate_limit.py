"""How often a client may ask, what it is told, and what else of a request is bounded."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlplatform.settings import ServerLimits
from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.local import LocalBackend
from serving.rate_limit import SLOTS, Buckets, network_of


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def serving(platform: Platform, **changes: Any) -> Iterator[httpx.Client]:
    settings = platform.serving("tiny_untrained", **changes)
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        yield client


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    clock = Clock()
    buckets = Buckets(rate=2, burst=5, clock=clock)
    assert [buckets.take(b"one").remaining for _ in range(5)] == [4, 3, 2, 1, 0]
    refused = buckets.take(b"one")
    assert (refused.wait_s, refused.full_s) == (pytest.approx(0.5), pytest.approx(2.5))
    assert buckets.take(b"two").wait_s == 0  # every client has a bucket of its own
    clock.now += 0.5
    assert [buckets.take(b"one").wait_s for _ in range(2)] == [0, pytest.approx(0.5)]
    clock.now += 3600
    assert sum(buckets.take(b"one").wait_s == 0 for _ in range(50)) == 5  # nothing is saved up beyond the burst


def test_what_clients_are_told_does_not_depend_on_how_long_the_machine_has_run() -> None:
    clock = Clock()
    buckets = Buckets(rate=0.01, burst=2, clock=clock)
    for number in range(500):
        clock.now = 8092.1 + number * 0.1999  # a sum has fewer digits beyond 8192
        told = [buckets.take(str(number).encode()) for _ in range(3)]
        assert [math.ceil(verdict.full_s) for verdict in told] == [100, 200, 200]
        assert math.ceil(told[2].wait_s) == 100


def test_the_table_holds_many_clients_and_never_grows() -> None:
    clock = Clock()
    buckets = Buckets(rate=1, burst=1, clock=clock)
    clients = [str(number).encode() for number in range(SLOTS // 2)]
    assert all(buckets.take(client).wait_s == 0 for client in clients)
    # A few of them have lost their place to others.
    assert sum(buckets.take(client).wait_s > 0 for client in clients) > 0.98 * len(clients)
    for number in range(4 * SLOTS):
        buckets.take(f"stranger {number}".encode())  # more than there is place for: nobody fails


def test_processes_count_together(tmp_path: Path) -> None:
    table = tmp_path / "buckets"
    count = f"""
from pathlib import Path
from serving.rate_limit import Buckets
buckets = Buckets(rate=0.001, burst=300, path=Path({str(table)!r}))
print(sum(buckets.take(b"one").wait_s == 0 for _ in range(250)))
"""
    started = [subprocess.Popen([sys.executable, "-c", count], stdout=subprocess.PIPE) for _ in range(3)]
    counts = [int(each.communicate(timeout=120)[0]) for each in started]
    assert sum(counts) == 300
    assert Buckets(rate=0.001, burst=300, path=table).take(b"one").wait_s > 0


def test_an_address_is_limited_and_told_so_and_probes_are_not(platform: Platform) -> None:
    limits = ServerLimits(rate=0.01, burst=2)
    with serving(platform, limits=limits) as client:
        first, second, third = (client.get("/models", headers={"x-forwarded-for": f"10.0.0.{n}"}) for n in range(3))
        assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
        assert first.headers["ratelimit-policy"] == '"requests";q=2;w=200'
        assert (first.headers["ratelimit"], second.headers["ratelimit"]) == (
            '"requests";r=1;t=100',
            '"requests";r=0;t=200',
        )
        assert 99 <= int(third.headers["retry-after"]) <= 100
        error = third.json()["error"]
        assert error["code"] == "rate_limited"
        assert "this address may send 0.01 requests per second, 2 at once" in error["message"]
        assert {client.get("/health/live").status_code for _ in range(5)} == {200}
        assert 'mlplatform_rejections_total{experiment="",reason="rate_limited"} 1.0' in client.get("/metrics").text


def test_every_token_has_a_bucket_and_a_wrong_one_takes_from_none(platform: Platform) -> None:
    with serving(platform, limits=ServerLimits(rate=0.01, burst=2), api_tokens=("first", "second")) as client:

        def asked(token: str) -> int:
            return client.get("/models", headers={"authorization": f"Bearer {token}"}).status_code

        assert [asked("wrong") for _ in range(5)] == [401] * 5
        assert [asked("first") for _ in range(3)] == [200, 200, 429]
        assert [asked("second") for _ in range(3)] == [200, 200, 429]
        assert asked(TOKEN) == 200


def test_addresses_of_one_network_count_as_one_where_clients_have_many() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") != network_of("2001:db8:0:1::1")
    assert network_of("10.0.0.1") == network_of("::ffff:10.0.0.1") != network_of("10.0.0.2")


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[httpx.Client]:
    """A server of `tiny_forecast`."""
    settings = platform.serving("tiny_forecast")
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        yield client


@pytest.mark.parametrize(
    "route",
    [
        "/predict",
        "/predict/feast/batch",
        "/v2/models/tiny_forecast/infer",
        "/v1/timeseries/forecast",
        "/invocations",
        "/features/push",
    ],
)
def test_deep_and_wide_bodies_are_refused_by_every_route(client: httpx.Client, route: str) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
    nested = {
        "lists": b'{"rows": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        "objects": b'{"rows": [' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"]}",
        "no end": b"[" * 60_000,
        "deep value": json.dumps({"rows": [{"load": json.loads("[" * 500 + "]" * 500)}]}).encode(),
    }
    for name, body in nested.items():
        status = client.post(route, content=body, headers=headers).status_code
        assert status in (400, 422), (name, status)
    assert client.post(route, content=b" " * 2_000_000, headers=headers).status_code == 413
    assert client.get("/health/live").status_code == 200
