"""Running real servers in tests: an application under uvicorn in a thread, or a server's command in a process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI

from mlplatform.settings import Settings
from serving.process import configured


@contextmanager
def in_thread(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve an application on a free port while the context is open; yields a client of it."""
    config = configured(app, Settings.from_env({}))
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server took too long to start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_loaded(client)
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the server did not stop"


@dataclass(frozen=True)
class RunningServer:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextmanager
def in_process(module: str, environ: Mapping[str, str], log: Path, *arguments: str) -> Iterator[RunningServer]:
    """Run `python -m module` on a free port while the context is open; its output goes to the file `log`."""
    port = free_port()
    command = [sys.executable, "-m", module, "--port", str(port), *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=output, stderr=subprocess.STDOUT)
    server = RunningServer(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_until_live(server)
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def wait_until_loaded(client: httpx.Client) -> None:
    """Wait until a server has looked for its pair and its store for the first time, whatever it found."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        answer = client.get("/health/ready").json()
        reason = answer["error"]["message"] if "error" in answer else ""
        if not reason.endswith(("is being loaded", "is being opened")):
            return
        time.sleep(0.02)
    raise AssertionError(f"the server is still not ready: {reason}")


class LoadClient:
    """One HTTP connection that asks the same thing again and again; light enough to have hundreds of them.

    Parameters:
        url: the server.
        path: route of the POST requests.
        body: JSON text of the requests.
    """

    def __init__(self, url: str, path: str, body: bytes) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        self.request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def ask_until(self, stop: asyncio.Event, statuses: list[int] | None = None) -> list[tuple[int, bytes]]:
        """Return status and body of every answer until `stop` is set; at least one.

        Parameters:
            statuses: gets the statuses at once.
        """
        reader, writer = await asyncio.open_connection(*self._address)
        answers = []
        try:
            while not (stop.is_set() and answers):
                writer.write(self.request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                answers.append((int(head.split()[1]), await reader.readexactly(length)))
                if statuses is not None:
                    statuses.append(answers[-1][0])
        finally:
            writer.close()
        return answers


async def until_told_to_leave(server: RunningServer, path: str, body: bytes, clients: int) -> tuple[list[int], int]:
    """Have clients ask all the time, stop the server after a second, and let each leave as soon as an answer says so.

    Returns:
        The statuses of all answers, and how many requests had none.
    """
    statuses: list[int] = []
    lost = 0

    async def client() -> None:
        nonlocal lost
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = b""
        try:
            while b"connection: close" not in head:
                writer.write(LoadClient(server.url, path, body).request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                statuses.append(int(head.split()[1]))
        except (OSError, asyncio.IncompleteReadError):
            lost += 1
        finally:
            writer.close()

    asking = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.sleep(1)
    server.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*asking)
    return statuses, lost


def _wait_until_live(server: RunningServer) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            if httpx.get(f"{server.url}/health/live", timeout=5).status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    else:
        raise AssertionError(f"{server.url} did not come up:\n{server.log.read_text()}")
    with httpx.Client(base_url=server.url, timeout=30) as client:
        wait_until_loaded(client)
