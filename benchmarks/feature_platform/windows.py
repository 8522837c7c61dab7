"""Reading windows of 336 steps x 7 features from SQLite and Redis, beside a raw Redis read of the same bytes.

The three take turns, so that a busy machine slows all of them alike. The raw read is one pipeline of HMGET by redis-py
with no decoding at all; no reader on Redis can be faster than it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mlplatform.features.online import read_windows
from mlplatform.settings import Settings

STEPS = 336
ENTITIES = 256
SIZES = {1: 400, 32: 100, 256: 40}
AIM_MS = 1.0


def run() -> None:
    """Print median and 99th percentile for 1, 32 and 256 entities."""
    from figures import report

    from feature_platform.online_stores import COLUMNS, dataset, fill, installations, rows

    bench = dataset(STEPS)
    with installations() as stores:
        for settings in stores.values():
            fill(bench, rows(ENTITIES, 0, STEPS), settings)
        raw = _RawReader(stores["Redis"])
        for size, runs in SIZES.items():
            ids = list(range(size))
            readers: dict[str, Callable[[], Any]] = {
                name: lambda settings=settings, ids=ids: read_windows(bench, ids, COLUMNS, STEPS, settings)
                for name, settings in stores.items()
            }
            readers["raw"] = lambda ids=ids: raw.read(ids)
            taken = _times(readers, runs)
            for name in stores:
                for percentile in (50, 99):
                    value, peer = (float(np.percentile(taken[key], percentile)) * 1e3 for key in (name, "raw"))
                    is_aimed_at = size == 1 and percentile == 50
                    report(
                        "windows",
                        f"{name}: {size} entities x {STEPS} steps x {len(COLUMNS)} features, p{percentile}",
                        value,
                        "ms",
                        peer="raw Redis read",
                        peer_value=peer,
                        aim=f"<= {AIM_MS} ms" if is_aimed_at else None,
                        met=value <= AIM_MS if is_aimed_at else None,
                    )


class _RawReader:
    """Hashes of the same sizes as the stored windows, read with redis-py alone."""

    def __init__(self, settings: Settings) -> None:
        from redis import Redis

        from feature_platform.online_stores import COLUMNS

        assert settings.redis_url is not None
        self._client = Redis.from_url(settings.redis_url)
        self._fields = list(COLUMNS)
        generator = np.random.default_rng(1)
        for entity in range(ENTITIES):
            values = {name: generator.bytes(STEPS * 4) for name in self._fields}
            self._client.hset(f"raw:{entity}", mapping=values)

    def read(self, ids: list[int]) -> list[Any]:
        """Return the bytes of all fields of all entities."""
        with self._client.pipeline(transaction=False) as pipe:
            for entity in ids:
                pipe.hmget(f"raw:{entity}", self._fields)
            return list(pipe.execute())


def _times(readers: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Return the seconds of every run of every reader, taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(runs + 3):
        for name, read in readers.items():
            began = time.perf_counter()
            read()
            if number >= 3:  # the first calls open connections and fill caches
                taken[name].append(time.perf_counter() - began)
    return taken
