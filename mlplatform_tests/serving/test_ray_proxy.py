"""What is added to Ray's proxy: requests are sent again, refusals have the errors' form, and the door closes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serving import ray_proxy
from serving.connections import Door
from serving.ray_proxy import LAST_ANSWER, LONGEST_KEPT_BYTES, Repeating

Proxy = Callable[[Scope, Receive, Send], Any]
PARTS = [b'{"entities": ', b"[1]}"]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_proxy, "PAUSES", (0.0, 0.0))


class DyingProxy:
    """Reads the whole request and dies with it a few times, then answers."""

    def __init__(self, deaths: int, answer: tuple[int, list[tuple[bytes, bytes]], bytes] = (200, [], b"ok")) -> None:
        self.deaths, self.answer = deaths, answer
        self.bodies: list[bytes] = []

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message.get("more_body", False)
        self.bodies.append(body)
        if len(self.bodies) <= self.deaths:
            # Half an answer, as a replica leaves it that dies while it writes.
            await send({"type": "http.response.start", "status": 200, "headers": []})
            return
        status, headers, content = self.answer
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def ask(proxy: Proxy, parts: list[bytes] | None = None, *, leaves: bool = False) -> list[Message]:
    """Return what a client is sent."""
    given = PARTS if parts is None else parts
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in given]
    messages.append({"type": "http.disconnect"} if leaves else {"type": "http.request", "body": b""})
    waiting, sent = iter(messages), list[Message]()

    async def receive() -> Message:
        return next(waiting)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"x-request-id", b"mine")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
    asyncio.run(Repeating(proxy)(scope, receive, send))
    return sent


def problem(sent: list[Message]) -> tuple[int, str]:
    start, body = sent
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"retry-after"] == b"1"
    assert headers[b"x-request-id"] == b"mine"
    content = json.loads(body["body"])
    assert content["status"] == start["status"]
    return start["status"], content["error"]["code"]


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_a_request_is_sent_again_whole_until_it_is_answered(deaths: int) -> None:
    proxy = DyingProxy(deaths)
    start, body = ask(proxy)
    assert (start["status"], body["body"]) == (200, b"ok")
    assert proxy.bodies == [b"".join(PARTS)] * (deaths + 1)


def test_what_is_never_answered_is_told_in_the_form_of_all_errors() -> None:
    proxy = DyingProxy(99)
    assert problem(ask(proxy)) == (503, "service_unavailable")
    assert len(proxy.bodies) == 3


def test_what_is_too_large_to_be_kept_is_not_sent_again() -> None:
    proxy = DyingProxy(1)
    assert problem(ask(proxy, [b"x" * LONGEST_KEPT_BYTES, b"y"])) == (503, "service_unavailable")
    assert len(proxy.bodies) == 1


def test_nobody_is_worked_for_who_left() -> None:
    proxy = DyingProxy(0)
    assert ask(proxy, leaves=True) == []
    assert proxy.bodies == []


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (503, b"Request dropped due to backpressure (num_queued_requests=1)", "overloaded"),
        (503, b"Deployment is unavailable", "service_unavailable"),
        (408, b"Request timed out after 30s.", "service_unavailable"),
    ],
)
def test_refusals_of_the_proxy_have_the_form_of_all_errors(status: int, text: bytes, code: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    assert problem(ask(DyingProxy(0, (status, headers, text)))) == (503, code)


def test_refusals_of_the_routes_are_passed_on() -> None:
    headers = [(b"content-type", b"application/problem+json")]
    start, body = ask(DyingProxy(0, (503, headers, b"{}")))
    assert (start["status"], start["headers"], body["body"]) == (503, headers, b"{}")


def test_the_last_answers_close_the_door_and_their_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door()
    monkeypatch.setattr(ray_proxy, "DOOR", door)
    start, _ = ask(DyingProxy(0, (200, [LAST_ANSWER, (b"a", b"b")], b"ok")))
    assert start["headers"] == [(b"a", b"b"), (b"connection", b"close")]
    assert not door.is_open
