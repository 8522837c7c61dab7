"""Processes of replicas on Ray Serve, and load that goes on while something happens to them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mlplatform_tests.serving.servers import LoadClient, RunningServer

CLIENTS = 8


@asynccontextmanager
async def _load(server: RunningServer, path: str, body: bytes) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Have clients ask while the context is open; what was answered is in the list after it."""
    stop, answers = asyncio.Event(), list[tuple[int, bytes]]()
    asking = [asyncio.create_task(LoadClient(server.url, path, body).ask_until(stop)) for _ in range(CLIENTS)]
    try:
        await asyncio.sleep(0.5)
        yield answers
    finally:
        stop.set()
        for found in await asyncio.gather(*asking):
            answers += found


def under_load(server: RunningServer, path: str, body: bytes, act: Callable[[], None]) -> list[tuple[int, bytes]]:
    """Return all answers that clients get while something happens; a request without an answer is an error."""

    async def scenario() -> list[tuple[int, bytes]]:
        async with _load(server, path, body) as answers:
            await asyncio.to_thread(act)
        return answers

    return asyncio.run(scenario())


def replicas(server: RunningServer, deployment: str) -> list[int]:
    """Return the processes of a deployment's replicas."""
    found, last = [server.process.pid], [server.process.pid]
    while last:
        last = [child for pid in last for child in _children(pid)]
        found += last
    return [pid for pid in found if f"ServeReplica:mlplatform:{deployment}" in _title(pid)]


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def kill_one(server: RunningServer, deployment: str) -> None:
    """Kill a replica of a deployment, and give those that it takes from time to notice."""
    os.kill(replicas(server, deployment)[0], signal.SIGKILL)
    time.sleep(1.0)
