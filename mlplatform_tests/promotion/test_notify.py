"""The notice to the prediction server: whatever happens, training goes on and the log says how it went."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlplatform.promotion.notify import notify_servers
from mlplatform.settings import Settings

TOKEN = "a-token-for-tests"


class Server(BaseHTTPRequestHandler):
    """Answers a reload as the prediction server does, or not at all like it."""

    body: bytes = json.dumps({"experiment": "yard", "version": 4}).encode()

    def do_POST(self) -> None:
        allowed = self.headers["Authorization"] == f"Bearer {TOKEN}" and self.path == "/admin/reload"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


def outcome_of(settings: Settings) -> str:
    """Return how telling the only server went."""
    (notice,) = notify_servers(settings)
    return notice.outcome


@pytest.fixture
def server() -> Iterator[str]:
    listening = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)}), admin_token=TOKEN)


def test_a_server_that_reloads_is_quoted(settings: Settings, server: str) -> None:
    outcome = outcome_of(replace(settings, serving_url=server))
    assert outcome.endswith("serves yard version 4")


def test_a_refusal_is_reported_without_the_token(settings: Settings, server: str) -> None:
    outcome = outcome_of(replace(settings, serving_url=server, admin_token="wrong-token"))
    assert "refused with status 401" in outcome
    assert "wrong-token" not in outcome


@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b"\xff\xfe", b'"text"'])
def test_an_answer_that_is_something_else_is_no_error(
    settings: Settings, server: str, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(Server, "body", body)
    assert "not as a prediction server does" in outcome_of(replace(settings, serving_url=server))


def test_a_port_that_does_not_speak_http_is_no_error(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"220 mail.example ready\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert "could not be reached" in outcome_of(replace(settings, serving_url=url))
        thread.join()


def test_nobody_listening_is_no_error(settings: Settings) -> None:
    for url in ("http://127.0.0.1:9", "http://", "http://no such host"):
        assert "could not be reached" in outcome_of(replace(settings, serving_url=url))


def test_nothing_is_sent_without_a_token_or_to_something_else_than_http(settings: Settings, server: str) -> None:
    assert "MLPLATFORM_ADMIN_TOKEN is not set" in outcome_of(replace(settings, admin_token=None, serving_url=server))
    assert "is not an http address" in outcome_of(replace(settings, serving_url="file:///etc/passwd"))


def test_every_server_is_told_and_one_that_is_down_does_not_keep_the_next_from_it(
    settings: Settings, server: str
) -> None:
    notices = notify_servers(replace(settings, serving_url=f"http://127.0.0.1:9, {server}/,{server}"))
    assert [notice.version for notice in notices] == [None, 4, 4]
    assert "could not be reached" in notices[0].outcome


def test_a_refusal_s_reason_is_passed_on(settings: Settings, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = {"error": {"code": "reload_failed", "message": "version 1 is still served"}}
    monkeypatch.setattr(Server, "body", json.dumps(refusal).encode())
    outcome = outcome_of(replace(settings, serving_url=server, admin_token="wrong-token"))
    assert outcome.endswith("refused with status 401: version 1 is still served")
