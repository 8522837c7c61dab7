"""Requests per second and CPU per request, beside `mlflow models serve` of the same forecaster and a bare handler."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from figures import report

from prediction_server.load import Load, load
from prediction_server.servers import (
    BY_ENTITY,
    FORECAST,
    ROUNDS,
    SECONDS,
    TABLE,
    Server,
    bare,
    bodies,
    entity,
    ours,
    serving,
)

CLIENTS = (1, 16, 64)
AIM_MLFLOW, AIM_BARE = 10.0, 0.6


def run() -> None:
    """Measure all servers in turn, round after round."""
    requests = bodies()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        own = stack.enter_context(serving(ours(f"{FORECAST},{TABLE}"), "/health/ready"))
        for name in (FORECAST, TABLE):
            limit = stack.enter_context(serving(bare(name), "/ready"))
            mlflow = stack.enter_context(_mlflow(name))
            for clients in CLIENTS:
                asked = {
                    "ours": (own, f"/models/{name}/predict", requests[name]),
                    "bare": (limit, "/predict", requests[name]),
                    "mlflow": (mlflow, "/invocations", _for_mlflow(requests[name])),
                }
                if name == FORECAST:
                    asked["ours, from the store"] = (own, BY_ENTITY, entity())
                _report(name, clients, _measured(asked, clients, Path(folder)))


def _mlflow(name: str) -> AbstractContextManager[Server]:
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    model = f"models:/{name}_forecaster@production"
    command = [mlflow, "models", "serve", "-m", model, "--env-manager", "local", "-p", "{port}"]
    from mlplatform.settings import Settings

    return serving(command, "/ping", {"MLFLOW_TRACKING_URI": Settings.from_env().mlflow_tracking_uri})


def _for_mlflow(body: bytes) -> bytes:
    return json.dumps({"dataframe_records": json.loads(body)["rows"]}).encode()


def _measured(
    asked: dict[str, tuple[Server, str, bytes]], clients: int, folder: Path
) -> dict[str, tuple[list[Load], list[float]]]:
    """Return, by server, what the clients saw and the CPU milliseconds per request, round by round."""
    seen: dict[str, tuple[list[Load], list[float]]] = {name: ([], []) for name in asked}
    for _ in range(ROUNDS):
        for name, (server, path, body) in asked.items():
            before = server.cpu_seconds()
            found = load(server.url, path, body, clients, SECONDS, folder)
            answers = sum(found.statuses.values()) * 1.2  # with those of the warm-up
            seen[name][0].append(found)
            seen[name][1].append(1000 * (server.cpu_seconds() - before) / max(answers, 1))
    return seen


def _report(experiment: str, clients: int, seen: dict[str, tuple[list[Load], list[float]]]) -> None:
    def median(name: str, of: Callable[[Load], float]) -> float:
        return statistics.median(of(found) for found in seen[name][0])

    rates = {name: median(name, lambda found: found.rate) for name in seen}
    for name in seen:
        case = f"{experiment}, {clients} clients, {name}"
        for peer, aim in (("mlflow", AIM_MLFLOW), ("bare", AIM_BARE)):
            is_aim = name == "ours" and clients == 16
            if not name.startswith("ours"):
                continue
            met = rates[name] >= aim * rates[peer] if is_aim else None
            text = f">= {aim} x {peer}" if is_aim else None
            report("serving", case, rates[name], "1/s", peer=peer, peer_value=rates[peer], aim=text, met=met)
        report("serving", case, median(name, lambda found: found.p50_ms), "ms p50")
        report("serving", case, median(name, lambda found: found.p99_ms), "ms p99")
        report("serving", case, statistics.median(seen[name][1]), "ms CPU per request")
