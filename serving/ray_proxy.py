"""What is added to Ray Serve's HTTP proxy: requests outlive the replica of the ingress that held them.

A proxy that loses a replica answers what it held with an empty 500. Every route may be asked twice, because predictions
change nothing and a reload or push repeated is the same reload or push; so a request whose answer was not complete is
sent again, as long as what was read of it is small enough to be kept. What cannot be answered is answered in the form
that all errors have.

The proxy imports `middlewares` because its environment says so.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.connections import DOOR, answer_half_closed_clients
from serving.errors import ServingError
from serving.ray_calls import overloaded, unavailable

logger = logging.getLogger(__name__)

# What Ray Serve's proxies need in their environment so that requests outlive replicas, on whatever cluster they run.
PROXY_ENVIRONMENT = {
    # The proxy starts uvicorn itself; this is the one place where it asks what to add.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.ray_proxy.middlewares",
    # The same in HAProxy mode, where no proxy of Ray's stands before the replicas.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "5",
}
# On an answer of a server that ends; not passed on.
LAST_ANSWER = (b"x-mlplatform-ending", b"1")
# In seconds; together longer than it takes until no more requests are sent to a replica that died.
PAUSES = (0.02, 0.1, 0.2, 0.4, 0.8, 1.6)
# How long connections of a server that ends may wait for their next request, in seconds.
IDLE_S = 0.5
# Larger requests are not kept, and so not sent again.
LONGEST_KEPT_BYTES = 8 * 1024 * 1024
_OWN_ROUTES = "/-/"
# How Ray words it that a deployment has more requests waiting than it may.
_FULL = b"backpressure"


def middlewares() -> list[Any]:
    """Return what the proxy puts around itself."""
    answer_half_closed_clients()
    return [Middleware(Repeating)]


class Repeating:
    """Sends requests again whose replica died before it had answered.

    Parameters:
        app: the proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What the proxy answers itself is for Ray alone.
        if scope["type"] != "http" or scope["path"].startswith(_OWN_ROUTES):
            await self._app(scope, receive, send)
            return
        request = _KeptRequest(receive)
        for pause in (*PAUSES, None):
            answer = _Answer()
            await self._app(scope, request.from_the_start(), answer.take)
            if answer.is_complete or pause is None or not request.is_whole:
                break
            if request.has_left:
                return
            logger.warning("a replica of the ingress is gone; its request is sent again in %g s", pause)
            await asyncio.sleep(pause)
        if answer.is_last:
            DOOR.close(IDLE_S)
        for message in answer.messages_of(scope):
            await send(message)


class _KeptRequest:
    """A request that is read as it arrives, and can be read again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self._bytes = 0
        self.is_whole, self.has_left = True, False

    def from_the_start(self) -> Receive:
        """Return what reads the request from its first message on."""
        messages = iter(list(self._messages))

        async def receive() -> Message:
            for message in messages:
                return message
            message = await self._receive()
            self._keep(message)
            return message

        return receive

    def _keep(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.has_left = True
            return
        self._bytes += len(message.get("body", b""))
        if self._bytes <= LONGEST_KEPT_BYTES:
            self._messages.append(message)
        else:
            self.is_whole = False
            self._messages.clear()


class _Answer:
    """What the proxy answers; kept until it is complete, which all answers are at once."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self.is_complete = self.is_last = False

    async def take(self, message: Message) -> None:
        """Take a part of it."""
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"]]
            self.is_last = LAST_ANSWER in headers
            if self.is_last:
                headers = [header for header in headers if header != LAST_ANSWER] + [(b"connection", b"close")]
            message = {**message, "headers": headers}
        self._messages.append(message)
        self.is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)

    def messages_of(self, scope: Scope) -> list[Message]:
        """Return what the client gets: the answer, or the error that takes its place."""
        if not self.is_complete:
            return _problem(scope, unavailable())
        start, *bodies = self._messages
        # The proxy's own refusals are lines of text; those of the routes never are.
        if start["status"] in (408, 429, 503) and dict(start["headers"])[b"content-type"].startswith(b"text/plain"):
            is_full = any(_FULL in message["body"] for message in bodies)
            return _problem(scope, overloaded() if is_full else unavailable())
        return self._messages


def _problem(scope: Scope, error: ServingError) -> list[Message]:
    """Return an error as the answer to a request."""
    content = orjson.dumps(error.body())
    headers = {"content-type": "application/problem+json", "content-length": str(len(content)), **error.headers}
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    given += [(name, value) for name, value in scope["headers"] if name == b"x-request-id"]
    return [
        {"type": "http.response.start", "status": error.status, "headers": given},
        {"type": "http.response.body", "body": content},
    ]
