"""Shadow answers: what a challenger would have said, logged and never returned.

Requests are copied into a short queue after they were answered, and worked off a few at a time by one task that rests
four times as long as it works. So a shadow takes at most a fifth of one thread's time from those who wait for
production's answers; what the queue has no place for is dropped, and while the server is busy nothing is taken in.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serving.backend import Prediction

logger = logging.getLogger(__name__)

SHARE_OF_TIME = 0.2
_TOGETHER = 8
_PLACES, _PLACES_ROWS = 64, 50_000


@dataclass(frozen=True)
class ShadowQuestion:
    """A request that was answered.

    Attributes:
        ask: asks the challenger.
        rows: how many the request holds, entities of the feature store included.
        asked_at: when production answered, in UTC.
    """

    ask: Callable[[], Awaitable[Prediction]]
    rows: int
    request_id: str
    asked_at: dt.datetime


class Shadow:
    """Asks a challenger in the background.

    Parameters:
        log: keeps an answer.
        count: counts a request by its outcome: `answered`, `failed` or `dropped`.
        is_busy: whether the server has enough to do already.
    """

    def __init__(
        self,
        log: Callable[[Prediction, ShadowQuestion], None],
        count: Callable[[str], None],
        is_busy: Callable[[], bool],
    ) -> None:
        self._log, self._count, self._is_busy = log, count, is_busy
        self._waiting: deque[ShadowQuestion] = deque()
        self._rows = 0
        self._task: asyncio.Task[None] | None = None

    def offer(self, question: ShadowQuestion) -> None:
        """Take a question, or drop it; returns at once."""
        is_full = len(self._waiting) >= _PLACES or self._rows + question.rows > _PLACES_ROWS
        if is_full or self._is_busy():
            self._count("dropped")
            return
        self._waiting.append(question)
        self._rows += question.rows
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Drop what waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
            self._rows -= sum(question.rows for question in taken)
            started = time.monotonic()
            await asyncio.gather(*map(self._answer, taken))
            await asyncio.sleep((time.monotonic() - started) * (1 / SHARE_OF_TIME - 1))

    async def _answer(self, question: ShadowQuestion) -> None:
        try:
            self._log(await question.ask(), question)
        except Exception as error:
            # Whatever it is, nobody waits for this answer.
            self._count("failed")
            logger.debug("no shadow answer to request %s: %r", question.request_id, error)
        else:
            self._count("answered")
