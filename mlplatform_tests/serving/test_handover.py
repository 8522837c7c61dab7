"""The door of a server's port: probes are answered at it, and every other connection reaches the server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typing_extensions import override

import serving.connections
import serving.handover
import serving.probes
from mlplatform.settings import Settings
from mlplatform_tests.serving.servers import wait_until_loaded
from mlplatform_tests.serving.test_connections import SlowBackend, read_to_the_end
from serving.api import build_app
from serving.handover import Porter
from serving.ports import listening, listening_at
from serving.probes import Probes
from serving.process import DrainingServer, configured

SILENT_S = 2.0
PROBE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


class Watched(DrainingServer):
    """A server that says which event loop it runs in, and who stands at its door."""

    loop: asyncio.AbstractEventLoop

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)

    @property
    def probes(self) -> Probes:
        """What has probes answered."""
        assert self._probes is not None
        return self._probes

    def until_at_the_door(self, other_than: int | None = None) -> int:
        """Return the process at the door, once there is one."""
        deadline = time.monotonic() + 60
        while not self.probes.is_at_the_door or self.probes.pid == other_than:
            assert time.monotonic() < deadline, "nobody stands at the door"
            time.sleep(0.01)
        assert self.probes.pid is not None
        return self.probes.pid


@contextmanager
def running(folder: Path) -> Iterator[tuple[Watched, httpx.Client, int]]:
    """Run a server with a process at its door; yields it, a client, and the port."""
    settings = Settings.from_env({"MLPLATFORM_HOME": str(folder)})
    limits = replace(settings.limits, body_deadline_s=SILENT_S)
    backend = SlowBackend()
    backend.may_answer.set()
    with listening("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        app = build_app({"slow": backend}, settings)
        server = Watched(configured(app, replace(settings, limits=limits)), app, limits, doors=[door])
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until_loaded(client)
                server.until_at_the_door()
                yield server, client, port
        finally:
            server.should_exit = True
            thread.join(timeout=60)
            assert not thread.is_alive(), "the server did not stop"


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def is_open(port: int) -> bool:
    try:
        connected(port).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


class Answering(asyncio.Protocol):
    """Says that it is alive when it is asked anything."""

    transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, _: bytes) -> None:
        self.transport.write(b"alive")
        self.transport.close()


def test_probes_are_answered_while_the_event_loop_is_busy_and_requests_after_it(tmp_path: Path) -> None:
    with running(tmp_path) as (server, _, port):
        ready = httpx.get(f"http://127.0.0.1:{port}/health/ready")
        assert (ready.status_code, ready.json()["experiment"]) == (200, "slow")
        assert (ready.headers["connection"], ready.headers["x-content-type-options"]) == ("close", "nosniff")
        server.loop.call_soon_threadsafe(time.sleep, 2)
        time.sleep(0.2)
        began = time.monotonic()
        with connected(port) as asking:
            asking.sendall(b"POST /predict/feast/batch HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            for path in ("/health/live", "/health/ready?full=1"):
                assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200
            assert httpx.head(f"http://127.0.0.1:{port}/health/live").text == ""
            assert time.monotonic() - began < 1.5
            assert asking.recv(65_536).startswith(b"HTTP/1.1 4")
            assert time.monotonic() - began > 1.5


def test_what_is_no_probe_from_its_first_bytes_is_the_servers(tmp_path: Path) -> None:
    with running(tmp_path) as (_, client, port):
        # On a connection that the server has, it answers probes itself, and keeps it open.
        assert client.post("/predict/feast/batch", json={"entities": [0, 1]}).status_code == 200
        assert client.get("/health/live").headers.get("connection") != "close"
        assert client.get("/health/lively").status_code == 404
        with connected(port) as slow:
            slow.sendall(PROBE[:8])
            time.sleep(0.1)
            slow.sendall(PROBE[8:])
            assert slow.recv(65_536).startswith(b"HTTP/1.1 200")


def test_connections_that_say_nothing_are_closed_and_those_that_leave_are_let_go(tmp_path: Path) -> None:
    with running(tmp_path) as (_, client, port):
        connected(port).close()
        began = time.monotonic()
        with connected(port) as silent, connected(port) as half:
            half.shutdown(socket.SHUT_WR)
            assert half.recv(1) == b""
            assert time.monotonic() - began < SILENT_S
            assert silent.recv(1) == b""
            assert time.monotonic() - began >= SILENT_S - 0.1
        assert client.get("/health/live").status_code == 200


def test_a_process_at_the_door_that_is_killed_costs_no_connection_that_has_asked(tmp_path: Path) -> None:
    with running(tmp_path) as (server, client, port):
        assert client.post("/predict/feast/batch", json={"entities": [0]}).status_code == 200
        killed = server.until_at_the_door()
        os.kill(killed, signal.SIGKILL)
        # This connection is the server's since its first request; the next one comes while nobody stands at the door.
        assert client.post("/predict/feast/batch", json={"entities": [0]}).status_code == 200
        for path in ("/health/live", "/health/ready", "/models"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30).status_code == 200
        assert server.until_at_the_door(other_than=killed) != killed
        for path in ("/health/live", "/health/ready", "/models"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30).status_code == 200


def test_a_process_at_the_door_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.probes, "_SILENT_S", 0.8)
    with running(tmp_path) as (server, _, port):
        hung = server.until_at_the_door()
        os.kill(hung, signal.SIGSTOP)
        assert httpx.get(f"http://127.0.0.1:{port}/models", timeout=30).status_code == 200
        assert server.until_at_the_door(other_than=hung) != hung
        with pytest.raises(ProcessLookupError):
            os.kill(hung, 0)


def test_a_server_that_ends_as_it_starts_closes_its_port(tmp_path: Path) -> None:
    with running(tmp_path) as (server, _, port):
        os.kill(server.until_at_the_door(), signal.SIGKILL)
        while server.probes.is_at_the_door:
            time.sleep(0.01)
        server.should_exit = True
        deadline = time.monotonic() + 20
        while is_open(port):
            assert time.monotonic() < deadline


def test_who_stands_at_the_door_when_the_server_ends_may_still_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.connections, "LAST_REQUEST_S", 2.0)
    with running(tmp_path) as (server, _, port), connected(port) as early:
        time.sleep(0.2)  # taken, and silent
        server.should_exit = True
        while is_open(port):
            pass
        early.sendall(b"GET /models HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read_to_the_end(early).startswith(b"HTTP/1.1 200")


def test_a_server_that_takes_nothing_loses_nothing_and_keeps_no_probe_waiting() -> None:
    """More connections than the socket to the server holds; probes come behind them."""
    count = 600

    async def scenario() -> list[bytes]:
        server, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with server, ExitStack() as stack:
            door = listening("127.0.0.1", 0)
            port = door.getsockname()[1]
            porter = Porter([door], sending, Answering, 20)
            porter.start()

            def ask() -> bytes:
                for number in range(count):
                    stack.enter_context(connected(port)).sendall(b"GET /%d " % number)
                with connected(port) as probing:
                    probing.sendall(PROBE)
                    return read_to_the_end(probing)

            assert await asyncio.to_thread(ask) == b"alive"
            porter.stop()

            def take() -> list[bytes]:
                taken = []
                while True:
                    message, descriptors, _, _ = socket.recv_fds(server, 1, 1)
                    if not message:
                        return taken
                    with socket.socket(fileno=descriptors[0]) as connection:
                        taken.append(connection.recv(100))

            return await asyncio.to_thread(take)

    taken = asyncio.run(asyncio.wait_for(scenario(), 120))
    assert sorted(taken) == sorted(b"GET /%d " % number for number in range(count))


def test_silent_connections_keep_no_probe_from_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.handover, "_SILENT", 2)

    async def scenario() -> bytes:
        server, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        door = listening("127.0.0.1", 0)
        port = door.getsockname()[1]
        porter = Porter([door], sending, Answering, 20)

        def ask() -> bytes:
            with connected(port) as probing:
                probing.sendall(PROBE)
                return read_to_the_end(probing)

        with server, ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(connected(port))
            asking = asyncio.create_task(asyncio.to_thread(ask))
            await asyncio.sleep(0.2)
            porter.start()
            answer = await asking
            porter.stop()
            taken = 0
            while (await asyncio.to_thread(socket.recv_fds, server, 1, 1))[0]:
                taken += 1
            assert taken == 5
            return answer

    assert asyncio.run(asyncio.wait_for(scenario(), 60)) == b"alive"


def test_a_host_listens_on_the_addresses_that_this_machine_has() -> None:
    for host in ("127.0.0.1", "localhost"):
        listeners = listening_at(host, 0)
        assert listeners
        for listener in listeners:
            listener.close()
    with pytest.raises(SystemExit, match=r"cannot listen on nowhere\.invalid:0"):
        listening_at("nowhere.invalid", 0)


@pytest.mark.parametrize("begin", [PROBE[:15], b"GET /health/lively HTTP/1.1\r\n", b"POST /health/live HTTP/1.1\r\n"])
def test_only_whole_names_of_probes_are_answered_at_the_door(begin: bytes) -> None:
    async def scenario() -> bytes:
        server, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        door = listening("127.0.0.1", 0)
        port = door.getsockname()[1]
        porter = Porter([door], sending, asyncio.Protocol, 20)
        porter.start()
        with server, await asyncio.to_thread(connected, port) as asking:
            asking.sendall(begin)
            _, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, server, 1, 1)
            porter.stop()
            with socket.socket(fileno=descriptors[0]) as connection:
                return connection.recv(100)

    assert asyncio.run(asyncio.wait_for(scenario(), 60)) == begin
