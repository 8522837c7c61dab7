"""How work leaves the event loop, and how concurrent reloads become one.

The event loop only moves bytes. Everything that computes or touches a disk runs in a small pool of threads: as many as
there are cores, because more would only take turns.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, TypeVarTuple

from mlplatform.cores import usable_cores

T = TypeVar("T")
Args = TypeVarTuple("Args")

# Python's own 5 ms is how long a thread that computes keeps the event loop, and with it probes, from Python's lock.
SWITCH_INTERVAL_S = 0.001


def let_the_loop_in() -> None:
    """Have this process serve: its event loop waits no longer than it must for threads that load or compute."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def keep_loaded() -> None:
    """Have what is loaded by now stay: walking all of it again and again would hold up requests by 200 ms each time."""
    gc.collect()
    gc.freeze()


class Workers:
    """A bounded pool of threads that last: what a thread has opened (a store, a connection) serves its next task too.

    Parameters:
        size: threads that may run at once; default: one per usable core, at least two, so that one long request
            cannot hold up all others.
    """

    def __init__(self, size: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(size or max(2, usable_cores()), thread_name_prefix="serving")

    async def run(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Run a blocking function in a thread and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def close(self) -> None:
        """Let the threads end when they are done."""
        self._pool.shutdown(wait=False)


class Coalescer(Generic[T]):
    """Runs an operation one at a time, and lets the calls that arrive while it runs share the next run.

    A caller always gets the result of a run that began after its call, so it sees everything it did before calling.
    The run goes on when its caller is cancelled: others may be waiting for it.
    """

    def __init__(self, operation: Callable[[], Awaitable[T]]) -> None:
        self._operation = operation
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """Return the result of a run that began after this call; raises what the run raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
        return await asyncio.shield(self._next)

    async def _after(self, previous: asyncio.Task[T] | None) -> T:
        if previous is not None and not previous.done():
            await asyncio.wait([previous])
        self._running, self._next = self._next, None
        return await self._operation()
