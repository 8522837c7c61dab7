"""What keeps strangers and oversized requests out: the admin token and the limit on request bodies."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ServingError, body_too_large


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
