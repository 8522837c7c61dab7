"""An alias that moves while clients ask, found by the server's own polling."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from figures import report

from mlplatform.registry.pairs import PairInfo
from prediction_server.load import load
from prediction_server.moves import promoting, two_versions
from prediction_server.servers import SECONDS, TABLE, bodies, ours, serving

MOVES, PAUSE_S = int(os.environ.get("MOVES", "100")), 0.2
REQUESTS = 100 * MOVES
# What a move takes at most while 16 clients keep two cores busy, its pause included.
MOVE_S = 1.2
SERVERS = {
    "one process": ("serving.local", "default"),
    "Ray, fused": ("serving.ray_app", "fused"),
    "Ray, split": ("serving.ray_app", "default"),
}


def run() -> None:
    """Move the alias to and fro under load, all along; the same pair is in production afterwards.

    Beside a steady server stands one whose pair is promoted as often without another one in between: what the promoting
    process takes of the machine. All three runs have the same length, because the prediction log is written in some of
    their seconds, and it is long enough for `REQUESTS` requests.

    Needs two versions of `diabetes_xgboost`: run its training job twice.
    """
    found = two_versions("swaps")
    for name in SERVERS if found else ():
        _measure(name, *found)


def _measure(name: str, champion: PairInfo, newest: PairInfo) -> None:
    module, option = SERVERS[name]
    command = ours(TABLE, module, MLPLATFORM_POLL_S="0.1", MLPLATFORM_SERVING_CONFIG=option)
    body = bodies()[TABLE]
    with tempfile.TemporaryDirectory() as temporary, serving(command, "/health/ready") as server:
        folder = Path(temporary)
        rate = load(server.url, "/predict", body, 16, SECONDS, folder).rate
        # Promotions take two fifths of the rate.
        seconds = max(3 * SECONDS, MOVES * MOVE_S, 1.7 * REQUESTS / rate)
        pause_s = PAUSE_S + seconds / MOVES - MOVE_S
        steady = load(server.url, "/predict", body, 16, seconds, folder)
        with promoting((champion,), pause_s, MOVES):
            beside = load(server.url, "/predict", body, 16, seconds, folder)
        with promoting((newest, champion), pause_s, MOVES) as moved:
            found = load(server.url, "/predict", body, 16, seconds, folder)
        time.sleep(1)
    total = sum(found.statuses.values())
    bad = total - found.statuses.get("200", 0)
    case = f"{name}: {total} requests during {moved[0]} alias moves"
    report("serving", f"{case}, answers other than 200", bad, "answers", aim="0", met=bad == 0)
    aim, met = "<= 1.5 x steady", found.p99_ms <= 1.5 * steady.p99_ms
    p99, at = f"{case}, p99", found.p99_ms
    report("serving", p99, at, "ms", peer="steady", peer_value=steady.p99_ms, aim=aim, met=met)
    report("serving", p99, at, "ms", peer="promotions that change nothing", peer_value=beside.p99_ms)
