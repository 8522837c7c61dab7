"""Work leaves the event loop, and concurrent calls share a run that began after them."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from serving.concurrency import Coalescer, Workers


def test_blocking_work_does_not_block_the_loop() -> None:
    async def scenario() -> float:
        work = asyncio.create_task(Workers(1).run(time.sleep, 0.3))
        longest, before = 0.0, time.perf_counter()
        while not work.done():
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
        return longest

    assert asyncio.run(scenario()) < 0.2


def test_no_more_threads_run_than_the_pool_has() -> None:
    running = peak = 0

    def work() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        time.sleep(0.02)
        running -= 1

    async def scenario() -> None:
        workers = Workers(2)
        await asyncio.gather(*(workers.run(work) for _ in range(10)))

    asyncio.run(scenario())
    assert peak == 2


def test_threads_are_used_again_whoever_asks() -> None:
    async def scenario() -> None:
        workers = Workers(2)
        # Each in a task of its own, as servers run requests.
        tasks = [asyncio.create_task(workers.run(threading.get_ident)) for _ in range(50)]
        assert len(set(await asyncio.gather(*tasks))) <= 2
        workers.close()

    asyncio.run(scenario())


class Alias:
    """Something that is slow to read and may change while it is read."""

    def __init__(self) -> None:
        self.value = 1
        self.reads = 0
        self.concurrent = 0

    async def read(self) -> int:
        self.reads += 1
        self.concurrent += 1
        assert self.concurrent == 1
        seen = self.value
        await asyncio.sleep(0.05)
        self.concurrent -= 1
        if seen < 0:
            raise ValueError(f"cannot read {seen}")
        return seen


def test_calls_during_a_run_share_the_next_one_and_see_what_they_did_before() -> None:
    async def scenario() -> None:
        alias = Alias()
        read = Coalescer(alias.read)
        first = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        alias.value = 2
        others = await asyncio.gather(*(read() for _ in range(20)))
        assert (await first, set(others), alias.reads) == (1, {2}, 2)
        assert await read() == 2
        assert alias.reads == 3

    asyncio.run(scenario())


def test_a_failed_run_fails_its_callers_and_no_others() -> None:
    async def scenario() -> None:
        alias = Alias()
        alias.value = -1
        read = Coalescer(alias.read)
        first = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        alias.value = 3
        assert await read() == 3
        with pytest.raises(ValueError, match="cannot read -1"):
            await first

    asyncio.run(scenario())


def test_a_cancelled_caller_does_not_cancel_the_run_of_the_others() -> None:
    async def scenario() -> None:
        alias = Alias()
        read = Coalescer(alias.read)
        leaving, staying = asyncio.create_task(read()), asyncio.create_task(read())
        await asyncio.sleep(0.01)
        leaving.cancel()
        assert await staying == 1
        assert alias.reads == 1

    asyncio.run(scenario())
