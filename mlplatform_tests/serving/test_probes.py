"""Probes on a port of their own are answered whatever the server's event loop does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import httpx
import pytest

import serving.probes
from mlplatform_tests.serving.conftest import Platform
from serving.ports import listening
from serving.probes import Probes


@asynccontextmanager
async def answering(platform: Platform) -> AsyncIterator[httpx.Client]:
    """Answer probes for an application without a pair; yields a client, to be used in threads."""
    app = platform.application("tiny_untrained")
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        probes = Probes(app, listener, asyncio.get_running_loop(), head_deadline_s=5.0)
        probes.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            try:
                yield client
            finally:
                app.state.server.is_draining = True
                assert "about to stop" in (await asyncio.to_thread(client.get, "/health/ready")).text
                await probes.stop()


async def while_busy(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Return what a thread is answered while the event loop does nothing but wait for it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result(timeout=60)


def test_probes_say_what_the_server_says_also_while_its_event_loop_is_busy(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with answering(platform) as client:

            async def asked(path: str, method: str = "GET") -> httpx.Response:
                return await asyncio.to_thread(client.request, method, path)

            live, ready = await asked("/health/live"), await asked("/health/ready")
            assert (live.status_code, live.json()) == (200, {"status": "live"})
            assert (ready.status_code, ready.json()["error"]["code"]) == (503, "not_ready")
            assert ready.headers["content-type"] == "application/problem+json"
            assert "no production pair" in ready.text or "being loaded" in ready.text
            assert (await asked("/health/ready", "HEAD")).status_code == 503
            assert (await asked("/predict", "POST")).status_code == 404

            found = await while_busy(lambda: client.get("/health/ready"))
            assert (found.status_code, found.text) == (503, ready.text)

            monkeypatch.setattr(serving.probes, "HUNG_S", 0.2)

            def until_not_live() -> httpx.Response:
                deadline = time.monotonic() + 30
                while (answer := client.get("/health/live")).status_code == 200:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                return answer

            assert "has been busy for 0 s" in (await while_busy(until_not_live)).text
            assert (await asked("/health/live")).status_code == 200

    asyncio.run(scenario())
