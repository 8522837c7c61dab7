"""The web server's process: its sockets, its limits on connections, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from mlplatform.settings import Settings
from serving.connections import http_protocol

logger = logging.getLogger(__name__)

# Longer than load balancers keep idle connections (60 s), so that the server is never the first to close one.
_KEEP_ALIVE_S = 75
_LONGEST_STOP_S = 20
_CONNECTIONS = 4096
# Without a drain delay: long enough for clients that ask again and again to learn that their connection ends.
_LAST_ANSWERS_S = 0.3


def run(app: FastAPI, host: str, port: int, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, by HTTPS if there is a certificate; requests in flight are answered first."""
    config = configured(app, settings)
    config.host, config.port = host, port
    try:
        DrainingServer(config, app, settings.limits.drain_s).run()
    except SystemExit as ended:
        # uvicorn's own status of a start that failed is 3, with which commands here say that the answer is no.
        raise SystemExit(1 if ended.code == STARTUP_FAILURE else ended.code) from ended


def require_free(host: str, port: int) -> None:
    """Look whether the port can be had, before a server is built that would find out at the end of its start.

    Raises:
        SystemExit: if another program listens there, or only the administrator may.
    """
    with contextlib.suppress(socket.gaierror):
        for family, kind, _, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            _try_to_bind(family, kind, address, f"{host}:{port}")


def _try_to_bind(family: int, kind: int, address: Any, shown: str) -> None:
    try:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        # Whatever else is wrong with one of several addresses may not keep the server from the others.
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise SystemExit(f"cannot listen on {shown}: {error.strerror}; name another port with --port") from error


def configured(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return what uvicorn is told, but for where to listen."""
    return uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        http=http_protocol(settings.limits.body_deadline_s),
        limit_concurrency=_CONNECTIONS,
        # Nobody is believed to stand in front unless uvicorn's own variable names who does.
        proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_LONGEST_STOP_S,
    )


class DrainingServer(uvicorn.Server):
    """Says that it is not ready before it stops, for as long as load balancers need to notice.

    Parameters:
        drain_s: that long, in seconds. A second signal stops at once.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        self._state = app.state.server
        self._drain_s = drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end: answers say that their connection closes, so that clients go elsewhere meanwhile."""
        if self._state.is_draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        self._state.is_draining = True
        wait = max(self._drain_s, _LAST_ANSWERS_S)
        logger.info("not ready any more, stopping in %g s", wait)
        loop = asyncio.get_running_loop()
        loop.call_later(wait, super().handle_exit, sig, frame)
