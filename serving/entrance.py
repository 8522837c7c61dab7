"""The application, with an entrance of plain ASGI callables before the framework.

What every request passes costs least outside of the framework's own chain; and a request that is refused, or answered
on the short road, never gets into that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override


class Application(FastAPI):
    """An application that requests enter by what `enter_by` was given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._entrance: ASGIApp = partial(FastAPI.__call__, self)

    def enter_by(self, wrap: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put something before all there is so far; what is put last sees a request first."""
        self._entrance = wrap(self._entrance)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._entrance(scope, receive, send)


class Inside(NamedTuple):
    """What an application answered to its own process."""

    status: int
    body: bytes
    media_type: str


async def ask_inside(app: ASGIApp, path: str) -> Inside:
    """Return what an application answers to GET, asked from inside of the process."""
    parts: list[bytes] = []
    status, media_type = 500, ""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, media_type
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", []))
            status, media_type = message["status"], headers.get(b"content-type", b"").decode()
        parts.append(message.get("body", b""))

    headers: list[tuple[bytes, bytes]] = []
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers, "root_path": ""}
    await app(scope, receive, send)
    return Inside(status, b"".join(parts), media_type)
