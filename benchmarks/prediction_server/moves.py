"""An alias that moves between two versions of the table's model while clients ask."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlplatform.registry.pairs import PRODUCTION, PairInfo, PairStore
from mlplatform.settings import Settings
from prediction_server.meanwhile import meanwhile
from prediction_server.servers import TABLE


def two_versions(case: str) -> tuple[PairInfo, PairInfo] | None:
    """Return the pair in production and the newest one; `None` if they are one, which is reported as skipped."""
    store = PairStore(Settings.from_env())
    champion, newest = store.resolve(TABLE, PRODUCTION), store.resolve(TABLE, "latest")
    if champion.version != newest.version:
        return champion, newest
    print(json.dumps({"benchmark": "serving", "case": case, "skipped": f"train {TABLE} twice"}))
    return None


@contextmanager
def promoting(pairs: Sequence[PairInfo], pause_s: float, most: int | None = None) -> Iterator[list[int]]:
    """Promote pairs in turn while the context is open; the last of them is in production afterwards.

    Parameters:
        pause_s: seconds before each promotion.
        most: promotions at most; by default any number.

    Yields:
        A list of one number: the promotions so far.
    """
    store, moved = PairStore(Settings.from_env()), [0]

    def move(stop: threading.Event) -> None:
        while not stop.wait(pause_s) and (most is None or moved[0] < most):
            pair = pairs[moved[0] % len(pairs)]
            store.promote(TABLE, pair.version, who="benchmark", why="an alias that moves")
            moved[0] += 1

    try:
        with meanwhile(move):
            yield moved
    finally:
        store.promote(TABLE, pairs[-1].version, who="benchmark", why="as it was before")
