"""Strangers and oversized bodies are kept out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.errors import ServingError
from serving.local import LocalBackend
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


@pytest.fixture(scope="module")
def guarded(platform: Platform) -> Iterator[httpx.Client]:
    """A server that asks for tokens."""
    settings = platform.serving("tiny_forecast", api_tokens=("first", "second"))
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        yield client


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer", 401),
        ("Basic first", 401),
        ("Bearer first", 200),
        ("bearer second", 200),
        (f"Bearer {TOKEN}", 200),
    ],
)
def test_with_tokens_on_the_server_predictions_need_one(
    guarded: httpx.Client, platform: Platform, authorization: str | None, status: int
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    for path in ("/predict", "/models/tiny_forecast/predict"):
        answer = guarded.post(path, json={"rows": platform.rows()}, headers=headers)
        assert answer.status_code == status, answer.text
    assert guarded.get("/models", headers=headers).status_code == status
    assert guarded.post("/invocations", json={}, headers=headers).status_code == (401 if status == 401 else 400)
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "unauthorized"
        assert "first" not in answer.text


def test_probes_and_metrics_need_no_token_and_reloads_need_that_of_the_admin(guarded: httpx.Client) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/v2/health/live", "/ping"):
        assert guarded.get(path).status_code == 200, path
    assert guarded.post("/admin/reload", headers={"authorization": "Bearer first"}).status_code == 401
    assert guarded.post("/admin/reload", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_every_answer_has_the_headers_that_keep_browsers_honest(guarded: httpx.Client) -> None:
    for answer in (guarded.get("/health/live"), guarded.get("/models"), guarded.get("/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
