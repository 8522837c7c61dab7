"""The forecaster without the platform's server: MLflow alone, as a library and as a server, gives the same numbers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from mlplatform.registry.pairs import PairStore
from mlplatform.registry.tracking import open_tracking
from mlplatform_tests.serving.conftest import Platform
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

pytestmark = pytest.mark.integration

START_S = 120.0
UNITS = (1, 3)


@pytest.fixture(scope="module")
def rows(platform: Platform) -> pd.DataFrame:
    """The rows that the online store has of two units."""
    return platform.raw[platform.raw.entity_id.isin(UNITS)].groupby("entity_id").tail(40).reset_index(drop=True)


@pytest.fixture(scope="module")
def answers(platform: Platform) -> dict[int, list[float]]:
    """The HTTP API's answers, from the features in the online store."""
    settings = platform.serving("tiny_forecast")
    with TestClient(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        answer = client.post("/predict/feast/batch", json={"entities": list(UNITS)}).json()
    return {forecast["entity"]: forecast["values"]["oil"] for forecast in answer["forecasts"]}


def by_unit(entities: list[int], values: list[float]) -> dict[int, list[float]]:
    """Return values as the nearest float32, which is what all of them are."""
    found: dict[int, list[float]] = {}
    for entity, value in zip(entities, values, strict=True):
        found.setdefault(entity, []).append(float(np.float32(value)))
    return found


def test_mlflow_s_loading_gives_the_same_bits_as_the_http_api(
    platform: Platform, rows: pd.DataFrame, answers: dict[int, list[float]]
) -> None:
    open_tracking(platform.settings)
    table = mlflow.pyfunc.load_model("models:/tiny_forecast_forecaster@production").predict(rows)
    expected = {unit: [float(np.float32(value)) for value in values] for unit, values in answers.items()}
    assert by_unit(table["entity_id"].tolist(), table["oil"].tolist()) == expected


def test_mlflow_s_server_gives_the_same_bits_as_the_http_api(
    platform: Platform, rows: pd.DataFrame, answers: dict[int, list[float]], tmp_path: Path
) -> None:
    assert PairStore(platform.settings).resolve("tiny_forecast").version == 1
    frame = json.loads(rows.to_json(orient="split", date_format="iso", double_precision=15, index=False))
    with mlflow_server(platform, tmp_path / "server.log") as url:
        answer = post(f"{url}/invocations", {"dataframe_split": frame})
    predictions = answer["predictions"]
    found = by_unit([row["entity_id"] for row in predictions], [row["oil"] for row in predictions])
    assert found == {unit: [float(np.float32(value)) for value in values] for unit, values in answers.items()}
    # Asked in MLflow's own way, the platform's server says the same, column by column.
    settings = platform.serving("tiny_forecast")
    with TestClient(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        own = client.post("/invocations", json={"dataframe_split": frame}).json()
        assert own["predictions"] == answer["predictions"]


@contextmanager
def mlflow_server(platform: Platform, log: Path) -> Iterator[str]:
    """Run `mlflow models serve` on loopback while the context is open, and end all of its processes after it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = "models:/tiny_forecast_forecaster@production"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environ = {
        **os.environ,
        **platform.environ,
        "MLFLOW_TRACKING_URI": platform.settings.mlflow_tracking_uri,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=output, start_new_session=True)
    try:
        until = time.monotonic() + START_S
        while not is_up(f"http://127.0.0.1:{port}/ping"):
            if process.poll() is not None or time.monotonic() > until:
                pytest.skip(f"mlflow models serve did not start: {log.read_text()[-1000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        # It runs its server as a child, in the session that was made for it.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
        deadline = time.monotonic() + 10
        while is_up(f"http://127.0.0.1:{port}/ping") and time.monotonic() < deadline:
            time.sleep(0.1)
    assert not is_up(f"http://127.0.0.1:{port}/ping")


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error
