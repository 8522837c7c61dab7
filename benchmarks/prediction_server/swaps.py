"""An alias that moves while clients ask, found by the server's own polling."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path

from figures import report

from mlplatform.registry.pairs import PRODUCTION, PairStore
from mlplatform.settings import Settings
from prediction_server.load import load
from prediction_server.servers import SECONDS, TABLE, bodies, ours, serving

MOVES = 40


def run() -> None:
    """Move the alias to and fro under load; the pair in production is the same before and after.

    Needs two versions of `diabetes_xgboost`: run its training job twice.
    """
    store = PairStore(Settings.from_env())
    champion, newest = store.resolve(TABLE, PRODUCTION), store.resolve(TABLE, "latest")
    if champion.version == newest.version:
        print(json.dumps({"benchmark": "serving", "case": "swaps", "skipped": f"train {TABLE} twice"}))
        return
    stop, moved = threading.Event(), [0]

    def move() -> None:
        while not stop.wait(0.2) and moved[0] < MOVES:
            pair = (newest, champion)[moved[0] % 2]
            store.promote(TABLE, pair.version, who="benchmark", why="an alias that moves")
            moved[0] += 1

    body, command = bodies()[TABLE], ours(TABLE, MLPLATFORM_POLL_S="0.1")
    with tempfile.TemporaryDirectory() as name, serving(command, "/health/ready") as server:
        steady = load(server.url, "/predict", body, 16, SECONDS, Path(name))
        moving = threading.Thread(target=move)
        moving.start()
        try:
            found = load(server.url, "/predict", body, 16, 3 * SECONDS, Path(name))
        finally:
            stop.set()
            moving.join()
            store.promote(TABLE, champion.version, who="benchmark", why="as it was before")
            time.sleep(1)
    bad = sum(count for status, count in found.statuses.items() if status != "200")
    report("serving", f"{moved[0]} alias moves: answers other than 200", bad, "answers", aim="0", met=bad == 0)
    report(
        "serving",
        f"{moved[0]} alias moves: p99",
        found.p99_ms,
        "ms",
        peer="steady",
        peer_value=steady.p99_ms,
        aim="<= 1.5 x steady",
        met=found.p99_ms <= 1.5 * steady.p99_ms,
    )
