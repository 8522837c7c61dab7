"""Which version each alias of an experiment stands for, for those who look on; no prediction waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from serving.concurrency import Workers

logger = logging.getLogger(__name__)

# How long an answer waits for the registry: with something to tell meanwhile, and without.
PATIENCE_S, FIRST_PATIENCE_S = 0.05, 0.3


class AliasLook:
    """The latest word of the registry about the aliases of one experiment.

    Parameters:
        experiment: what log lines call it.
        read: asks the registry, and blocks; it runs in a thread of its own, one call at a time.
    """

    def __init__(self, experiment: str, read: Callable[[], Mapping[str, int]]) -> None:
        self._experiment, self._read = experiment, read
        self._workers = Workers(1)
        self._asked: asyncio.Task[None] | None = None
        self._last: Mapping[str, int] | None = None

    async def versions(self) -> Mapping[str, int] | None:
        """Return alias -> version as it is now; as it was last known while the registry is slow or away.

        Returns:
            None if the registry has not answered since this server began.
        """
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._ask())
        await asyncio.wait([self._asked], timeout=FIRST_PATIENCE_S if self._last is None else PATIENCE_S)
        return self._last

    async def close(self) -> None:
        """Stop asking; a thread that still waits for the registry is left to end by itself."""
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)
        self._workers.close()

    async def _ask(self) -> None:
        try:
            self._last = await self._workers.run(self._read)
        except Exception as error:
            # Whoever needs the registry for an answer says loudly that it is away.
            logger.info("the aliases of %s are not known anew: %s", self._experiment, error)
