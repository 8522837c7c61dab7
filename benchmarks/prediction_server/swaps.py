"""An alias that moves while clients ask, found by the server's own polling."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from figures import report

from mlplatform.registry.pairs import PRODUCTION, PairInfo, PairStore
from mlplatform.settings import Settings
from prediction_server.load import Load, load
from prediction_server.servers import SECONDS, TABLE, Server, bodies, ours, serving

MOVES = int(os.environ.get("MOVES", "100"))
SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SOAK_PAUSE_S = 20.0
CLIENTS = 16
# Longer than the prediction log gathers: memory is looked at after it was written once.
WARM_UP_S = 12.0


def run() -> None:
    """Move the alias to and fro under load, each move once the one before was found."""
    versions = two_versions()
    if versions is None:
        return
    body = bodies()[TABLE]
    with (
        tempfile.TemporaryDirectory() as name,
        serving(ours(TABLE, MLPLATFORM_POLL_S="0.1"), "/health/ready") as server,
    ):
        steady = load(server.url, "/predict", body, CLIENTS, SECONDS, Path(name))
        with moving(server, versions, MOVES, 0.0) as found:
            loads = [load(server.url, "/predict", body, CLIENTS, SECONDS, Path(name)) for _ in until(found, MOVES)]
    answers, bad = _counted(loads)
    report("serving", f"{MOVES} alias moves: found by polling", len(found), "moves", aim=f"{MOVES}")
    report("serving", f"{MOVES} alias moves: answers", answers, "answers", aim=">= 10000", met=answers >= 10_000)
    report("serving", f"{MOVES} alias moves: answers other than 200", bad, "answers", aim="0", met=bad == 0)
    p99 = statistics.median(each.p99_ms for each in loads)
    peer = {"peer": "steady", "peer_value": steady.p99_ms, "aim": "<= 1.5 x steady"}
    report("serving", f"{MOVES} alias moves: p99", p99, "ms", **peer, met=p99 <= 1.5 * steady.p99_ms)


def soak() -> None:
    """Load for a long time with a move every 20 s, and look at the memory."""
    versions = two_versions()
    if versions is None:
        return
    body, moves = bodies()[TABLE], max(1, round(SOAK_SECONDS / SOAK_PAUSE_S))
    with tempfile.TemporaryDirectory() as name, serving(ours(TABLE, MLPLATFORM_POLL_S="1"), "/health/ready") as server:
        with moving(server, versions, 2, 0.0) as found:  # both are loaded by now
            loads = [load(server.url, "/predict", body, CLIENTS, WARM_UP_S, Path(name)) for _ in until(found, 2)]
        before = server.resident_mib()
        with moving(server, versions, moves, SOAK_PAUSE_S) as found:
            loads = [load(server.url, "/predict", body, CLIENTS, SECONDS, Path(name)) for _ in until(found, moves)]
        after = server.resident_mib()
    answers, bad = _counted(loads)
    case = f"{SOAK_SECONDS:g} s of load, {moves} alias moves"
    report("serving", f"{case}: answers other than 200", bad, "answers", peer="all", peer_value=answers, met=bad == 0)
    report("serving", f"{case}: memory", after, "MiB", peer="before", peer_value=before)


def two_versions() -> tuple[PairInfo, PairInfo] | None:
    """Return the pair in production and another one; `None` and a word about it if there is no other."""
    store = PairStore(Settings.from_env())
    champion, newest = store.resolve(TABLE, PRODUCTION), store.resolve(TABLE, "latest")
    if champion.version != newest.version:
        return champion, newest
    print(json.dumps({"benchmark": "serving", "case": "swaps", "skipped": f"train {TABLE} twice"}))
    return None


@contextmanager
def moving(server: Server, versions: tuple[PairInfo, PairInfo], moves: int, pause_s: float) -> Iterator[list[int]]:
    """Move the alias in the background, each time waiting until the server has found it.

    Yields:
        The versions that were found. The pair in production is the same before and after.
    """
    store, stop = PairStore(Settings.from_env()), threading.Event()
    champion, other = versions
    found: list[int] = []

    def move() -> None:
        while len(found) < moves and not stop.wait(pause_s):
            pair = (other, champion)[len(found) % 2]
            store.promote(TABLE, pair.version, who="benchmark", why="an alias that moves")
            while not stop.wait(0.02):
                if httpx.get(f"{server.url}/health/ready").json().get("version") == pair.version:
                    break
            found.append(pair.version)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        store.promote(TABLE, champion.version, who="benchmark", why="as it was before")


def until(found: list[int], moves: int) -> Iterator[None]:
    """Yield at least once, and again and again until so many moves were found."""
    deadline = time.monotonic() + 3600
    yield
    while len(found) < moves and time.monotonic() < deadline:
        yield


def _counted(loads: list[Load]) -> tuple[int, int]:
    """Return how many answers there were, and how many of them were other than 200."""
    answers = sum(sum(each.statuses.values()) for each in loads)
    return answers, answers - sum(each.statuses.get("200", 0) for each in loads)
