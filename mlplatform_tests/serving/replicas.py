"""Processes of replicas on Ray Serve, and load that goes on while something happens to them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
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


def stopped_under_load(server: RunningServer, path: str, body: bytes) -> Counter[str]:
    """Send SIGTERM while clients ask; return how their requests ended: by status, as `refused`, or as `lost`."""

    async def ask(ends: Counter[str]) -> None:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                is_fresh, is_open = True, True
                while is_open:
                    writer.write(head.encode() + body)
                    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                    await reader.readexactly(int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                    ends[answer.split()[1].decode()] += 1
                    is_fresh, is_open = False, b"connection: close" not in answer
            except ConnectionRefusedError:
                return
            except (asyncio.IncompleteReadError, ConnectionError):
                # A connection that was never taken is one that was refused.
                ends["refused" if is_fresh else "lost"] += 1
                return
            writer.close()

    async def scenario() -> Counter[str]:
        ends: Counter[str] = Counter()
        clients = [asyncio.create_task(ask(ends)) for _ in range(CLIENTS)]
        await asyncio.sleep(1.0)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*clients), 30)
        return ends

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
