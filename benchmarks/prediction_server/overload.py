"""Far more clients than the server can answer, connections that say nothing, and bodies that never end."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import report

from prediction_server.load import load
from prediction_server.servers import SECONDS, TABLE, Server, bodies, ours, serving

CLIENTS, IDLE, SLOW = 400, 400, 50
LONGEST_PROBE_MS = 50.0


def run() -> None:
    """Measure steady, overloaded and recovered."""
    body, path = bodies()[TABLE], "/predict"
    seconds = float(os.environ.get("OVERLOAD_SECONDS", "30"))
    with tempfile.TemporaryDirectory() as name, serving(ours(TABLE), "/health/ready") as server:
        folder = Path(name)
        steady = load(server.url, path, body, 16, SECONDS, folder)
        memory = server.resident_mib()
        with _nuisances(server), _probes(server) as latencies:
            flooded = load(server.url, path, body, CLIENTS, seconds, folder)
        began = time.perf_counter()
        after = load(server.url, path, body, 16, 1, folder)
        recovery = time.perf_counter() - began - 1.2
        odd = sum(count for status, count in flooded.statuses.items() if status not in ("200", "429", "503"))
        total = sum(flooded.statuses.values())
        report("serving", "overload: answers other than 200, 429, 503", odd, "answers", aim="0", met=odd == 0)
        report("serving", "overload: share refused", 1 - flooded.statuses.get("200", 0) / total, "share")
        report(
            "serving",
            "overload: p99 of accepted",
            flooded.p99_ms,
            "ms",
            peer="steady, 16 clients",
            peer_value=steady.p99_ms,
            aim="<= 2 x steady",
            met=flooded.p99_ms <= 2 * steady.p99_ms,
        )
        report("serving", "overload: rate", flooded.rate, "1/s", peer="steady", peer_value=steady.rate)
        worst = max(latencies)
        aim = f"<= {LONGEST_PROBE_MS:g} ms"
        report("serving", "overload: slowest probe", worst, "ms", aim=aim, met=worst <= LONGEST_PROBE_MS)
        report("serving", "after overload: rate", after.rate, "1/s", peer="steady", peer_value=steady.rate)
        report("serving", "after overload: time to recover", recovery, "s", aim="<= 5 s", met=recovery <= 5)
        report("serving", "memory after", server.resident_mib(), "MiB", peer="before", peer_value=memory)


@contextmanager
def _nuisances(server: Server) -> Iterator[None]:
    """Hold connections that send nothing, or a byte of a body per second."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    stop = threading.Event()
    sockets = [socket.create_connection((host, int(port))) for _ in range(IDLE + SLOW)]
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"

    def drip() -> None:
        for connection in sockets[IDLE:]:
            connection.sendall(head)
        while not stop.wait(1):
            for connection in sockets[IDLE:]:
                try:
                    connection.send(b"[")
                except OSError:
                    continue  # the server has had enough of it

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        yield
    finally:
        stop.set()
        dripping.join()
        for connection in sockets:
            connection.close()


@contextmanager
def _probes(server: Server) -> Iterator[list[float]]:
    """Ask both health routes ten times a second and keep the milliseconds."""
    latencies: list[float] = []
    stop = threading.Event()

    async def ask() -> None:
        host, _, port = server.url.removeprefix("http://").partition(":")
        while not stop.is_set():
            for route in ("live", "ready"):
                reader, writer = await asyncio.open_connection(host, int(port))
                began = time.perf_counter()
                writer.write(f"GET /health/{route} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
                await reader.read()
                latencies.append(1000 * (time.perf_counter() - began))
                writer.close()
            await asyncio.sleep(0.1)

    asking = threading.Thread(target=lambda: asyncio.run(ask()))
    asking.start()
    try:
        yield latencies
    finally:
        stop.set()
        asking.join()
