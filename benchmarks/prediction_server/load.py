"""The load generator, a process of its own: closed-loop clients, each with one connection and one request in flight.

Run as `python load.py <url> <path> <body file> <clients> <seconds>`; prints rate, latencies and statuses as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

WARM_UP_SHARE = 0.2


@dataclass(frozen=True)
class Load:
    """What clients saw.

    Attributes:
        rate: successful answers per second.
        p50_ms, p99_ms: latency of successful answers.
        statuses: how many answers had which status; 0 for a connection that broke.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]


def load(url: str, path: str, body: bytes, clients: int, seconds: float, folder: Path) -> Load:
    """Run the generator in a process of its own and return what its clients saw."""
    file = folder / "body.json"
    file.write_bytes(body)
    command = [sys.executable, __file__, url, path, str(file), str(clients), str(seconds)]
    return Load(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Generate load and print what was seen."""
    import uvloop

    url, path, file, clients, seconds = sys.argv[1:]
    print(json.dumps(uvloop.run(_load(url, path, Path(file).read_bytes(), int(clients), float(seconds)))))


async def _load(url: str, path: str, body: bytes, clients: int, seconds: float) -> dict[str, object]:
    host, _, port = url.removeprefix("http://").partition(":")
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    begin = time.perf_counter() + WARM_UP_SHARE * seconds
    end = begin + seconds
    seen = await asyncio.gather(*(_client(host, int(port), request, begin, end) for _ in range(clients)))
    latencies = sorted(latency for client in seen for status, latency in client if status == 200)
    statuses = Counter(str(status) for client in seen for status, _ in client)
    return {
        "rate": len(latencies) / seconds,
        "p50_ms": 1000 * latencies[len(latencies) // 2] if latencies else 0.0,
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)] if latencies else 0.0,
        "statuses": statuses,
    }


async def _client(host: str, port: int, request: bytes, begin: float, end: float) -> list[tuple[int, float]]:
    answers: list[tuple[int, float]] = []
    while time.perf_counter() < end:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            try:
                await _ask(reader, writer, request, begin, end, answers)
            finally:
                writer.close()
        except (OSError, asyncio.IncompleteReadError):
            answers.append((0, 0.0))
            await asyncio.sleep(0.01)
    return answers


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: bytes,
    begin: float,
    end: float,
    answers: list[tuple[int, float]],
) -> None:
    while (started := time.perf_counter()) < end:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        now = time.perf_counter()
        if started >= begin:
            answers.append((int(head.split(b" ", 2)[1]), now - started))
        if b"connection: close" in head.lower():
            return


if __name__ == "__main__":
    main()
