"""Ray Serve answers the same routes with the same bits, swaps without mixing, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlplatform.monitoring.prediction_log import read_predictions
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform_tests.serving.asked import ENTITIES, answered, table, told, with_intervals
from mlplatform_tests.serving.conftest import TOKEN, UNITS, Platform
from mlplatform_tests.serving.installation import Installation
from mlplatform_tests.serving.replicas import CLIENTS, kill_one, stopped_under_load, under_load
from mlplatform_tests.serving.servers import LoadClient, RunningServer, in_process
from serving.assignment import entity_key, place_of
from serving.errors import ErrorDetail, ServingError
from serving.ray_calls import THROUGHPUT
from serving.ray_runtime import EVERYWHERE, LONGEST_RAY_FOLDER, _check_haproxy, _ray_folder
from serving.ray_versions import PairRef, VersionCache

ADMIN = {"authorization": f"Bearer {TOKEN}"}


class Versions:
    """Something to load per version, which can fail."""

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.fails = False

    def load(self, ref: PairRef) -> str:
        self.loaded.append(ref.version)
        time.sleep(0.02)
        if self.fails:
            raise OSError("no disk")
        return f"pair {ref.version}"


def ref(version: int) -> PairRef:
    return PairRef("tiny", version, f"p{version}")


def test_a_version_is_loaded_once_however_many_ask() -> None:
    async def scenario() -> None:
        versions = Versions()
        cache = VersionCache(versions.load)
        assert set(await asyncio.gather(*(cache.get(ref(1)) for _ in range(20)))) == {"pair 1"}
        assert versions.loaded == [1]

    asyncio.run(scenario())


def test_the_four_versions_used_last_are_kept() -> None:
    async def scenario() -> None:
        versions = Versions()
        cache = VersionCache(versions.load)
        for version in (1, 2, 3, 4, 1, 5, 1, 2):
            assert await cache.get(ref(version)) == f"pair {version}"
        assert versions.loaded == [1, 2, 3, 4, 5, 2]

    asyncio.run(scenario())


def test_a_failed_load_is_tried_again() -> None:
    async def scenario() -> None:
        versions = Versions()
        cache = VersionCache(versions.load)
        versions.fails = True
        with pytest.raises(OSError, match="no disk"):
            await cache.get(ref(1))
        versions.fails = False
        assert await cache.get(ref(1)) == "pair 1"

    asyncio.run(scenario())


def test_errors_survive_the_way_between_processes() -> None:
    import pickle

    detail = ErrorDetail(field="rows[0].a", row=0, column="a", found="x", expected="y", action="z")
    error = ServingError(422, "invalid_rows", "found x", [detail], {"a": "b"}, [1], is_left_out=True)
    # What Ray does with the values that replicas send each other.
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    assert (copy.status, copy.code, copy.message, copy.details, copy.headers) == (
        422,
        "invalid_rows",
        "found x",
        (detail,),
        {"a": "b"},
    )
    assert (copy.entities, copy.is_left_out) == ((1,), True)


def test_ray_keeps_its_files_at_home_unless_the_path_is_too_long_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with _ray_folder(Path("home")) as folder:
        assert folder == Path("home/ray")
    assert folder.is_dir()
    with _ray_folder(tmp_path / ("x" * 60)) as folder:
        assert len(str(folder)) <= LONGEST_RAY_FOLDER
        assert folder.is_dir()
    assert not folder.exists()


def test_haproxy_mode_needs_a_server_that_is_meant_to_listen_everywhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _check_haproxy("127.0.0.1")
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    for host in ("127.0.0.1", "localhost", "10.0.0.7"):
        with pytest.raises(SystemExit, match="listen on all network interfaces"):
            _check_haproxy(host)
    _check_haproxy(EVERYWHERE)
    assert "open on all network interfaces" in caplog.text


@pytest.mark.integration
@pytest.mark.parametrize("flags", [{}, {THROUGHPUT: "1"}], ids=["defaults", "throughput"])
def test_ray_serve_answers_as_the_local_server_does_and_swaps_without_mixing(
    platform: Platform, fresh_pairs: tuple[PairInfo, PairInfo], tmp_path: Path, flags: dict[str, str]
) -> None:
    installation = Installation(platform, tmp_path)
    settings = installation.settings()
    store, asked = PairStore(platform.settings), [*table(platform), *with_intervals(platform)]
    expected = {}
    with installation.serving("tiny_forecast", "tiny_intervals") as local:
        assert local.post("/admin/reload/tiny_intervals", headers=ADMIN).status_code == 200
        answer = local.post("/models/tiny_intervals/predict", json={"rows": platform.rows()}).json()
        assert [each["coverage"] for each in answer["forecasts"][0]["intervals"]] == [0.5, 0.8, 0.95]
        for pair in reversed(fresh_pairs):
            store.promote(pair.name, pair.version, who="test", why="a test")
            assert local.post("/admin/reload", headers=ADMIN).status_code == 200
            expected[pair.pair_id] = told(local, asked)
    first, second = fresh_pairs
    assert expected[first.pair_id] != expected[second.pair_id]
    assert {status for _, status, *_ in expected[first.pair_id][: len(answered(platform))]} == {200}

    log = tmp_path / "ray.log"
    installation.set_serving({"deployments": {"ModelService": {"replicas": 2}}})
    names = "tiny_forecast,tiny_intervals"
    # Whoever asks for a reload here wants to be the one who finds the new pair.
    environ = {**installation.environ, **flags, "MLPLATFORM_POLL_S": "0"}
    with in_process("serving.ray_app", environ, log, "--experiment", names) as server:
        children = _descendants(server.process.pid)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            assert client.get("/health/ready").json()["pair_id"] == first.pair_id
            assert told(client, asked) == expected[first.pair_id]
            _swap_under_load(server.url, client, platform, second, store)
            assert told(client, asked) == expected[second.pair_id]
            _lose_a_replica(server, platform)
            big = client.post("/predict", content=b"[" * 10_000_000, headers={"content-type": "application/json"})
            assert (big.status_code, big.json()["error"]["code"]) == (413, "body_too_large")
            assert client.post("/admin/reload").status_code == 401
            _stop_talking_early(server.port, client)
            _change_the_staleness_policy(installation, client)
            _leave_out_what_is_too_short(installation, client)
            _challenge(installation, client, first, second, store)
            assert "mlplatform_served_pair_info{" in client.get("/metrics").text
            last = client.post(ENTITIES, json={"entities": [1]}, headers={"x-request-id": "last-by-ray"})
            assert last.headers.get_list("x-request-id") == ["last-by-ray"]
        ends = stopped_under_load(server, ENTITIES, json.dumps({"entities": [1]}).encode())
        assert set(ends) <= {"200", "refused"}, ends
        assert ends["200"] > CLIENTS
        assert server.process.wait(timeout=60) == 0

    assert len(children) >= 6
    assert [pid for pid in children if _is_alive(pid)] == []
    assert "last-by-ray" in set(read_predictions(settings, "tiny_forecast").request_id)
    output = log.read_text()
    assert TOKEN not in output
    assert "Traceback" not in output


def _lose_a_replica(server: RunningServer, platform: Platform) -> None:
    """Kill one of two replicas under load; what it worked on is asked of the other."""
    body = json.dumps({"rows": platform.rows()}).encode()
    answers = under_load(server, "/predict", body, lambda: kill_one(server, "ModelService"))
    assert len(answers) > CLIENTS
    assert {status for status, _ in answers} == {200}


def _stop_talking_early(port: int, client: httpx.Client) -> None:
    """Send gzip and HEAD, close one half of a connection, and leave in the middle of a body."""
    body = json.dumps({"entities": [1]}).encode()
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert client.post(ENTITIES, content=gzip.compress(body), headers=headers).status_code == 200
    assert (client.head("/health/live").status_code, client.head("/health/ready").status_code) == (200, 200)
    head = (
        f"POST {ENTITIES} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    assert b'"forecasts"' in answer
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:-5])
        # What leaves at once never gets from the proxy to the routes.
        time.sleep(0.5)
    left = f'method="POST",route="{ENTITIES}",status="499"}} 1.0'
    deadline = time.monotonic() + 20
    while left not in (text := client.get("/metrics").text):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)


def _change_the_staleness_policy(installation: Installation, client: httpx.Client) -> None:
    """Have old features refused, and answered again by the configuration, without another pair.

    Without a limit they are marked as well: all that is forecast from them is past.
    """
    outcomes, before = [], _stale_counts(client)
    for policy in ({"max_age": "6h"}, {"max_age": "6h", "action": "flag"}, {}):
        installation.set_policy(policy)
        assert client.post("/admin/reload", headers=ADMIN).json()["swapped"] is False
        response = client.post(ENTITIES, json={"entities": [2, 1]})
        content = response.json()
        outcomes.append((response.status_code, [item["stale"] for item in content.get("forecasts", [])]))
        if response.status_code == 409:
            assert content["error"]["code"] == "stale_features"
            assert [detail["found"].split(":")[0] for detail in content["error"]["details"]] == ["2", "1"]
    assert outcomes == [(409, []), (200, [True, True]), (200, [True, True])]
    counted = {name: count - before[name] for name, count in _stale_counts(client).items()}
    assert counted == {"refused": 2, "flagged": 4}


def _leave_out_what_is_too_short(installation: Installation, client: httpx.Client) -> None:
    """Have short series left out, refused, and required to be long enough again by the configuration."""
    platform = installation.platform
    rows = [*platform.rows(5, 3), *platform.rows(14, 1)]
    (expected,) = client.post("/predict", json={"rows": platform.rows()}).json()["forecasts"]
    outcomes = []
    for short in ("skip", "refuse", None):
        installation.set_policy({"short": short}, key="observation")
        assert client.post("/admin/reload", headers=ADMIN).json()["swapped"] is False
        response = client.post("/predict", json={"rows": rows})
        content = response.json()
        if short == "skip":
            assert [each["values"] for each in content["forecasts"]] == [expected["values"]]
            assert [(each["entity"], each["code"]) for each in content["errors"]] == [(3, "short_window")]
            outcomes.append((response.status_code, None))
        else:
            outcomes.append((response.status_code, content["error"]["code"]))
    assert outcomes == [(200, None), (409, "short_window"), (422, "invalid_rows")]


def _stale_counts(client: httpx.Client) -> dict[str, float]:
    """Return how many entities were refused, and marked, because their features are old."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    counts = {"refused": 0.0, "flagged": 0.0}
    for sample in (each for family in families for each in family.samples):
        if sample.name == "mlplatform_stale_features_total" and sample.labels["experiment"] == "tiny_forecast":
            counts[sample.labels["outcome"]] += sample.value
    return counts


