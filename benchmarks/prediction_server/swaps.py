"""An alias that moves while clients ask, found by the server's own polling."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import report

from mlplatform.registry.pairs import PRODUCTION, PairInfo, PairStore
from mlplatform.settings import Settings
from prediction_server.load import load
from prediction_server.servers import SECONDS, TABLE, bodies, ours, serving

MOVES = int(os.environ.get("MOVES", "100"))
SERVERS = {
    "one process": ("serving.local", "default"),
    "Ray, fused": ("serving.ray_app", "fused"),
    "Ray, split": ("serving.ray_app", "default"),
}


def run() -> None:
    """Move the alias to and fro under load, five times a second; the pair in production is the same before and after.

    Beside a steady server stands one whose pair is promoted as often without another one in between: what the promoting
    process takes of the machine.

    Needs two versions of `diabetes_xgboost`: run its training job twice.
    """
    store = PairStore(Settings.from_env())
    champion, newest = store.resolve(TABLE, PRODUCTION), store.resolve(TABLE, "latest")
    if champion.version == newest.version:
        print(json.dumps({"benchmark": "serving", "case": "swaps", "skipped": f"train {TABLE} twice"}))
        return
    for name in SERVERS:
        _measure(name, store, champion, newest)


def _measure(name: str, store: PairStore, champion: PairInfo, newest: PairInfo) -> None:
    module, option = SERVERS[name]
    command = ours(TABLE, module, MLPLATFORM_POLL_S="0.1", MLPLATFORM_SERVING_CONFIG=option)
    body, seconds = bodies()[TABLE], max(3 * SECONDS, MOVES / 4)
    with tempfile.TemporaryDirectory() as folder, serving(command, "/health/ready") as server:
        steady = load(server.url, "/predict", body, 16, SECONDS, Path(folder))
        with _promoting(store, (champion,)):
            beside = load(server.url, "/predict", body, 16, seconds, Path(folder))
        with _promoting(store, (newest, champion)) as moved:
            found = load(server.url, "/predict", body, 16, seconds, Path(folder))
        store.promote(TABLE, champion.version, who="benchmark", why="as it was before")
        time.sleep(1)
    total = sum(found.statuses.values())
    bad = total - found.statuses.get("200", 0)
    case = f"{name}: {total} requests during {moved[0]} alias moves"
    report("serving", f"{case}, answers other than 200", bad, "answers", aim="0", met=bad == 0)
    aim, met = "<= 1.5 x steady", found.p99_ms <= 1.5 * steady.p99_ms
    p99, at = f"{case}, p99", found.p99_ms
    report("serving", p99, at, "ms", peer="steady", peer_value=steady.p99_ms, aim=aim, met=met)
    report("serving", p99, at, "ms", peer="promotions that change nothing", peer_value=beside.p99_ms)


@contextmanager
def _promoting(store: PairStore, pairs: tuple[PairInfo, ...]) -> Iterator[list[int]]:
    """Promote pairs in turn, five times a second, while the context is open; yields how often."""
    stop, moved = threading.Event(), [0]

    def move() -> None:
        while not stop.wait(0.2) and moved[0] < MOVES:
            pair = pairs[moved[0] % len(pairs)]
            store.promote(TABLE, pair.version, who="benchmark", why="an alias that moves")
            moved[0] += 1

    moving = threading.Thread(target=move)
    moving.start()
    try:
        yield moved
    finally:
        stop.set()
        moving.join()
