"""The web server's process: its sockets, its limits on connections, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI
from typing_extensions import override
from uvicorn.config import STARTUP_FAILURE

from mlplatform.settings import ServerLimits, Settings
from serving.connections import http_protocol, protocol_of
from serving.handover import Reception
from serving.ports import allow_many_connections, listening, listening_at
from serving.probes import Probes

logger = logging.getLogger(__name__)

# Longer than load balancers keep idle connections (60 s), so that the server is never the first to close one.
_KEEP_ALIVE_S = 75
_LONGEST_STOP_S = 20
_CONNECTIONS = 4096
# Without a drain delay: long enough for clients that ask again and again to learn that their connection ends.
_LAST_ANSWERS_S = 0.3


def run(app: FastAPI, host: str, port: int, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, by HTTPS if there is a certificate; requests in flight are answered first."""
    allow_many_connections()
    config = configured(app, settings)
    listeners = listening_at(host, port)
    probes = listening(host, settings.probe_port) if settings.probe_port else None
    shown = f"[{host}]" if ":" in host else host
    logger.info("serving on %s://%s:%d", "https" if config.is_ssl else "http", shown, listeners[0].getsockname()[1])
    try:
        # What is encrypted says nothing at the door, and where there are several processes the others stand at it, too.
        if config.is_ssl:
            DrainingServer(config, app, settings.limits, probes).run(sockets=listeners)
        else:
            DrainingServer(config, app, settings.limits, probes, listeners).run()
    except SystemExit as ended:
        # uvicorn's own status of a start that failed is 3, with which commands here say that the answer is no.
        raise SystemExit(1 if ended.code == STARTUP_FAILURE else ended.code) from ended


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
        limits: with that long. A second signal stops at once.
        probes: the listening socket of a port for probes alone, if there is one.
        doors: listening sockets of the server's own port, at which probes are answered by the process for them; without
            them, the server listens as it is told when it starts.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        limits: ServerLimits,
        probes: socket.socket | None = None,
        doors: Sequence[socket.socket] = (),
    ) -> None:
        super().__init__(config)
        self._app, self._state = app, app.state.server
        self._limits = limits
        self._listener, self._doors = probes, doors
        self._probes: Probes | None = None

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([] if self._doors else sockets)
        if self.should_exit:
            return
        reception = None
        if self._doors:
            reception = Reception(self._doors, self.protocol, self.config.backlog)
            await reception.open()
        if reception is not None or self._listener is not None:
            deadline_s = self._limits.body_deadline_s
            self._probes = Probes(self._app, self._listener, deadline_s, reception=reception)
            self._probes.start()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._probes is not None:
            await self._probes.take_no_more()
        await super().shutdown(sockets)
        if self._probes is not None:
            await self._probes.stop()

    def protocol(self) -> asyncio.Protocol:
        """Return what answers one more connection."""
        return protocol_of(self, self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end: answers say that their connection closes, so that clients go elsewhere meanwhile."""
        if self._state.is_draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        self._state.is_draining = True
        wait = max(self._limits.drain_s, _LAST_ANSWERS_S)
        logger.info("not ready any more, stopping in %g s", wait)
        loop = asyncio.get_running_loop()
        loop.call_later(wait, super().handle_exit, sig, frame)