def _challenge(
    installation: Installation, client: httpx.Client, first: PairInfo, second: PairInfo, store: PairStore
) -> None:
    """Have a challenger answer its share; a promotion of it ends that."""
    units = list(UNITS)
    places = sorted(place_of("tiny_forecast", entity_key(unit)) for unit in units)
    share = (places[0] + places[1]) / 2
    expected = [2 if place_of("tiny_forecast", entity_key(unit)) < share else 1 for unit in units]
    installation.set_policy({"challenger": {"share": share}}, key="serving")
    store.promote(first.name, first.version, who="test", why="a test")
    assert client.post("/admin/reload", headers=ADMIN).json()["version"] == first.version
    assert client.get("/models/tiny_forecast").json()["challenger"]["version"] == second.version
    mixed = client.post(ENTITIES, json={"entities": units}).json()
    assert [item["version"] for item in mixed["forecasts"]] == expected
    store.promote(second.name, second.version, who="test", why="a test")
    assert client.post("/admin/reload", headers=ADMIN).json()["version"] == second.version
    whole = client.post(ENTITIES, json={"entities": units}).json()
    assert (whole["arm"], {item["version"] for item in whole["forecasts"]}) == ("production", {second.version})


def _swap_under_load(url: str, client: httpx.Client, platform: Platform, pair: PairInfo, store: PairStore) -> None:
    """Reload while 16 clients ask; every answer must come from one pair, and all after the reload from the new one."""
    body = {"rows": platform.rows()}

    async def scenario() -> list[tuple[int, bytes]]:
        stop = asyncio.Event()
        clients = [LoadClient(url, "/predict", json.dumps(body).encode()) for _ in range(16)]
        asking = [asyncio.create_task(client.ask_until(stop)) for client in clients]
        await asyncio.sleep(0.5)
        store.promote(pair.name, pair.version, who="test", why="a test")
        report = await asyncio.to_thread(client.post, "/admin/reload", headers=ADMIN)
        assert (report.status_code, report.json()["swapped"]) == (200, True), report.text
        after = await asyncio.to_thread(client.post, "/predict", json=body)
        assert after.json()["pair_id"] == pair.pair_id
        await asyncio.sleep(0.5)
        stop.set()
        return [answer for answers in await asyncio.gather(*asking) for answer in answers]

    results = asyncio.run(scenario())
    assert {status for status, _ in results} == {200}
    values: dict[int, set[str]] = {}
    for _, content in results:
        answer = json.loads(content)
        values.setdefault(answer["version"], set()).add(json.dumps(answer["forecasts"][0]["values"]))
    assert set(values) == {1, 2}
    assert all(len(different) == 1 for different in values.values())
    assert values[1] != values[2]


def _descendants(pid: int) -> list[int]:
    """Return the ids of all processes below a process."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
