"""The memory of a server that is asked for ten minutes (`SOAK_SECONDS`) while its alias moves every 20 s."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from figures import report

from prediction_server.load import load
from prediction_server.moves import promoting, two_versions
from prediction_server.servers import SECONDS, TABLE, bodies, ours, serving

SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
PAUSE_S = 20.0
CLIENTS = 16
# Long enough for both pairs to be loaded and the prediction log to be written once.
WARM_UP_S = 2 * PAUSE_S + 5


def run() -> None:
    """Measure it. Needs two versions of `diabetes_xgboost`: run its training job twice."""
    found = two_versions("soak")
    if found is None:
        return
    champion, newest = found
    body, command = bodies()[TABLE], ours(TABLE, MLPLATFORM_POLL_S="1")
    statuses: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as name,
        serving(command, "/health/ready") as server,
        promoting((newest, champion), PAUSE_S) as moves,
    ):
        load(server.url, "/predict", body, CLIENTS, WARM_UP_S, Path(name))
        before, moved, end = server.resident_mib(), moves[0], time.monotonic() + SOAK_SECONDS
        while time.monotonic() < end:
            statuses.update(load(server.url, "/predict", body, CLIENTS, SECONDS, Path(name)).statuses)
        after, moved = server.resident_mib(), moves[0] - moved
    case, answers = f"{SOAK_SECONDS:g} s of load, {moved} alias moves", sum(statuses.values())
    bad = answers - statuses["200"]
    report("serving", f"{case}: answers other than 200", bad, "answers", peer="all", peer_value=answers, met=bad == 0)
    report("serving", f"{case}: memory", after, "MiB", peer="before", peer_value=before)
