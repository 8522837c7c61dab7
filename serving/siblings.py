"""What one worker of a server asks of the others: to reload, and to tell their metrics.

Requests for these come to any one worker, but are meant for the server. Each listens on a Unix socket in a folder that
nobody else may enter.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

SOCKET = "worker-{}.sock"
ENDED = "ended.prom"
BUCKETS = "buckets"
# A query that says: of this worker alone. Who sends it from outside learns of one worker instead of all.
ONE = "only=this"
# Metrics are there at once; loading a pair may take its time.
SCRAPE_S, RELOAD_S = 2.0, 60.0


@dataclass(frozen=True)
class Answered:
    """What a worker answered."""

    status: int
    body: bytes


class Siblings:
    """The other workers of a server.

    Parameters:
        folder: holds the socket of every worker, and what the supervisor kept of those that ended.
        index: that of this worker.

    Attributes:
        table: file in which they count how often clients ask.
    """

    def __init__(self, folder: Path, index: int) -> None:
        self._folder, self._own = folder, folder / SOCKET.format(index)
        self.table = folder / BUCKETS

    async def pages(self) -> list[bytes]:
        """Return the metrics of the others; one that does not answer in time is left out."""
        answers = await self._all("GET", "/metrics", SCRAPE_S, {})
        return [answer.body for answer in answers if answer.status == 200]

    def ended(self) -> bytes:
        """Return what is kept of the metrics of workers that ended."""
        try:
            return (self._folder / ENDED).read_bytes()
        except FileNotFoundError:
            return b""

    async def reload(self, path: str, authorization: str) -> list[Answered]:
        """Have the others reload and return their answers; one that is gone has none."""
        return await self._all("POST", path, RELOAD_S, {"authorization": authorization})

    async def _all(self, method: str, path: str, patience_s: float, headers: dict[str, str]) -> list[Answered]:
        places = [place for place in sorted(self._folder.glob(SOCKET.format("*"))) if place != self._own]
        asked = [ask(place, method, path, patience_s, headers) for place in places]
        return [answer for answer in await asyncio.gather(*asked) if answer is not None]


async def ask(
    socket: Path, method: str, path: str, patience_s: float, headers: dict[str, str] | None = None
) -> Answered | None:
    """Return what the worker behind a socket answers for itself; `None` if it does not in time."""
    lines = [f"{method} {path}?{ONE} HTTP/1.1", "host: worker", "connection: close", "content-length: 0"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
                head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            finally:
                writer.close()
        return Answered(int(head.split(b" ", 2)[1]), body)
    except (OSError, TimeoutError, IndexError, ValueError) as error:
        logger.debug("%s does not answer: %r", socket.name, error)
        return None
