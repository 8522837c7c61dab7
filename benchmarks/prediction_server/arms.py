"""A challenger beside production: what it costs to have none, one that answers half, and one in shadow."""

from __future__ import annotations

import json
import statistics
import tempfile
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

from figures import report

from mlplatform.registry.pairs import PRODUCTION, STAGING, PairStore
from mlplatform.settings import Settings
from prediction_server.load import Load, load
from prediction_server.servers import ROUNDS, SECONDS, TABLE, Server, bodies, ours, serving

CLIENTS = 16
MODES = ("off", "split", "shadow")
# Of the rate without a challenger. Beside the work itself a split costs a hand-over; a shadow may take a fifth.
AIMS = {"split": 0.7, "shadow": 0.75}


def run() -> None:
    """Measure the modes in turn. Needs two versions of `diabetes_xgboost`: run its training job twice."""
    store = PairStore(Settings.from_env())
    if store.resolve(TABLE, PRODUCTION).version == store.resolve(TABLE, STAGING).version:
        print(json.dumps({"benchmark": "serving", "case": "arms", "skipped": f"train {TABLE} twice"}))
        return
    text = (files("mlplatform") / "conf" / "experiment" / f"{TABLE}.yaml").read_text()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = {}
        for mode in MODES:
            path = Path(folder, mode, "experiment", f"{TABLE}.yaml")
            path.parent.mkdir(parents=True)
            share = 1.0 if mode == "shadow" else 0.5
            challenger = f"\nserving: {{challenger: {{share: {share}, mode: {mode}}}}}\n"
            path.write_text(text if mode == "off" else text + challenger)
            command = ours(TABLE, MLPLATFORM_CONF_DIR=str(path.parent.parent))
            servers[mode] = stack.enter_context(serving(command, "/health/ready"))
        report_modes(measured(servers, bodies()[TABLE], Path(folder)))


def measured(servers: dict[str, Server], body: bytes, folder: Path) -> dict[str, tuple[list[Load], list[float]]]:
    """Return, by mode, what clients saw and the CPU milliseconds per request, round by round."""
    seen: dict[str, tuple[list[Load], list[float]]] = {mode: ([], []) for mode in servers}
    for _ in range(ROUNDS):
        for mode, server in servers.items():
            before = server.cpu_seconds()
            found = load(server.url, "/predict", body, CLIENTS, SECONDS, folder)
            seen[mode][0].append(found)
            seen[mode][1].append(1000 * (server.cpu_seconds() - before) / max(sum(found.statuses.values()) * 1.2, 1))
    return seen


def report_modes(seen: dict[str, tuple[list[Load], list[float]]]) -> None:
    """Print rates, slowest answers and CPU of the modes beside those without a challenger."""
    rates, slowest, cpu = (
        {mode: statistics.median(of(loads, used)) for mode, (loads, used) in seen.items()}
        for of in (
            lambda loads, _: [each.rate for each in loads],
            lambda loads, _: [each.p99_ms for each in loads],
            lambda _, used: used,
        )
    )
    for mode in seen:
        aim = AIMS.get(mode)
        report(
            "serving",
            f"challenger {mode}: rate of {CLIENTS} clients",
            rates[mode],
            "requests/s",
            peer="off",
            peer_value=rates["off"],
            aim=f">= {aim} of off" if aim else "",
            met=rates[mode] >= aim * rates["off"] if aim else None,
        )
        report("serving", f"challenger {mode}: p99", slowest[mode], "ms", peer="off", peer_value=slowest["off"])
        report("serving", f"challenger {mode}: CPU per request", cpu[mode], "ms", peer="off", peer_value=cpu["off"])
