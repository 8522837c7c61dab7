"""Connections whose client says nothing, and those whose client has said all it wants to say and waits for the answer.

uvicorn waits for a request's head for ever; here a connection that does not say what it wants is closed.

A client may close its half of a connection once its request is sent (`shutdown(SHUT_WR)`, `nc -N`, some HTTP/1.0
libraries). uvicorn takes the end of what it reads for the end of the connection and throws the answer away; here the
answer is written first. A client that is gone altogether looks the same until something is written to it, so its
request is answered into the void; one that leaves before its request is complete is gone at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    import uvicorn

# What nginx made the custom: the client closed the connection. Nobody reads it but log and metrics.
CLIENT_LEFT = 499
HEAD_DEADLINE_S = 15.0
PROTOCOL = "PatientHTTPProtocol"
# How long a connection without a request stays open when the server ends: one may be on its way.
LAST_REQUEST_S = 0.2


def http_protocol(head_deadline_s: float = HEAD_DEADLINE_S) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol, with deadlines for heads, answering clients that have closed their half.

    Parameters:
        head_deadline_s: longest time from a connection's begin, or the first byte of a later request, until a
            request's head is complete, in seconds.
    """
    from uvicorn.protocols.http import auto

    return type(PROTOCOL, (_PatientProtocol, auto.AutoHTTPProtocol), {"head_deadline_s": head_deadline_s})


def protocol_of(server: uvicorn.Server, app_state: dict[str, Any]) -> asyncio.Protocol:
    """Return what answers one more connection of a server, as uvicorn makes it for those that it takes itself.

    Parameters:
        app_state: what the application's lifespan has kept.
    """
    return server.config.http_protocol_class(  # type: ignore[call-arg] # of uvicorn's protocols
        config=server.config, server_state=server.server_state, app_state=app_state
    )


def answer_half_closed_clients() -> None:
    """Have every uvicorn server that this process starts from now on use `http_protocol`."""
    from uvicorn.protocols.http import auto

    if auto.AutoHTTPProtocol.__name__ != PROTOCOL:
        auto.AutoHTTPProtocol = http_protocol()


class Door:
    """Where connections of a process come in, for servers that do not let go of their sockets."""

    def __init__(self) -> None:
        self.is_open = True
        self.inside: WeakSet[Any] = WeakSet()

    def close(self, idle_s: float) -> None:
        """Take no more connections; those that are in are closed with their next answer, or later if there is none.

        Parameters:
            idle_s: how long a connection may wait for its next request, in seconds. One that is closed at once could
                have that on its way.
        """
        if self.is_open:
            self.is_open = False
            asyncio.get_running_loop().call_later(idle_s, self._end)

    def _end(self) -> None:
        for protocol in list(self.inside):
            protocol.shutdown()


DOOR = Door()


class _PatientProtocol:
    """What is added to uvicorn's protocol, whichever of its parsers that uses."""

    head_deadline_s: float
    # Of uvicorn: the last request whose head has arrived, and the connection.
    cycle: Any
    transport: asyncio.Transport
    _deadline: asyncio.TimerHandle | None = None
    _is_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)  # type: ignore[misc] # of uvicorn's class beside this one
        if not DOOR.is_open:
            transport.abort()
            return
        DOOR.inside.add(self)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # type: ignore[misc]
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_deadline()
            if self._is_ending:
                self.cycle.keep_alive = False
        elif self._deadline is None:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)  # type: ignore[misc]

    def eof_received(self) -> bool:
        """Return whether the connection stays open for the answer; called when the client has closed its half."""
        # The last request that arrived; those before it, if the client sent several at once, are answered first.
        request = self.cycle
        if request is None or request.response_complete or request.more_body:
            return False
        request.keep_alive = False
        return True

    def shutdown(self) -> None:
        """Close once what is asked, or just being asked, is answered; called when the server ends."""
        if self._is_ending or (self.cycle is not None and not self.cycle.response_complete):
            super().shutdown()  # type: ignore[misc]
            return
        self._is_ending = True
        asyncio.get_running_loop().call_later(LAST_REQUEST_S, self.shutdown)

    def _expect_head(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self.head_deadline_s, self.transport.close)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
