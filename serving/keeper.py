"""Keeps a server on the pair that is in production: loads it until that works, then looks whether the alias moved."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from serving.backend import ReloadReport
from serving.errors import ServingError

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0


class Keeper:
    """Reloads in the background.

    Parameters:
        experiment: what log lines call it.
        reload: serves the pair that is in production now.
        on_failure: told of every failure that is not the one before; returns at once.
        poll_s: between two looks once a pair is loaded, in seconds, give or take a fifth so that many servers do not
            ask in the same moment; 0 stops after the first success.

    Attributes:
        outcomes: how often a look ended as `swapped`, `unchanged` or `failed`.
    """

    def __init__(
        self,
        experiment: str,
        reload: Callable[[], Awaitable[ReloadReport]],
        poll_s: float,
        on_failure: Callable[[ServingError], None],
    ) -> None:
        self._experiment, self._reload, self._poll_s, self._on_failure = experiment, reload, poll_s, on_failure
        self._task: asyncio.Task[None] | None = None
        self.outcomes: Counter[str] = Counter()

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        pause, told = FIRST_PAUSE_S, ""
        while True:
            try:
                report = await self._reload()
            except ServingError as error:
                self.outcomes["failed"] += 1
                if error.message != told:
                    logger.warning("%s: %s", self._experiment, error.message)
                    self._on_failure(error)
                told, wait, pause = error.message, pause, min(pause * 2, self._poll_s or LONGEST_PAUSE_S)
            else:
                self.outcomes["swapped" if report.swapped else "unchanged"] += 1
                if not self._poll_s:
                    return
                told, wait, pause = "", self._poll_s, FIRST_PAUSE_S
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
