"""What keeps strangers and oversized requests out: the admin token and the limit on request bodies."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ServingError, body_too_large

# What probes and scrapers ask, which seldom can bring a token, and what says nothing about the data.
_OPEN_PATHS = frozenset(
    {
        "/",
        "/health/live",
        "/health/ready",
        "/health",
        "/ping",
        "/version",
        "/metrics",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
_ADMIN = "/admin/"
# The script and the style of the server's page, which asks for the token itself.
_PAGE = "/page/"
# On every answer: it is data for the one who asked, and nothing that a browser should guess the type of, or show in a
# page of another site.
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


def is_open(path: str) -> bool:
    """Return whether a path is answered without a token, or asks for the admin token by itself."""
    return path in _OPEN_PATHS or path.startswith((_ADMIN, _PAGE))


def require_admin(authorization: str | None, token: str | None) -> None:
    """Let a request to an admin route pass only with the right bearer token.

    Parameters:
        authorization: the request's `Authorization` header.
        token: the server's token; `None` closes the admin routes.

    Raises:
        ServingError: 403 if the server has no token, 401 if the request's token is missing or wrong.
    """
    if token is None:
        raise ServingError(
            403, "admin_closed", "admin routes are closed: set MLPLATFORM_ADMIN_TOKEN on the server and restart it"
        )
    scheme, _, given = (authorization or "").partition(" ")
    # compare_digest takes as long for a wrong token as for the right one, so its time says nothing about the token.
    matches = hmac.compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not matches:
        raise ServingError(
            401,
            "unauthorized",
            "the admin token is missing or wrong: send the header 'Authorization: Bearer <MLPLATFORM_ADMIN_TOKEN>'",
            headers={"www-authenticate": "Bearer"},
        )


class TokenMiddleware:
    """Lets requests pass only with a token, but for probes, metrics and what asks for the admin token itself.

    Parameters:
        tokens: any of which will do; the admin token is always among them.
        refuse: answers a request without one.
    """

    def __init__(
        self, app: ASGIApp, tokens: Sequence[str], refuse: Callable[[Request, Exception], Awaitable[Response]]
    ) -> None:
        self.app = app
        self._tokens = [token.encode() for token in tokens]
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]) or self._has_token(scope):
            await self.app(scope, receive, send)
            return
        error = ServingError(
            401,
            "unauthorized",
            "the token is missing or wrong: send the header 'Authorization: Bearer <one of MLPLATFORM_API_TOKENS>'",
            headers={"www-authenticate": "Bearer"},
        )
        response = await self._refuse(Request(scope, receive), error)
        await response(scope, receive, send)

    def _has_token(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        # All are compared, so that the time says nothing about which one came close.
        matches = [hmac.compare_digest(token.strip(), known) for known in self._tokens]
        return scheme.lower() == b"bearer" and any(matches)


class BodyLimitMiddleware:
    """Refuses request bodies above a limit while they arrive, so that a large body is never held in memory.

    A declared `Content-Length` above the limit is refused before anything is read; a body without one (chunked) is
    counted chunk by chunk. The refusal is a `ServingError` raised where the application reads its body, and answered
    like any other.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        too_long = declared.isdigit() and int(declared) > self.max_bytes
        received = 0

        async def limited() -> Message:
            nonlocal received
            if too_long:
                raise body_too_large(f"{int(declared)} bytes", self.max_bytes)
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.max_bytes:
                    raise body_too_large(f"more than {self.max_bytes} bytes", self.max_bytes)
            return message

        await self.app(scope, limited, send)
