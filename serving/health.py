"""Whether the feature store answers, for probes that must never wait behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

# Load balancers ask with short time-outs of their own.
_PATIENCE_S = 0.03
# A probe that takes this long has something to tell, whatever the one before it said.
_SLOW_S = 0.5
# A store that was well is asked again after the first, and waited for after the second: of a flooded server its own
# threads are late to answer, and a probe that waits for them as well is too late.
_FRESH_S, _GOOD_S = 0.25, 1.0


class StoreHealth:
    """The latest word about a store.

    Parameters:
        probe: asks the store; returns what is wrong with it, `None` if nothing is.
        clock: in seconds.
    """

    def __init__(self, probe: Callable[[], Awaitable[str | None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._probe, self._clock = probe, clock
        self._asked: asyncio.Task[str | None] | None = None
        self._since = 0.0
        self._last: str | None = None
        self._well = float("-inf")

    async def problem(self) -> str | None:
        """Return what is wrong now; of a store that takes its time, what was wrong before, or that it does.

        A store that was well a moment ago is not waited for. One that was not is, so that its return is told at once.
        """
        age = self._clock() - self._well  # of the latest good word
        if self._last is None and age < _FRESH_S:
            return None
        if self._asked is None or self._asked.done():
            self._asked, self._since = asyncio.create_task(self._ask()), self._clock()
        if self._last is None and age < _GOOD_S:
            return None
        done, _ = await asyncio.wait([self._asked], timeout=_PATIENCE_S)
        if not done and self._last is None and self._clock() - self._since > _SLOW_S:
            return f"the online feature store has not answered for {self._clock() - self._since:.1f} s"
        return self._last

    async def _ask(self) -> str | None:
        self._last = await self._probe()
        if self._last is None:
            self._well = self._clock()
        return self._last
