"""Strangers and oversized bodies are kept out."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from serving.errors import ServingError
from serving.security import BodyLimitMiddleware, require_admin


def test_the_right_token_passes() -> None:
    require_admin("Bearer secret", "secret")
    require_admin("bearer  secret ", "secret")


def test_without_a_token_on_the_server_nobody_passes() -> None:
    with pytest.raises(ServingError, match="set MLPLATFORM_ADMIN_TOKEN") as caught:
        require_admin("Bearer secret", None)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic secret", "secret", "Bearer sécret"]
)
def test_a_missing_or_wrong_token_is_refused_without_repeating_it(header: str | None) -> None:
    with pytest.raises(ServingError) as caught:
        require_admin(header, "secret")
    assert caught.value.status == 401
    assert caught.value.headers == {"www-authenticate": "Bearer"}
    assert "secret" not in caught.value.message


class Body:
    """A request body that arrives in chunks, and how much of it was taken and read."""

    def __init__(self, *chunks: bytes, declared: bytes | None = None) -> None:
        self.pending = list(chunks)
        self.headers = [] if declared is None else [(b"content-length", declared)]
        self.taken_chunks = 0
        self.read_bytes = 0

    async def receive(self) -> Message:
        self.taken_chunks += 1
        return {"type": "http.request", "body": self.pending.pop(0), "more_body": bool(self.pending)}

    async def application(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        more = True
        while more:
            message = await receive()
            self.read_bytes += len(message["body"])
            more = message["more_body"]

    async def send(self, message: Message) -> None:
        raise AssertionError(message)

    def read(self, limit: int) -> None:
        middleware = BodyLimitMiddleware(self.application, limit)
        asyncio.run(middleware({"type": "http", "headers": self.headers}, self.receive, self.send))


def test_a_body_of_exactly_the_limit_passes() -> None:
    body = Body(b"12345", b"67890", declared=b"10")
    body.read(10)
    assert body.read_bytes == 10


def test_a_declared_length_above_the_limit_is_refused_before_anything_is_read() -> None:
    body = Body(b"12345", declared=b"11")
    with pytest.raises(ServingError, match="has 11 bytes, but at most 10 are allowed") as caught:
        body.read(10)
    assert (caught.value.status, caught.value.code) == (413, "body_too_large")
    assert "MLPLATFORM_MAX_BODY_BYTES" in caught.value.message
    assert body.taken_chunks == 0


@pytest.mark.parametrize("declared", [None, b"-5"])
def test_a_body_without_a_usable_length_is_refused_at_the_chunk_that_goes_over(declared: bytes | None) -> None:
    body = Body(b"12345", b"67890", b"1", b"2", declared=declared)
    with pytest.raises(ServingError, match="has more than 10 bytes"):
        body.read(10)
    assert body.taken_chunks == 3
