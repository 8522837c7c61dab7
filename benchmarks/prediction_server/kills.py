"""Replicas on Ray Serve that are killed under load, one of each deployment after the other, with two of each."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

from figures import report

from mlplatform.config import DEPLOYMENTS
from prediction_server.load import load
from prediction_server.servers import FORECAST, Server, entity, ours, serving

CLIENTS = 16
# Ray finds a replica dead and has another one in its place, which loads its pair first.
PAUSE_S = float(os.environ.get("KILL_PAUSE_SECONDS", "30"))
READY_S = 120.0


def run() -> None:
    """Measure both modes; requests for an entity visit every deployment."""
    for mode, names in (("split", DEPLOYMENTS), ("fused", DEPLOYMENTS[:1])):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            option = {"mode": mode, "deployments": {each: {"replicas": 2} for each in names}}
            (folder / "conf" / "serving").mkdir(parents=True)
            # JSON is YAML.
            (folder / "conf" / "serving" / "two.yaml").write_text(json.dumps(option))
            environ = {"MLPLATFORM_CONF_DIR": str(folder / "conf"), "MLPLATFORM_SERVING_CONFIG": "two"}
            with serving(ours(FORECAST, "serving.ray_app", **environ), "/health/ready") as server:
                _measure(mode, names, server, folder)


def _measure(mode: str, names: tuple[str, ...], server: Server, folder: Path) -> None:
    for each in names:
        _wait_for_two(server, each)
    killed: list[str] = []

    def kill() -> None:
        for each in names:
            time.sleep(PAUSE_S / 2)
            _wait_for_two(server, each)
            os.kill(server.replicas(each)[0], signal.SIGKILL)
            killed.append(each)
            time.sleep(PAUSE_S / 2)

    killing = threading.Thread(target=kill)
    killing.start()
    found = load(server.url, "/predict/feast/batch", entity(), CLIENTS, (len(names) + 1) * PAUSE_S, folder)
    killing.join()
    total = sum(found.statuses.values())
    bad = total - found.statuses.get("200", 0)
    case = f"Ray, {mode}, two replicas each: {total} requests while one of {', '.join(killed)} was killed"
    report("serving", f"{case}, answers other than 200", bad, "answers", aim="0", met=bad == 0)
    report("serving", f"{case}, p99", found.p99_ms, "ms")


def _wait_for_two(server: Server, deployment: str) -> None:
    deadline = time.monotonic() + READY_S
    while len(server.replicas(deployment)) < 2:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{deployment} has not had two replicas for {READY_S:g} s")
        time.sleep(0.2)
