"""Far more clients than the server can answer, some that leave, connections that say nothing, bodies that never end."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import report

from mlplatform.child_processes import free_port
from prediction_server.load import Load, load
from prediction_server.meanwhile import meanwhile
from prediction_server.servers import SECONDS, TABLE, Server, bare, bodies, ours, serving

CLIENTS, IDLE, SLOW, LEAVING = 400, 400, 50, 300
REQUESTS, LEFT = "mlplatform_http_requests_total{", 'status="499"'
LIVE, READY = "/health/live", "/health/ready"
LONGEST_PROBE_MS = 50.0
# Longer than the prediction log gathers: memory is looked at after it was written once.
WARM_UP_S = float(os.environ.get("WARM_UP_SECONDS", "12"))


def run() -> None:
    """Measure steady, overloaded and recovered; then a bare handler under the same flood: what the machine allows."""
    body, path = bodies()[TABLE], "/predict"
    seconds = float(os.environ.get("OVERLOAD_SECONDS", "30"))
    with tempfile.TemporaryDirectory() as name:
        folder, own_port = Path(name), f"http://127.0.0.1:{(port := free_port())}"
        with serving(ours(TABLE, MLPLATFORM_PROBE_PORT=str(port)), READY) as server:
            load(server.url, path, body, 16, WARM_UP_S, folder)
            # As long as the flood, because the prediction log is written in some of the seconds of both.
            with _probes(own_port, LIVE, READY) as quiet:
                steady = load(server.url, path, body, 16, seconds, folder)
            memory = server.resident_mib()
            with (
                _nuisances(server),
                _leaving(server, path, body, seconds) as left_early,
                _probes(own_port, LIVE, READY) as probes,
                _probes(server.url, LIVE, READY) as shared,
            ):
                flooded = load(server.url, path, body, CLIENTS, seconds, folder)
            began = time.perf_counter()
            after = load(server.url, path, body, 16, 1, folder)
            recovery = time.perf_counter() - began - 1.2
            time.sleep(WARM_UP_S)  # what the log still holds is written
            left, counted = server.resident_mib(), _counted(server)
        with serving(bare(TABLE), "/ready") as server:
            bare_steady = load(server.url, path, body, 16, SECONDS, folder)
            with (
                _nuisances(server),
                _leaving(server, path, body, seconds),
                _probes(server.url, "/ready") as bare_probes,
            ):
                bare_flooded = load(server.url, path, body, CLIENTS, seconds, folder)
    _report_answers(steady, flooded, after, recovery)
    case = "overload: clients that leave within their body, counted as 499"
    report("serving", case, counted, "clients", peer="all of them", peer_value=sum(left_early))
    _report_probes(probes, quiet, shared, bare_probes)
    report("serving", "memory after", left, "MiB", peer="before", peer_value=memory)
    peer = {"peer": "steady, 16 clients", "peer_value": bare_steady.p99_ms}
    report("serving", "overload of a bare handler: p99", bare_flooded.p99_ms, "ms", **peer)


def _report_answers(steady: Load, flooded: Load, after: Load, recovery: float) -> None:
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
    report("serving", "after overload: rate", after.rate, "1/s", peer="steady", peer_value=steady.rate)
    report("serving", "after overload: time to recover", recovery, "s", aim="<= 5 s", met=recovery <= 5)


def _report_probes(probes: list[float], quiet: list[float], shared: list[float], bare_probes: list[float]) -> None:
    """Report probes on their own port beside those of quiet times, and on the shared one beside the bare handler's."""
    aim = f"<= {LONGEST_PROBE_MS:g} ms"
    for where, seen, peer, peer_value in (
        ("their own port", probes, "16 clients", max(quiet)),
        ("the server's port", shared, "bare handler, same flood", max(bare_probes)),
    ):
        worst, case, met = max(seen), f"overload: slowest of the probes on {where}", max(seen) <= LONGEST_PROBE_MS
        report("serving", case, worst, "ms", peer=peer, peer_value=peer_value, aim=aim, met=met)
        median, longest = sorted(seen)[len(seen) // 2], sorted(seen)[int(len(seen) * 0.99)]
        report("serving", f"overload: median of the probes on {where}", median, "ms")
        report("serving", f"overload: p99 of the probes on {where}", longest, "ms")


@contextmanager
def _nuisances(server: Server) -> Iterator[None]:
    """Hold connections that send nothing, or a byte of a body per second."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    sockets = [socket.create_connection((host, int(port))) for _ in range(IDLE + SLOW)]
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"

    def drip(stop: threading.Event) -> None:
        for connection in sockets[IDLE:]:
            connection.sendall(head)
        while not stop.wait(1):
            for connection in sockets[IDLE:]:
                try:
                    connection.send(b"[")
                except OSError:
                    continue  # the server has had enough of it

    try:
        with meanwhile(drip):
            yield
    finally:
        for connection in sockets:
            connection.close()


@contextmanager
def _leaving(server: Server, path: str, body: bytes, seconds: float) -> Iterator[list[bool]]:
    """Have clients come one after the other, of whom every other one leaves within its body, the rest after it.

    Who leaves after it is answered like one who closed its half of the connection only. Yields, for each, whether it
    left within its body.
    """
    host, _, port = server.url.removeprefix("http://").partition(":")
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    within: list[bool] = []

    def leave(stop: threading.Event) -> None:
        while len(within) < LEAVING and not stop.wait(seconds / LEAVING):
            with socket.create_connection((host, int(port))) as connection:
                within.append(len(within) % 2 == 0)
                connection.sendall(head.encode() + (body[:-5] if within[-1] else body))

    with meanwhile(leave):
        yield within


def _counted(server: Server) -> float:
    """Return how many requests the server counted whose clients had left."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(REQUESTS) and LEFT in line)


@contextmanager
def _probes(url: str, *routes: str) -> Iterator[list[float]]:
    """Ask routes ten times a second and keep the milliseconds, the connection's own included."""
    latencies: list[float] = []

    async def ask(stop: threading.Event) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        while not stop.is_set():
            for route in routes:
                began = time.perf_counter()
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(f"GET {route} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
                await reader.read()
                latencies.append(1000 * (time.perf_counter() - began))
                writer.close()
            await asyncio.sleep(0.1)

    with meanwhile(lambda stop: asyncio.run(ask(stop))):
        yield latencies
