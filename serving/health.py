"""Whether the feature store answers, for probes that must never wait behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

# Load balancers ask with short time-outs of their own.
_PATIENCE_S = 0.03
# A probe that takes this long has something to tell, whatever the one before it said.
_SLOW_S = 0.5


class StoreHealth:
    """The latest word about a store.

    Parameters:
        probe: asks the store; returns what is wrong with it, `None` if nothing is.
    """

    def __init__(self, probe: Callable[[], Awaitable[str | None]]) -> None:
        self._probe = probe
        self._asked: asyncio.Task[str | None] | None = None
        self._since = 0.0
        self._last: str | None = None

    async def problem(self) -> str | None:
        """Return what is wrong now; of a store that takes its time, what was wrong before, or that it does."""
        if self._asked is None or self._asked.done():
            self._asked, self._since = asyncio.create_task(self._ask()), time.monotonic()
        done, _ = await asyncio.wait([self._asked], timeout=_PATIENCE_S)
        if not done and self._last is None and time.monotonic() - self._since > _SLOW_S:
            return f"the online feature store has not answered for {time.monotonic() - self._since:.1f} s"
        return self._last

    async def _ask(self) -> str | None:
        self._last = await self._probe()
        return self._last
