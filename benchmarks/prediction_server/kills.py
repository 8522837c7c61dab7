"""Replicas on Ray Serve that are killed: one of two of each deployment, under load, and the only one of each."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from figures import report

from mlplatform.config import DEPLOYMENTS
from prediction_server.load import load
from prediction_server.meanwhile import meanwhile
from prediction_server.servers import BY_ENTITY, FORECAST, Server, entity, ours, serving

CLIENTS = 16
# Ray finds a replica dead and has another one in its place, which loads its pair first.
PAUSE_S = float(os.environ.get("KILL_PAUSE_SECONDS", "30"))
READY_S = 120.0


def run() -> None:
    """Measure both modes; requests for an entity visit every deployment."""
    for mode, names in (("split", DEPLOYMENTS), ("fused", DEPLOYMENTS[:1])):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with _on_ray(mode, names, 2, folder) as server:
                _measure(mode, names, server, folder)
            with _on_ray(mode, names, 1, folder) as server:
                _measure_the_only_ones(mode, names, server)


def _on_ray(mode: str, names: tuple[str, ...], replicas: int, folder: Path) -> AbstractContextManager[Server]:
    """Serve with so many replicas of each deployment."""
    option = {"mode": mode, "deployments": {each: {"replicas": replicas} for each in names}}
    (folder / "conf" / "serving").mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    (folder / "conf" / "serving" / "some.yaml").write_text(json.dumps(option))
    environ = {"MLPLATFORM_CONF_DIR": str(folder / "conf"), "MLPLATFORM_SERVING_CONFIG": "some"}
    return serving(ours(FORECAST, "serving.ray_app", **environ), "/health/ready")


def _measure(mode: str, names: tuple[str, ...], server: Server, folder: Path) -> None:
    for each in names:
        _wait_for(server, each, 2)
    killed: list[str] = []

    def kill(_: threading.Event) -> None:
        for each in names:
            time.sleep(PAUSE_S / 2)
            _wait_for(server, each, 2)
            os.kill(server.replicas(each)[0], signal.SIGKILL)
            killed.append(each)
            time.sleep(PAUSE_S / 2)

    with meanwhile(kill):
        found = load(server.url, BY_ENTITY, entity(), CLIENTS, (len(names) + 1) * PAUSE_S, folder)
    total = sum(found.statuses.values())
    bad = total - found.statuses.get("200", 0)
    case = f"Ray, {mode}, two replicas each: {total} requests while one of {', '.join(killed)} was killed"
    report("serving", f"{case}, answers other than 200", bad, "answers", aim="0", met=bad == 0)
    report("serving", f"{case}, p99", found.p99_ms, "ms")


def _measure_the_only_ones(mode: str, names: tuple[str, ...], server: Server) -> None:
    """Kill the only replica of each deployment; report when the first request after that was answered."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{server.url}{BY_ENTITY}", entity(), headers)
    for each in names:
        _wait_for(server, each, 1)
        os.kill(server.replicas(each)[0], signal.SIGKILL)
        began = time.perf_counter()
        while not _is_answered(request):
            if time.perf_counter() - began > READY_S:
                raise TimeoutError(f"nothing was answered for {READY_S:g} s after the only {each} was killed")
            time.sleep(0.05)
        report("serving", f"Ray, {mode}, the only {each} killed: answered after", time.perf_counter() - began, "s")


def _is_answered(request: urllib.request.Request) -> bool:
    try:
        with urllib.request.urlopen(request, timeout=READY_S):
            return True
    except OSError:
        return False


def _wait_for(server: Server, deployment: str, replicas: int) -> None:
    deadline = time.monotonic() + READY_S
    while len(server.replicas(deployment)) < replicas:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{deployment} has not had {replicas} replicas for {READY_S:g} s")
        time.sleep(0.2)
