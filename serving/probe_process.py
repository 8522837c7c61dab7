"""The process that answers probes: it computes nothing, so that it is never busy, whatever the server does.

Started by `serving.probes`, never by hand. Both talk over one socket, line by line in JSON. The server's first line
says what never changes (`Sayings`); each later one is its word on whether it is ready, which it gives once per
question. The end of the socket is the end of the server, and so of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from serving.connections import http_protocol

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

LIVE, READY = "/health/live", "/health/ready"
# What stands for the seconds of silence in the body of `Sayings.hung`.
SECONDS = "@seconds@"
QUESTION = b"?\n"
# How long the server's word is waited for.
PATIENCE_S = 0.01
_CONNECTIONS = 256
_LONGEST_STOP_S = 1
# Of a line over the socket.
_LONGEST_BYTES = 2**20


class Saying(NamedTuple):
    """One answer, as it is sent."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> Saying:
        """Rebuild an answer from what JSON makes of it."""
        status, headers, body = values
        return cls(status, [(name, value) for name, value in headers], body)


class Sayings(NamedTuple):
    """What is answered whatever the server is doing.

    Attributes:
        live: the server runs.
        starting: it has not said yet whether it is ready.
        hung: it has said nothing for longer than `hung_s`; its body has `SECONDS` for how long.
        unknown: there is no such route.
        hung_s: how long the server may say nothing until it counts as hanging, in seconds.
        head_deadline_s: as in `http_protocol`.
    """

    live: Saying
    starting: Saying
    hung: Saying
    unknown: Saying
    hung_s: float
    head_deadline_s: float

    @classmethod
    def from_json(cls, line: bytes) -> Sayings:
        """Rebuild them from the server's first line."""
        *answers, hung_s, head_deadline_s = json.loads(line)
        live, starting, hung, unknown = map(Saying.from_json, answers)
        return cls(live, starting, hung, unknown, hung_s, head_deadline_s)


class Relay:
    """Answers probes with the latest word of the server.

    Parameters:
        reader, writer: the socket to it.
    """

    def __init__(self, sayings: Sayings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sayings, self._reader, self._writer = sayings, reader, writer
        self._word = sayings.starting
        self._asked: asyncio.Future[None] | None = None
        # Since when the server has been asked.
        self._since = 0.0

    async def follow(self) -> None:
        """Take down every word of the server, until it is gone."""
        while line := await self._reader.readline():
            self._word = Saying.from_json(json.loads(line))
            if self._asked is not None:
                self._asked.set_result(None)
                self._asked = None

    async def answer(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        found = await self._found(scope["method"], scope["path"])
        body = found.body.encode()
        headers = [*found.headers, ("content-length", str(len(body)))]
        start: Message = {
            "type": "http.response.start",
            "status": found.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def _found(self, method: str, path: str) -> Saying:
        if method not in ("GET", "HEAD") or path not in (LIVE, READY):
            return self._sayings.unknown
        silent_s = await self._listen()
        if silent_s > self._sayings.hung_s:
            hung = self._sayings.hung
            return hung._replace(body=hung.body.replace(SECONDS, f"{silent_s:.0f}"))
        return self._sayings.live if path == LIVE else self._word

    async def _listen(self) -> float:
        """Ask the server whether it is ready, wait a moment for its word, and return how long it says nothing."""
        if self._asked is None:
            self._asked, self._since = asyncio.get_running_loop().create_future(), time.monotonic()
            self._writer.write(QUESTION)
        asked, since = self._asked, self._since
        await asyncio.wait([asked], timeout=PATIENCE_S)
        return 0.0 if asked.done() else time.monotonic() - since


async def serve(listener: socket.socket, channel: socket.socket) -> None:
    """Answer probes until the server is gone."""
    import uvicorn

    reader, writer = await asyncio.open_connection(sock=channel, limit=_LONGEST_BYTES)
    first = await reader.readline()
    if not first:
        return
    sayings = Sayings.from_json(first)
    relay = Relay(sayings, reader, writer)
    config = uvicorn.Config(
        relay.answer,
        interface="asgi3",
        proxy_headers=False,
        access_log=False,
        log_config=None,
        lifespan="off",
        http=http_protocol(sayings.head_deadline_s),
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_LONGEST_STOP_S,
    )
    server = uvicorn.Server(config)

    async def until_alone() -> None:
        await relay.follow()
        server.should_exit = True

    following = asyncio.create_task(until_alone())
    gc.collect()
    gc.freeze()
    await server.serve(sockets=[listener])
    following.cancel()


def main(argv: Sequence[str] | None = None) -> None:
    """Answer probes on a listening socket that was handed down."""
    parser = argparse.ArgumentParser(description="Probes of a server, answered beside it.")
    parser.add_argument("--listener", type=int, required=True, help="descriptor of the listening socket")
    parser.add_argument("--channel", type=int, required=True, help="descriptor of the socket to the server")
    asked = parser.parse_args(argv)
    asyncio.run(serve(socket.socket(fileno=asked.listener), socket.socket(fileno=asked.channel)))


if __name__ == "__main__":
    main()
