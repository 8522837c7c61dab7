"""Which prediction requests are worked for: as many as can be answered in time, for clients that still wait.

A queue without a bound turns a moment's overload into minutes of answers that nobody waits for any more. Here what is
over the limit is refused at once, with a status that says so, and what is admitted has a deadline.

A queue is there for bursts. One that stays full answers no more requests than a short one and makes all of them wait
(Nichols and Jacobson, "Controlling Queue Delay", 2012), so while more is asked for than the limit, fewer are let in.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect

from serving.errors import too_many_requests
from serving.stages import Deadline

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]

# Most answers are made sooner; only for one that takes longer it is worth finding out whether its client still waits.
_WATCH_AFTER_S = 0.05
_REFUSALS_PER_S, _REFUSAL_BURST = 200, 100
_LONGEST_DELAY_S = 1.0
# What is let in while the server is crowded: a quarter of the limit keeps a batch in the model and one behind it, and
# at this many nobody waits for long whatever the limit is.
_CROWDED_SHARE, _LEAST_PLACES = 4, 8
# How long after the last moment with too much to do the limit comes back.
_CALM_S = 1.0


class Admission:
    """The front of the queue.

    Parameters:
        limit: requests that are worked for at once, those that wait for a thread included.
        deadline_s: longest time from admission to answer, in seconds.

    Attributes:
        in_flight: admitted requests that have no answer yet.
    """

    def __init__(self, limit: int, deadline_s: float) -> None:
        self.limit, self.deadline_s = limit, deadline_s
        self.in_flight = 0
        self._held = 0
        self._crowded_until = 0.0
        self._paced_until = 0.0

    @property
    def places(self) -> int:
        """How many requests may be in flight now: the limit, or fewer while more is asked for than that."""
        if asyncio.get_running_loop().time() >= self._crowded_until:
            return self.limit
        return min(self.limit, max(self.limit // _CROWDED_SHARE, _LEAST_PLACES))

    async def require_place(self) -> None:
        """Refuse a request that would not be admitted, before its body is read.

        Raises:
            ServingError: 429 if the limit is reached.
        """
        # Those whose refusal is held back want to be worked for as well.
        if self.in_flight + self._held >= self.limit:
            self._crowded_until = asyncio.get_running_loop().time() + _CALM_S
        places = self.places
        if self.in_flight >= places:
            await self._pace_refusals()
            raise too_many_requests(places)

    async def admit(self, receive: Receive, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of `work`.

        Parameters:
            receive: of a request whose body has been read, so that it returns when the client leaves.

        Raises:
            ServingError: 429 if the limit is reached, 503 past the deadline, and what `work` raises.
            ClientDisconnect: if the client left first.
        """
        await self.require_place()
        self.in_flight += 1
        watch = _Watch(receive)
        try:
            async with Deadline("request", self.deadline_s):
                return await work()
        except asyncio.CancelledError:
            if not watch.has_left:
                raise
            raise ClientDisconnect from None
        finally:
            watch.end()
            self.in_flight -= 1

    async def _pace_refusals(self) -> None:
        """Wait, if requests are refused faster than they should be.

        Clients that ask again at once would otherwise keep the server busy with refusing them, and so take its time
        from those that it admitted. A burst is refused without delay.
        """
        now = asyncio.get_running_loop().time()
        self._paced_until = max(self._paced_until, now - _REFUSAL_BURST / _REFUSALS_PER_S) + 1 / _REFUSALS_PER_S
        delay = self._paced_until - now
        if delay > _LONGEST_DELAY_S:
            # What is promised to no one: beyond the longest delay the pace is given up, not the answer. Spread, because
            # clients that are answered in one moment all ask again in the next one.
            self._paced_until = now + _LONGEST_DELAY_S
            delay = random.uniform(0.5, 1.0) * _LONGEST_DELAY_S  # noqa: S311 - no secret
        if delay <= 0:
            return
        self._held += 1
        try:
            await asyncio.sleep(delay)
        finally:
            self._held -= 1


class _Watch:
    """Cancels the task that made it once the client has left."""

    def __init__(self, receive: Receive) -> None:
        self.has_left = False
        self._receive = receive
        self._task = asyncio.current_task()
        self._listening: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._begin)

    def end(self) -> None:
        """Stop watching."""
        self._timer.cancel()
        if self._listening is not None:
            self._listening.cancel()
        if self.has_left and self._task is not None:
            # What was cancelled here was caught here: to whoever waits for the task nothing was.
            self._task.uncancel()

    def _begin(self) -> None:
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._task is not None:
            self.has_left = True
            self._task.cancel()
