"""Connections whose client has said all it wants to say, and waits for the answer.

A client may close its half of a connection once its request is sent (`shutdown(SHUT_WR)`, `nc -N`, some HTTP/1.0
libraries). uvicorn takes the end of what it reads for the end of the connection and throws the answer away; here the
answer is written first. A client that is gone altogether looks the same until something is written to it, so its
request is answered into the void; one that leaves before its request is complete is gone at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

# What nginx made the custom: the client closed the connection. Nobody reads it but log and metrics.
CLIENT_LEFT = 499


def http_protocol() -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol, answering clients that have closed their half of the connection."""
    from uvicorn.protocols.http import auto

    return type("HalfCloseProtocol", (auto.AutoHTTPProtocol,), {"eof_received": _eof_received})


def answer_half_closed_clients() -> list[Any]:
    """Have every uvicorn server that this process starts from now on use `http_protocol`.

    For Ray Serve's HTTP proxy, which starts uvicorn itself and calls this first, expecting a list of middlewares.
    """
    from uvicorn.protocols.http import auto

    if auto.AutoHTTPProtocol.__name__ != "HalfCloseProtocol":
        auto.AutoHTTPProtocol = http_protocol()
    return []


def _eof_received(protocol: Any) -> bool:
    """Return whether the connection stays open for the answer; called when the client has closed its half."""
    # The last request that arrived; those before it, if the client sent several at once, are answered first.
    request = protocol.cycle
    if request is None or request.response_complete or request.more_body:
        return False
    request.keep_alive = False
    return True
