"""Ray Serve, split and fused, beside chains of the same shape and options that do nothing."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from figures import report

from prediction_server.load import load
from prediction_server.servers import ROUNDS, SECONDS, TABLE, Server, bodies, serving

CLIENTS = 16
AIM_CHAIN, AIM_FUSED = 0.7, 2.0
# HAProxy mode listens on all network interfaces, which it has to be told is meant.
THROUGHPUT = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "MLPLATFORM_HOST": "0.0.0.0",  # noqa: S104 - of a benchmark, for its duration
}
OPTIONS = {"split": "default", "fused": "fused"}


def run() -> None:
    """Measure with the defaults and with Ray Serve's throughput-optimised flags."""
    for flags, environ in (("defaults", {}), ("throughput-optimised", THROUGHPUT)):
        _report(flags, {f"{what} {mode}": _measured(what, mode, environ) for mode in OPTIONS for what in _MODULES})


def _measured(what: str, mode: str, environ: dict[str, str]) -> tuple[float, float]:
    """Return requests per second and CPU milliseconds per request, the medians of all rounds."""
    rates, costs = [], []
    body = bodies()[TABLE]
    with tempfile.TemporaryDirectory() as folder, _server(what, mode, environ) as server:
        for _ in range(ROUNDS):
            before = server.cpu_seconds()
            found = load(server.url, "/predict", body, CLIENTS, SECONDS, Path(folder))
            answers = sum(found.statuses.values()) * 1.2  # with those of the warm-up
            bad = {status: count for status, count in found.statuses.items() if status != "200"}
            assert not bad, f"{what} {mode} answered {bad}"
            rates.append(found.rate)
            costs.append(1000 * (server.cpu_seconds() - before) / max(answers, 1))
    return statistics.median(rates), statistics.median(costs)


_MODULES = {"ours": "serving.ray_app", "no-op": "prediction_server.noop"}


def _server(what: str, mode: str, environ: dict[str, str]) -> AbstractContextManager[Server]:
    command = [sys.executable, "-m", _MODULES[what], "--experiment", TABLE, "--port", "{port}"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    own = {"MLPLATFORM_SERVING_CONFIG": OPTIONS[mode], "PYTHONPATH": path}
    return serving(command, "/health/ready", {**environ, **own})


def _report(flags: str, seen: dict[str, tuple[float, float]]) -> None:
    for name, (rate, cost) in seen.items():
        case = f"Ray, {flags}, {CLIENTS} clients, {name}"
        report("serving", case, cost, "ms CPU per request")
        if name.startswith("no-op"):
            report("serving", case, rate, "1/s")
            continue
        limit, _ = seen[name.replace("ours", "no-op")]
        is_aim = name == "ours split"
        aim, met = (f">= {AIM_CHAIN} x no-op", rate >= AIM_CHAIN * limit) if is_aim else (None, None)
        report("serving", case, rate, "1/s", peer="no-op of the same shape", peer_value=limit, aim=aim, met=met)
    split, fused = seen["ours split"][0], seen["ours fused"][0]
    aim, met = f">= {AIM_FUSED:g} x split", fused >= AIM_FUSED * split
    report("serving", f"Ray, {flags}: fused", fused, "1/s", peer="split", peer_value=split, aim=aim, met=met)
