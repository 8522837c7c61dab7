"""A server of several processes: one of them dies, all of them reload, their metrics are one, and they end together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlplatform.monitoring.prediction_log import read_predictions
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import LoadClient, RunningServer, free_port, in_process, until_told_to_leave
from serving.exposition import cumulative, merged

pytestmark = pytest.mark.integration

ADMIN = {"authorization": f"Bearer {TOKEN}"}
CLIENTS = 8


@pytest.fixture(scope="module")
def probe_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(platform: Platform, probe_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`python -m serving.local --workers 2` for `tiny_forecast`."""
    log = tmp_path_factory.mktemp("workers") / "server.log"
    environ = {**platform.environ, "MLPLATFORM_POLL_S": "0"}
    environ["MLPLATFORM_PROBE_PORT"] = str(probe_port)
    arguments = ("--experiment", "tiny_forecast", "--workers", "2")
    with in_process("serving.local", environ, log, *arguments) as server:
        eventually(lambda: number(server, "mlplatform_workers") == 2)
        yield server


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(httpx.TransportError):
            if holds():
                return
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def number(server: RunningServer, name: str) -> float:
    """Return the sum of a metric's samples of that name."""
    page = httpx.get(f"{server.url}/metrics", timeout=30).text
    return sum(
        each.value for family in text_string_to_metric_families(page) for each in family.samples if each.name == name
    )


def workers(server: RunningServer) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [int(child) for child in children]


def test_a_reload_reaches_every_worker(
    server: RunningServer, platform: Platform, fresh_pairs: tuple[PairInfo, PairInfo]
) -> None:
    store = PairStore(platform.settings)
    for pair in reversed(fresh_pairs):
        store.promote(pair.name, pair.version, who="test", why="a test")
        report = httpx.post(f"{server.url}/admin/reload", headers=ADMIN, timeout=60)
        assert (report.status_code, report.json()["swapped"]) == (200, True), report.text
        # One connection after another, which any worker may take.
        seen = {httpx.get(f"{server.url}/health/ready").json()["version"] for _ in range(12)}
        assert seen == {pair.version}


def test_probes_of_all_workers_have_one_port_of_their_own(server: RunningServer, probe_port: int) -> None:
    for path in ("/health/live", "/health/ready"):
        answers = [httpx.get(f"http://127.0.0.1:{probe_port}{path}", timeout=30) for _ in range(6)]
        assert [answer.json() for answer in answers] == [httpx.get(f"{server.url}{path}").json()] * 6


def test_the_death_of_a_worker_costs_what_it_held_and_another_takes_its_place(
    server: RunningServer, platform: Platform
) -> None:
    body = json.dumps({"rows": platform.rows()}).encode()
    counted = number(server, "mlplatform_predictions_total")

    async def scenario() -> tuple[list[int], int]:
        stop, broken = asyncio.Event(), 0
        statuses: list[int] = []

        async def client() -> None:
            nonlocal broken
            while not stop.is_set():
                try:
                    answers = await LoadClient(server.url, "/predict", body).ask_until(stop, statuses)
                except (OSError, asyncio.IncompleteReadError):
                    broken += 1
                    continue
                assert answers

        asking = [asyncio.create_task(client()) for _ in range(CLIENTS)]
        await asyncio.sleep(1)
        victim = workers(server)[0]
        os.kill(victim, signal.SIGKILL)
        before = len(statuses)
        await asyncio.sleep(1)
        assert len(statuses) > before  # the other one goes on
        await asyncio.to_thread(
            eventually, lambda: victim not in workers(server) and number(server, "mlplatform_workers") == 2
        )
        stop.set()
        await asyncio.gather(*asking)
        return statuses, broken

    statuses, broken = asyncio.run(scenario())
    assert set(statuses) == {200}
    # At most what the dead one was working for: one request per connection.
    assert broken <= CLIENTS
    # What it had counted is not lost with it, but for the last moments.
    assert number(server, "mlplatform_predictions_total") > counted
    assert len(workers(server)) == 2


def test_sigterm_ends_all_of_them_and_loses_no_request(server: RunningServer, platform: Platform) -> None:
    """Comes last, because it stops the server of the tests above."""
    body = json.dumps({"rows": platform.rows()}).encode()
    pids = workers(server)

    statuses, lost = asyncio.run(until_told_to_leave(server, "/predict", body, CLIENTS))
    assert (set(statuses), lost) == ({200}, 0)
    assert server.process.wait(60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "Traceback" not in server.log.read_text()
    # Each worker writes files of its own.
    assert len(read_predictions(platform.settings, "tiny_forecast")) >= 3 * len(statuses)


PAGE = """# HELP a_total Counted.
# TYPE a_total counter
a_total{version="1"} 2.0
a_total{version="2"} 3.0
# HELP b Now.
# TYPE b gauge
b 4.0
# HELP age_seconds Oldest.
# TYPE age_seconds gauge
age_seconds 7.0
"""


def test_pages_are_added_up_and_what_ended_counts_on_without_its_gauges() -> None:
    other = PAGE.replace("7.0", "5.0")
    gone = merged([cumulative(PAGE.replace('version="1"', 'version="0"').encode())])
    page = merged([PAGE.encode(), other.encode()], gone).decode()
    assert [line for line in page.splitlines() if not line.startswith("#")] == [
        'a_total{version="1"} 4.0',
        'a_total{version="2"} 9.0',
        "b 8.0",
        "age_seconds 7.0",
    ]
