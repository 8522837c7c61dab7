"""A web hook and a mail server that keep what they are sent."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hook:
    """A web hook; `status` is what it answers with, after `delay_s`."""

    url: str = ""
    status: int = 200
    delay_s: float = 0.0
    received: list[dict[str, Any]] = field(default_factory=list)

    @property
    def titles(self) -> list[str]:
        return [each["title"] for each in self.received]


@contextlib.contextmanager
def hook() -> Iterator[Hook]:
    """Run a web hook on the loopback interface."""
    own = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(own.delay_s)
            if own.status == 200:
                own.received.append(json.loads(body))
            with contextlib.suppress(OSError):
                self.send_response(own.status)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    own.url = f"json://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield own
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@dataclass
class Mailbox:
    """A mail server's address in Apprise's form, and the mails it took."""

    url: str = ""
    mails: list[Any] = field(default_factory=list)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@contextlib.contextmanager
def mailbox() -> Iterator[Mailbox]:
    """Run a mail server on the loopback interface."""
    from aiosmtpd.controller import Controller

    own = Mailbox()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(own, hostname="127.0.0.1", port=port)
    controller.start()
    own.url = f"mailto://127.0.0.1:{port}?from=mlplatform@example.com&to=oncall@example.com&mode=insecure"
    try:
        yield own
    finally:
        controller.stop()
