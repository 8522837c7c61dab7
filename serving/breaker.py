"""The circuit breaker: after several failures in a row a part that is away is not asked for a while.

Described by Nygard, "Release It!" (2007). Without it every request would wait for the deadline of a store that hangs,
and take a thread with it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from serving.errors import ServingError

T = TypeVar("T")


class CircuitBreaker:
    """Closed it lets calls through, open it refuses them, half-open it lets one through to find out.

    Parameters:
        failures: calls that must fail in a row until it opens.
        pause_s: how long it stays open at first, in seconds; every failed attempt after that doubles it.
        longest_s: limit of that.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        pause_s: float = 0.5,
        longest_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed, self._first_pause_s, self._longest_s, self._clock = failures, pause_s, longest_s, clock
        self._failed = 0
        self._pause_s = pause_s
        self._open_until: float | None = None
        self._is_trying = False
        self._last: ServingError | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls are refused now."""
        return self._open_until is not None and (self._is_trying or self._clock() < self._open_until)

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `work`; only a `ServingError` of 500 and more counts as a failure.

        Raises:
            ServingError: what `work` raises, or while open the last failure, with the time to wait.
        """
        if self.is_open:
            raise self._refusal()
        self._is_trying = self._open_until is not None
        try:
            result = await work()
        except ServingError as error:
            if error.status >= 500:
                self._count(error)
            else:
                self._reset()
            raise
        finally:
            self._is_trying = False
        self._reset()
        return result

    def _count(self, error: ServingError) -> None:
        self._failed += 1
        self._last = error
        if self._open_until is not None:
            self._pause_s = min(self._pause_s * 2, self._longest_s)
        if self._open_until is not None or self._failed >= self._allowed:
            # With jitter, so that several servers do not all ask in the same moment.
            self._open_until = self._clock() + self._pause_s * random.uniform(0.75, 1.25)  # noqa: S311 - no secret

    def _reset(self) -> None:
        self._failed, self._pause_s, self._open_until, self._last = 0, self._first_pause_s, None, None

    def _refusal(self) -> ServingError:
        error, until = self._last, self._open_until
        assert error is not None
        wait = max(1, round((until or 0.0) - self._clock()))
        headers = {**error.headers, "retry-after": str(wait)}
        return ServingError(error.status, error.code, error.message, error.details, headers)
