"""Probes on a port of their own, answered by a thread of its own.

New connections wait in one queue, requests in another, and on the server's own port a probe stands at the end of both:
four hundred clients that come in one moment are four hundred connections before it. Here it meets only other probes.

What is ready is decided where predictions are answered. Asked from here, that has a few milliseconds for its word; of
an event loop that is busy the word before counts, and one that says nothing for long is neither ready nor live.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time

import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from serving.answers import to_json
from serving.bodies import JSON, PROBLEM
from serving.connections import http_protocol
from serving.entrance import Inside, ask_inside
from serving.errors import ServingError
from serving.security import SECURITY_HEADERS

logger = logging.getLogger(__name__)

LIVE, READY = "/health/live", "/health/ready"
# How long the word of the event loop is waited for, and how long it may say nothing until it counts as hanging.
PATIENCE_S = 0.02
HUNG_S = 30.0
_CONNECTIONS = 256
_LONGEST_STOP_S = 2


class Probes:
    """Answers `/health/live` and `/health/ready` of an application from another thread.

    Parameters:
        app: the application; its routes are asked in its own event loop.
        listener: the port's listening socket.
        loop: the event loop of the application.
        head_deadline_s: as in `http_protocol`.
    """

    def __init__(
        self, app: FastAPI, listener: socket.socket, loop: asyncio.AbstractEventLoop, head_deadline_s: float
    ) -> None:
        self._app, self._listener, self._loop = app, listener, loop
        self._word: Inside | None = None
        self._asked: asyncio.Future[Inside] | None = None
        # Since when the event loop has been asked.
        self._since = 0.0
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            lifespan="off",
            http=http_protocol(head_deadline_s),
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=_LONGEST_STOP_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="probes", daemon=True)

    def start(self) -> None:
        """Begin to answer; returns at once."""
        self._thread.start()
        logger.info("probes are answered on port %d too", self._listener.getsockname()[1])

    async def stop(self) -> None:
        """Stop answering."""
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join, 2 * _LONGEST_STOP_S)

    async def _answer(self, scope: Scope, _: Receive, send: Send) -> None:
        found = await self._found(scope["method"], scope["path"])
        own = [(b"content-type", found.media_type.encode()), (b"content-length", str(len(found.body)).encode())]
        start: Message = {
            "type": "http.response.start",
            "status": found.status,
            "headers": [*own, *SECURITY_HEADERS],
        }
        await send(start)
        await send({"type": "http.response.body", "body": found.body})

    async def _found(self, method: str, path: str) -> Inside:
        if method not in ("GET", "HEAD") or path not in (LIVE, READY):
            message = f"only GET {LIVE} and {READY} are answered on this port"
            return _refused(ServingError(404, "no_such_route", message))
        if path == READY and self._app.state.server.is_draining:
            return _refused(ServingError(503, "not_ready", "the server is about to stop"))
        silent_s = await self._listen()
        if silent_s > HUNG_S:
            return _refused(ServingError(503, "not_ready", f"the event loop has been busy for {silent_s:.0f} s"))
        if path == LIVE:
            return Inside(200, to_json({"status": "live"}), JSON)
        return self._word or _refused(ServingError(503, "not_ready", "the server is starting"))

    async def _listen(self) -> float:
        """Ask the application whether it is ready, wait a moment for its word, and return how long it says nothing."""
        if self._asked is None:
            asking = asyncio.run_coroutine_threadsafe(ask_inside(self._app, READY), self._loop)
            self._asked, self._since = asyncio.wrap_future(asking), time.monotonic()
        asked = self._asked
        await asyncio.wait([asked], timeout=PATIENCE_S)
        if not asked.done():
            return time.monotonic() - self._since
        if self._asked is asked:
            self._asked = None
        if not asked.cancelled() and asked.exception() is None:
            self._word = asked.result()
        return 0.0


def _refused(error: ServingError) -> Inside:
    return Inside(error.status, to_json(error.body()), PROBLEM)
