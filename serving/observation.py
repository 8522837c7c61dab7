"""What is noted about every request: an id, a count, a time, and a line in the access log."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import re
import secrets
import time
from dataclasses import dataclass

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.connections import CLIENT_LEFT
from serving.metrics import ServingMetrics
from serving.security import SECURITY_HEADERS

access_logger = logging.getLogger("serving.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Ids of requests are unique: 80 random bits for the process, and a number in it.
_PROCESS_ID = secrets.token_hex(10)
_numbers = itertools.count()


@dataclass
class ServerState:
    """What the process that serves an application tells it.

    Attributes:
        is_draining: whether the server is about to end, so that nobody should send it anything more.
    """

    is_draining: bool = False


class ObservationMiddleware:
    """Gives every request an id, counts and times it.

    Parameters:
        state: says whether the server is about to end; answers then say that their connection closes.
        is_request_id_answered: whether answers carry `x-request-id`.
        logged_share: share of requests that get a line in the access log, without bodies, queries or headers; requests
            that the server failed all get one.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ServingMetrics,
        state: ServerState,
        *,
        is_request_id_answered: bool,
        logged_share: float,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.state = state
        self.is_request_id_answered = is_request_id_answered
        self.logged_share = logged_share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status: int | None = None
        is_whole = is_observed = False

        async def followed() -> Message:
            nonlocal is_whole
            message = await receive()
            is_whole = message["type"] == "http.request" and not message.get("more_body", False)
            return message

        async def observed(message: Message) -> None:
            nonlocal status, is_observed
            if message["type"] == "http.response.start":
                # Asked only once all was read: asking for more would have the server wave the rest of a body through.
                has_left = is_whole and _has_left(receive)
                status = CLIENT_LEFT if has_left else message["status"]
                headers = [*message.get("headers", []), *SECURITY_HEADERS]
                if self.is_request_id_answered:
                    headers.append((b"x-request-id", request_id.encode()))
                if self.state.is_draining:
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            elif message["type"] == "http.response.body" and not message.get("more_body") and status is not None:
                # Before the last byte leaves, so that a client that has its answer also finds it counted.
                is_observed = True
                self._observe(scope, status, request_id, time.perf_counter() - started)
            await send(message)

        try:
            await self.app(scope, followed, observed)
        except asyncio.CancelledError:
            # How Ray Serve's proxy tells that the client has left.
            self._observe(scope, CLIENT_LEFT, request_id, time.perf_counter() - started)
            raise
        except Exception:
            if not is_observed:
                self._observe(scope, 500, request_id, time.perf_counter() - started)
                raise
            # The framework answers an unexpected failure and raises it all the same, which would cost the connection.

    def _observe(self, scope: Scope, status: int, request_id: str, seconds: float) -> None:
        # The template, not the path: paths are endless and may hold what does not belong into a log.
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.observe_request(scope["method"], route, status, seconds)
        state = scope["state"]
        if "rejection" in state:
            self.metrics.observe_rejection(state.get("experiment", ""), state["rejection"])
        if status < 500 and random.random() >= self.logged_share:  # noqa: S311 - no secret
            return
        line = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 2),
            "request_id": request_id,
        }
        access_logger.info("%s", orjson.dumps(line).decode())


def _has_left(receive: Receive) -> bool:
    """Return whether the client of a request whose body was read is gone, without waiting for it to go."""
    asking = receive()
    try:
        # A step of the coroutine by hand: a task of its own would cost more than all else that observes a request.
        asking.send(None)  # type: ignore[attr-defined] # ASGI promises an awaitable; ours is a coroutine
    except StopIteration as told:
        return bool(told.value["type"] == "http.disconnect")
    asking.close()  # type: ignore[attr-defined]
    return False


def _request_id(scope: Scope) -> str:
    """Return the client's request id if it is harmless, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else f"{_PROCESS_ID}{next(_numbers):012x}"
