"""The server as it is run: a process under load, while pairs are swapped, and at its end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

import serving.local
import serving.ray_app
from mlplatform.monitoring.prediction_log import read_predictions
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import LoadClient, RunningServer, free_port, in_process, until_told_to_leave
from serving.api import build_app
from serving.local import LocalBackend
from serving.process import run
from serving.rows import panel_from_rows

ADMIN = {"authorization": f"Bearer {TOKEN}"}
CLIENTS = 200


@pytest.fixture(scope="module")
def probe_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(platform: Platform, probe_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`python -m serving.local` for `tiny_forecast`."""
    log = tmp_path_factory.mktemp("local") / "server.log"
    # As many as there are clients, because here every request must be answered; and the tests say when to look.
    environ = {**platform.environ, "MLPLATFORM_MAX_REQUESTS": str(2 * CLIENTS), "MLPLATFORM_POLL_S": "0"}
    environ["MLPLATFORM_PROBE_PORT"] = str(probe_port)
    with in_process("serving.local", environ, log, "--experiment", "tiny_forecast") as server:
        yield server


def expected_values(platform: Platform, pairs: tuple[PairInfo, ...]) -> dict[str, list[np.float32]]:
    """Return per pair id what it forecasts for unit 1 from the rows that `rows` sends."""
    store, values = PairStore(platform.settings), {}
    for pair in pairs:
        forecaster = store.load(pair)
        panel = panel_from_rows(platform.rows(), pair.contract, forecaster.preprocessor.columns)
        values[pair.pair_id] = list(forecaster.predict(panel)[0, :, 0])
    return values


@pytest.mark.parametrize("main", [serving.local.main, serving.ray_app.main])
def test_an_unknown_experiment_ends_the_start_with_the_known_names(
    main: Callable[[list[str]], None],
    platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in platform.environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        main(["--experiment", "tiny_forcast"])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert "unknown experiment 'tiny_forcast'; did you mean tiny_forecast?; known: " in message
    assert "tiny_classification, tiny_forecast, tiny_intervals, tiny_regression, tiny_untrained" in message


@pytest.mark.integration
def test_a_port_that_is_taken_ends_the_start_with_a_sentence(server: RunningServer, platform: Platform) -> None:
    command = [sys.executable, "-m", "mlplatform.cli", "serve", "tiny_forecast", "--port", str(server.port)]
    environ = {**os.environ, **platform.environ}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, "the status that docs/command_line.md has for a failure"
    said = f"cannot listen on 127.0.0.1:{server.port}: Address already in use; name another port with --port"
    assert done.stderr.splitlines() == [said]


def test_a_port_that_is_lost_during_the_start_is_a_failure_too(platform: Platform) -> None:
    settings = platform.settings
    app = build_app({"tiny_forecast": LocalBackend(settings)}, settings)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        run(app, "127.0.0.1", taken.getsockname()[1], settings)
    # With such a sentence a program ends with status 1.
    assert "Address already in use" in str(caught.value.code)


def test_swapping_pairs_under_load_fails_no_request_and_mixes_no_answer(
    server: RunningServer, platform: Platform, fresh_pairs: tuple[PairInfo, PairInfo]
) -> None:
    expected = expected_values(platform, fresh_pairs)
    assert len(set(map(tuple, expected.values()))) == 2
    store = PairStore(platform.settings)
    body = {"rows": platform.rows()}

    def swap(number: int, client: httpx.Client) -> None:
        pair = fresh_pairs[(number + 1) % 2]
        store.promote(pair.name, pair.version, who="test", why="a test")
        report = client.post("/admin/reload", headers=ADMIN)
        assert report.status_code == 200, report.text
        assert (report.json()["version"], report.json()["swapped"]) == (pair.version, True)
        assert client.post("/predict", json=body).json()["pair_id"] == pair.pair_id

    async def scenario() -> list[tuple[int, bytes]]:
        stop = asyncio.Event()
        clients = [LoadClient(server.url, "/predict", json.dumps(body).encode()) for _ in range(CLIENTS)]
        asking = [asyncio.create_task(client.ask_until(stop)) for client in clients]
        try:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                for number in range(4):
                    await asyncio.sleep(0.5)
                    await asyncio.to_thread(swap, number, client)
        finally:
            stop.set()
        return [answer for answers in await asyncio.gather(*asking) for answer in answers]

    answers = asyncio.run(scenario())
    assert {status for status, _ in answers} == {200}
    parsed = [json.loads(content) for _, content in answers]
    assert len(parsed) >= CLIENTS
    assert {answer["version"] for answer in parsed} == {1, 2}
    versions = {pair.version: pair.pair_id for pair in fresh_pairs}
    for answer in parsed:
        assert answer["pair_id"] == versions[answer["version"]]
        values = [np.float32(value) for value in answer["forecasts"][0]["values"]["oil"]]
        assert values == expected[answer["pair_id"]]


@pytest.mark.integration
def test_a_ten_megabyte_body_is_refused_and_the_server_goes_on(server: RunningServer) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        response = client.post("/predict", content=b"[" * 10_000_000, headers={"content-type": "application/json"})
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"
        chunks = (b"[" * 100_000 for _ in range(100))
        chunked = client.post("/predict", content=chunks, headers={"content-type": "application/json"})
        assert chunked.status_code == 413
        assert client.post("/predict/feast/batch", json={"entities": [1]}).status_code == 200


@pytest.mark.integration
def test_the_server_listens_on_the_loopback_interface_only(server: RunningServer) -> None:
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line]
    port = f":{server.port:04X}"
    assert [address for address in listening if address.endswith(port)] == [f"0100007F{port}"]


@pytest.mark.integration
def test_sigterm_loses_no_request_and_writes_the_log(
    server: RunningServer, probe_port: int, platform: Platform
) -> None:
    """Comes last, because it stops the server of the tests above."""
    assert httpx.get(f"http://127.0.0.1:{probe_port}/health/ready", timeout=30).status_code == 200
    answer = httpx.post(
        f"{server.url}/predict/feast/batch",
        json={"entities": [1, 2]},
        headers={"x-request-id": "last-one"},
        timeout=30,
    ).json()
    body = json.dumps({"rows": platform.rows()}).encode()
    statuses, lost = asyncio.run(until_told_to_leave(server, "/predict", body, 16))
    assert (set(statuses), lost) == ({200}, 0)
    assert server.process.wait(60) == 0
    logged = read_predictions(platform.settings, "tiny_forecast")
    assert len(logged[logged.request_id == "last-one"]) == 2 * len(answer["forecasts"][0]["timestamps"])
    output = server.log.read_text()
    assert "Traceback" not in output
    assert TOKEN not in output
