"""Replicas on Ray Serve die, swap and end under load, and no request is lost with them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform_tests.serving.asked import ENTITIES, table, told
from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.installation import Installation
from mlplatform_tests.serving.replicas import CLIENTS, kill_one, replicas, stopped_under_load, under_load
from mlplatform_tests.serving.servers import RunningServer, in_process

pytestmark = pytest.mark.integration
BODY = json.dumps({"entities": [1, 3]}).encode()


@pytest.fixture(scope="module")
def fused(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of two replicas that take all steps."""
    folder = tmp_path_factory.mktemp("fused")
    installation = Installation(platform, folder)
    installation.set_serving({"mode": "fused", "deployments": {"ForecastAPI": {"replicas": 2}}})
    environ = {**installation.environ, "MLPLATFORM_POLL_S": "0.3"}
    with in_process("serving.ray_app", environ, folder / "ray.log", "--experiment", "tiny_forecast") as server:
        # It answers with the first of them.
        wait_for(server, "ForecastAPI", 2)
        yield server


def wait_for(server: RunningServer, deployment: str, count: int) -> None:
    """Wait until a deployment has so many replicas that answer for their metrics."""
    deadline = time.monotonic() + 60
    with httpx.Client(base_url=server.url, timeout=30) as client:
        while len(_telling(client)) < count or len(replicas(server, deployment)) < count:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def _telling(client: httpx.Client) -> set[str]:
    """Return the replicas whose metrics are told."""
    text = client.get("/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("mlplatform_served_pair_info{")]
    return {line.partition('replica="')[2].partition('"')[0] for line in lines}


def test_fused_replicas_answer_as_the_local_server_does(
    platform: Platform, fused: RunningServer, tmp_path: Path
) -> None:
    asked = table(platform)
    with Installation(platform, tmp_path).serving() as local:
        expected = told(local, asked)
    with httpx.Client(base_url=fused.url, timeout=60) as client:
        assert told(client, asked) == expected


def test_a_reload_and_metrics_are_those_of_all_replicas(
    platform: Platform, fused: RunningServer, fresh_pairs: tuple[PairInfo, PairInfo]
) -> None:
    store, (first, second) = PairStore(platform.settings), fresh_pairs
    with httpx.Client(base_url=fused.url, timeout=60) as client:
        assert len(_telling(client)) == 2
        for pair in (second, first):
            store.promote(pair.name, pair.version, who="test", why="a test")
            report = client.post("/admin/reload", headers={"authorization": f"Bearer {TOKEN}"})
            assert report.status_code == 200, report.text
            text = client.get("/metrics").text
            served = [line for line in text.splitlines() if line.startswith("mlplatform_served_pair_info{")]
            assert [f'version="{pair.version}"' in line for line in served] == [True, True]
            answers = {client.post(ENTITIES, json=json.loads(BODY)).json()["version"] for _ in range(10)}
            assert answers == {pair.version}


def test_an_alias_that_moves_is_found_by_all_replicas_and_mixes_nothing(
    platform: Platform, fused: RunningServer, fresh_pairs: tuple[PairInfo, PairInfo]
) -> None:
    store = PairStore(platform.settings)

    def move() -> None:
        for number in range(4):
            pair = fresh_pairs[(number + 1) % 2]
            store.promote(pair.name, pair.version, who="test", why="a test")
            time.sleep(0.8)

    answers = under_load(fused, ENTITIES, BODY, move)
    assert Counter(status for status, _ in answers) == {200: len(answers)}
    values: dict[str, set[str]] = {}
    for _, content in answers:
        answer = json.loads(content)
        shown = json.dumps([forecast["values"] for forecast in answer["forecasts"]])
        values.setdefault(answer["pair_id"], set()).add(shown)
    assert set(values) == {pair.pair_id for pair in fresh_pairs}
    assert [len(different) for different in values.values()] == [1, 1]


def test_no_request_is_lost_with_a_fused_replica(fused: RunningServer) -> None:
    answers = under_load(fused, ENTITIES, BODY, lambda: kill_one(fused, "ForecastAPI"))
    assert len(answers) > CLIENTS
    assert Counter(status for status, _ in answers) == {200: len(answers)}
    # Its successor takes requests once its pair is loaded, and not before.
    wait_for(fused, "ForecastAPI", 2)


def test_a_server_that_is_told_to_stop_answers_what_it_has(fused: RunningServer) -> None:
    """Run last: it ends the module's server."""
    ends = stopped_under_load(fused, ENTITIES, BODY)
    assert set(ends) <= {"200", "refused"}, ends
    assert ends["200"] > CLIENTS
    assert fused.process.wait(timeout=60) == 0
