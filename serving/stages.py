"""The stages of a request: each has threads, a queue and a deadline of its own, so that one that hangs fails alone.

What bounds a stage from outside is cancellation: a request past its deadline, or whose client has left, is cancelled,
and work of it that has not begun is taken out of the queue. A thread cannot be stopped; one that hangs keeps its place
until it returns, and once all places are taken the stage refuses at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar, TypeVarTuple

from mlplatform.cores import usable_cores
from serving.errors import overdue, overloaded

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Deadline:
    """Cancels what is waited for within the context once it has taken too long.

    A class, because every request passes two or three: a generator would cost as much again as the time-out.

    Parameters:
        name: of the stage, for the error.
        deadline_s: in seconds; `None` leaves it all time.

    Raises:
        ServingError: 503 past the deadline.
    """

    def __init__(self, name: str, deadline_s: float | None) -> None:
        self._name, self._deadline_s = name, deadline_s
        self._limit = asyncio.timeout(deadline_s)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, raised, trace)
        except TimeoutError as error:
            raise overdue(self._name, self._deadline_s or 0.0) from error


class Stage:
    """One step of requests, on threads that last: what a thread has opened (a store) serves its next task too.

    Parameters:
        name: what errors call it.
        waiting: tasks that may wait for a thread; what comes beyond is refused.
        deadline_s: longest time from the arrival of a task to its result, in seconds; `None` leaves it to the caller.
        threads: tasks that may run at once; default: one per usable core, at least two, so that one long task cannot
            hold up all others.
    """

    def __init__(self, name: str, *, waiting: int, deadline_s: float | None = None, threads: int | None = None) -> None:
        self.name = name
        self.deadline_s = deadline_s
        self._threads = threads or max(2, usable_cores())
        self.places = self._threads + waiting
        self._occupied = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=name.replace(" ", "-"))

    @property
    def occupied(self) -> int:
        """Tasks that run or wait."""
        return self._occupied

    @property
    def depth(self) -> int:
        """Tasks that wait for a thread."""
        return max(0, self._occupied - self._threads)

    async def run(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Run a blocking function in a thread and return its result.

        Raises:
            ServingError: 503 if the stage is full, or its deadline passed.
        """
        future = self._submitted(function, *args)
        async with Deadline(self.name, self.deadline_s):
            # Cancelled, it takes a task that has not begun out of the queue.
            return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads end when they are done; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submitted(self, function: Callable[[*Args], T], *args: *Args) -> Future[T]:
        with self._lock:
            if self._occupied >= self.places:
                raise overloaded(self.name, self.places)
            self._occupied += 1
        future = self._pool.submit(function, *args)
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future[T]) -> None:
        with self._lock:
            self._occupied -= 1
