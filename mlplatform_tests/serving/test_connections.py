"""Clients that stop talking early: those that wait for their answer get it, those that leave cause no alarm."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlplatform.settings import Settings
from mlplatform_tests.serving.servers import in_thread
from mlplatform_tests.serving.test_answers import forecast
from serving.api import build_app
from serving.backend import Prediction, ReloadReport, Status
from serving.timing import StageTimes

BODY = b'{"entities": [0, 1]}'
HEAD = b"POST /predict/feast/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
REQUEST = HEAD % len(BODY) + BODY


class SlowBackend:
    """Answers the same forecast, once it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.is_asked = threading.Event()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def forecast_entities(self, *_: Any) -> Prediction:
        self.is_asked.set()
        await asyncio.to_thread(self.may_answer.wait, 30)
        return forecast()

    async def predict_rows(self, *_: Any) -> Prediction:
        return forecast()

    async def reload(self) -> ReloadReport:
        raise NotImplementedError

    async def status(self) -> Status:
        return Status(forecast().pair, None)

    @property
    def times(self) -> StageTimes:
        return StageTimes()

    def queues(self) -> dict[str, int]:
        return {}

    def looks(self) -> dict[str, int]:
        return {}

    def served(self) -> None:
        return None

    def challenger(self) -> None:
        return None

    def challenger_looks(self) -> dict[str, int]:
        return {}


@pytest.fixture
def backend() -> SlowBackend:
    return SlowBackend()


@pytest.fixture
def client(backend: SlowBackend, tmp_path: Path) -> Iterator[httpx.Client]:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_ACCESS_LOG": "1"})
    with in_thread(build_app({"slow": backend}, settings)) as client:
        yield client


@contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=20) as connection:
        yield connection


def read_to_the_end(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def statuses(caplog: pytest.LogCaptureFixture, count: int) -> list[int]:
    """Return the statuses in the access log once there are `count`."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        lines = [record.getMessage() for record in caplog.records if record.name == "serving.access"]
        if len(lines) >= count:
            break
        time.sleep(0.01)
    return [json.loads(line)["status"] for line in lines]


@pytest.mark.parametrize("times", [1, 3])
def test_a_client_that_closed_its_half_gets_every_answer(
    client: httpx.Client, backend: SlowBackend, times: int
) -> None:
    with connected(client) as connection:
        connection.sendall(REQUEST * times)
        connection.shutdown(socket.SHUT_WR)
        assert backend.is_asked.wait(20)
        backend.may_answer.set()
        answer = read_to_the_end(connection)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == times
    assert answer.count(b'"forecasts"') == times
    assert answer.lower().count(b"connection: close") == 1


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nHo"])
def test_a_client_that_closed_its_half_without_a_request_is_let_go(client: httpx.Client, sent: bytes) -> None:
    with connected(client) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert read_to_the_end(connection) == b""


def test_after_its_answer_too_it_is_let_go(client: httpx.Client) -> None:
    with connected(client) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        connection.shutdown(socket.SHUT_WR)
        assert read_to_the_end(connection) == b""


def test_a_client_that_leaves_in_the_middle_of_its_body_is_499(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with connected(client) as connection:
                connection.sendall(REQUEST[:-10])
        assert statuses(caplog, 3) == [499, 499, 499]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info] == []
    counted = 'mlplatform_http_requests_total{method="POST",route="/predict/feast/batch",status="499"} 3.0'
    assert counted in client.get("/metrics").text


def test_a_client_whose_connection_breaks_before_its_answer_is_499(
    client: httpx.Client, backend: SlowBackend, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        with connected(client) as connection:
            connection.sendall(REQUEST)
            assert backend.is_asked.wait(20)
            # A process that is killed with unread data in its connection resets it in this way.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.2)
        backend.may_answer.set()
        assert statuses(caplog, 1) == [499]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info] == []


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready"])
def test_head_is_answered_like_get_without_a_body(client: httpx.Client, path: str) -> None:
    response = client.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == client.get(path).headers["content-type"]
