"""Probes on a port of their own are answered whatever the server's event loop does."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import httpx
import pytest

import serving.probes
from mlplatform.child_processes import child_process
from mlplatform_tests.serving.conftest import Platform
from serving.ports import listening
from serving.probes import Probes


@asynccontextmanager
async def answering(platform: Platform, hung_s: float = 30.0) -> AsyncIterator[tuple[httpx.Client, Probes]]:
    """Answer probes for an application without a pair; yields a client, to be used in threads, and who answers."""
    app = platform.application("tiny_untrained")
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        probes = Probes(app, listener, head_deadline_s=5.0, hung_s=hung_s)
        probes.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            try:
                yield client, probes
            finally:
                app.state.server.is_draining = True
                await until(client, "/health/ready", lambda answer: "about to stop" in answer.text)
                await probes.stop()


async def until(client: httpx.Client, path: str, fits: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Return the first answer that fits; a word of the server may take longer than a probe waits for it."""
    deadline = time.monotonic() + 30
    while not fits(answer := await asyncio.to_thread(client.get, path)):
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.05)
    return answer


async def while_busy(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Return what a thread is answered while the event loop does nothing but wait for it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result(timeout=60)


def test_probes_say_what_the_server_says_also_while_its_event_loop_is_busy(platform: Platform) -> None:
    async def scenario() -> None:
        async with answering(platform, hung_s=0.4) as (client, _):

            async def asked(path: str, method: str = "GET") -> httpx.Response:
                return await asyncio.to_thread(client.request, method, path)

            live = await asked("/health/live")
            ready = await asked("/health/ready")
            assert (live.status_code, live.json()) == (200, {"status": "live"})
            assert (ready.status_code, ready.json()["error"]["code"]) == (503, "not_ready")
            assert ready.headers["content-type"] == "application/problem+json"
            assert ready.headers["x-content-type-options"] == "nosniff"
            assert "no production pair" in ready.text or "being loaded" in ready.text
            assert (await asked("/health/ready", "HEAD")).status_code == 503
            assert (await asked("/predict", "POST")).status_code == 404

            found = await while_busy(lambda: client.get("/health/ready"))
            assert (found.status_code, found.text) == (503, ready.text)

            def until_not_live() -> httpx.Response:
                deadline = time.monotonic() + 30
                while (answer := client.get("/health/live")).status_code == 200:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                return answer

            assert "has been busy for 0 s" in (await while_busy(until_not_live)).text
            await until(client, "/health/live", lambda answer: answer.status_code == 200)

    asyncio.run(scenario())


def test_a_server_that_cannot_say_is_not_ready(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: object) -> None:
        raise RuntimeError("no word")

    async def scenario() -> None:
        async with answering(platform) as (client, _):
            monkeypatch.setattr(serving.probes, "ask_inside", failing)
            found = await until(client, "/health/ready", lambda answer: "cannot say" in answer.text)
            assert found.status_code == 503
            assert (await asyncio.to_thread(client.get, "/health/live")).status_code == 200
            monkeypatch.undo()

    asyncio.run(scenario())


def test_a_process_that_is_killed_is_replaced_and_none_is_left_behind(platform: Platform) -> None:
    async def scenario() -> int:
        async with answering(platform) as (client, probes):
            assert (await asyncio.to_thread(client.get, "/health/live")).status_code == 200
            killed = probes.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while probes.pid == killed:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            # Whoever asks meanwhile waits in the port's queue.
            base = client.base_url
            assert (await asyncio.to_thread(httpx.get, f"{base}/health/live", timeout=60)).status_code == 200
            last = probes.pid
        assert last is not None
        return last

    last = asyncio.run(scenario())
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


@pytest.mark.parametrize("has_said_all", [False, True], ids=["at once", "with lines unread"])
def test_the_process_ends_with_its_server_however_that_ends(has_said_all: bool) -> None:
    own, other = socket.socketpair()
    with own, other, listening("127.0.0.1", 0) as listener:
        passed = (listener.fileno(), other.fileno())
        command = [sys.executable, "-m", "serving.probe_process"]
        command += ["--listener", str(passed[0]), "--channel", str(passed[1])]
        with child_process(command, pass_fds=passed, text=True) as process:
            other.close()
            if has_said_all:
                sayings = serving.probes._sayings(30.0, 5.0)
                own.sendall(serving.probes._line(sayings) + serving.probes._line(sayings.live))
                # A socket that is closed before its last line was read is reset for who writes.
                assert select.select([own], [], [], 60)[0] == [own]
            own.close()
            assert process.wait(60) == 0
