"""The process that answers probes: it computes nothing, so that it is never busy, whatever the server does.

Started by `serving.probes`, never by hand. Both talk over one socket, line by line. The server's first line, in JSON as
all of its own, says what never changes (`Sayings`); each later one is its word on whether it is ready, which it gives
once at first and then once per question, or `null`, which tells the process to take no more connections of the server's
port. The end of the socket is the end of the server, and so of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import override

from serving.connections import http_protocol, protocol_of
from serving.handover import LIVE, READY, Porter
from serving.ports import allow_many_connections

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import Message, Receive, Scope, Send

# What stands for the seconds of silence in the body of `Sayings.hung`.
SECONDS = "@seconds@"
# What this process says: a question for the server's word, that it takes the connections of the server's port, and,
# every so many seconds, that it lives.
QUESTION, AT_THE_DOOR, ALIVE = b"?\n", b"!\n", b".\n"
ALIVE_S = 1.0
# How long the server's word is waited for.
PATIENCE_S = 0.01
_CONNECTIONS = 1024
# Probes are short: who takes longer than this to say one takes the place of others.
_HEAD_S = 2.0
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
        hung: it has said nothing for longer than `hung_s`; its body has `SECONDS` for how long.
        unknown: there is no such route.
        hung_s: how long the server may say nothing until it counts as hanging, in seconds.
        head_deadline_s: as in `http_protocol`.
    """

    live: Saying
    hung: Saying
    unknown: Saying
    hung_s: float
    head_deadline_s: float

    @classmethod
    def from_json(cls, line: bytes) -> Sayings:
        """Rebuild them from the server's first line."""
        *answers, hung_s, head_deadline_s = json.loads(line)
        live, hung, unknown = map(Saying.from_json, answers)
        return cls(live, hung, unknown, hung_s, head_deadline_s)


class Relay:
    """Answers probes with the latest word of the server.

    Parameters:
        word: the first one.
        reader, writer: the socket to it.
    """

    def __init__(
        self, sayings: Sayings, word: Saying, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._sayings, self._reader, self._writer = sayings, reader, writer
        self._word = word
        self._asked: asyncio.Future[None] | None = None
        # Since when the server has been asked.
        self._since = 0.0

    async def follow(self, take_no_more: Callable[[], None]) -> None:
        """Take down every word of the server, until it is gone; and do as it says."""
        while line := await self._reader.readline():
            told = json.loads(line)
            if told is None:
                take_no_more()
                continue
            self._word = Saying.from_json(told)
            if self._asked is not None:
                self._asked.set_result(None)
                self._asked = None

    async def answer(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        found = await self._found(scope["method"], scope["path"])
        body = found.body.encode()
        # Whatever else the client may ask on this connection is not for this process.
        headers = [*found.headers, ("content-length", str(len(body))), ("connection", "close")]
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


def _server_class() -> type[uvicorn.Server]:
    """Return uvicorn's server, but for signals: how long this process lives is said over the channel alone."""
    import uvicorn

    class Beside(uvicorn.Server):
        @override
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            pass

    return Beside


async def serve(
    channel: socket.socket,
    listener: socket.socket | None = None,
    doors: Sequence[socket.socket] = (),
    handover: socket.socket | None = None,
) -> None:
    """Answer probes until the server is gone.

    Parameters:
        channel: to the server.
        listener: of a port for probes alone.
        doors: listening sockets of the server's port.
        handover: over which the server gets all of their connections that are no probes.
    """
    import uvicorn

    reader, writer = await asyncio.open_connection(sock=channel, limit=_LONGEST_BYTES)
    first, word = await reader.readline(), await reader.readline()
    if not word:
        return
    sayings = Sayings.from_json(first)
    relay = Relay(sayings, Saying.from_json(json.loads(word)), reader, writer)
    config = uvicorn.Config(
        relay.answer,
        interface="asgi3",
        proxy_headers=False,
        access_log=False,
        log_config=None,
        lifespan="off",
        http=http_protocol(min(_HEAD_S, sayings.head_deadline_s)),
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_LONGEST_STOP_S,
    )
    config.load()
    server = _server_class()(config)

    porter = None
    if handover is not None:
        porter = Porter(doors, handover, partial(protocol_of, server, {}), sayings.head_deadline_s)

    async def until_alone() -> None:
        take_no_more = porter.stop if porter is not None else lambda: None
        try:
            # A server that dies with a question unread resets the socket.
            with contextlib.suppress(ConnectionError):
                await relay.follow(take_no_more)
        finally:
            # At once, so that the server's successor can have the port.
            take_no_more()
            server.should_exit = True

    async def say_so() -> None:
        while True:
            writer.write(ALIVE)
            await asyncio.sleep(ALIVE_S)

    beside = [asyncio.create_task(until_alone()), asyncio.create_task(say_so())]
    gc.collect()
    gc.freeze()
    if porter is not None:
        # In this order, so that whatever is handed over comes after the word that it will be.
        writer.write(AT_THE_DOOR)
        porter.start()
    await server.serve(sockets=[] if listener is None else [listener])
    for task in beside:
        task.cancel()


def main(argv: Sequence[str] | None = None) -> None:
    """Answer probes on listening sockets that were handed down."""
    parser = argparse.ArgumentParser(description="Probes of a server, answered beside it.")
    parser.add_argument("--channel", type=int, required=True, help="descriptor of the socket to the server")
    parser.add_argument("--listener", type=int, help="descriptor of the listening socket for probes alone")
    text = "descriptors of the listening sockets of the server's port"
    parser.add_argument("--doors", type=int, nargs="*", default=[], help=text)
    text = "descriptor of the socket over which their connections are handed over"
    parser.add_argument("--handover", type=int, help=text)
    asked = parser.parse_args(argv)
    allow_many_connections()
    channel, *doors = (socket.socket(fileno=descriptor) for descriptor in (asked.channel, *asked.doors))
    listener, handover = (
        None if descriptor is None else socket.socket(fileno=descriptor)
        for descriptor in (asked.listener, asked.handover)
    )
    asyncio.run(serve(channel, listener, doors, handover))


if __name__ == "__main__":
    main()
