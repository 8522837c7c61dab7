"""One worker of a server of several: the local server, listening on a socket that it was given.

Started by `serving.supervisor`, never by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from mlplatform.settings import ServerLimits, Settings
from serving.backend import Backend
from serving.local import LOG_FORMAT, local_backends, prepare_process, served_settings
from serving.process import DrainingServer, configured
from serving.siblings import SOCKET, Siblings

logger = logging.getLogger(__name__)

# How long a worker that replaces another may look for its pairs before it listens without, in seconds.
STARTING_S = 60.0


class WorkerServer(DrainingServer):
    """Listens for siblings at once, and for clients as soon as it should.

    Parameters:
        place: the Unix socket for siblings.
        backends: those that should have looked for their pairs before it listens for clients; none for a worker that
            is among the first, whose clients would otherwise find nobody.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        limits: ServerLimits,
        place: Path,
        backends: Mapping[str, Backend],
        probes: socket.socket | None = None,
    ) -> None:
        super().__init__(config, app, limits, probes)
        self._place, self._backends = place, backends

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        loop, config, protocol = asyncio.get_running_loop(), self.config, self.protocol
        self._place.unlink(missing_ok=True)
        self.servers.append(await loop.create_unix_server(protocol, self._place))
        deadline = time.monotonic() + STARTING_S
        while not all(backend.looks() for backend in self._backends.values()) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for each in sockets or []:
            self.servers.append(await loop.create_server(protocol, sock=each, ssl=config.ssl, backlog=config.backlog))

    def end_with(self, lifeline: int) -> None:
        """End when the other end of a pipe does."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(lifeline)
            logger.error("the supervisor is gone, so this worker ends too")
            self.handle_exit(signal.SIGTERM, None)

        loop.add_reader(lifeline, ended)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM, or until the supervisor is gone."""
    parser = argparse.ArgumentParser(description="A worker of `python -m serving.local --workers`.")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--listener", type=int, required=True, help="descriptor of the listening socket")
    parser.add_argument("--probes", type=int, help="descriptor of the listening socket for probes alone")
    parser.add_argument(
        "--lifeline", type=int, required=True, help="descriptor of a pipe that ends with the supervisor"
    )
    parser.add_argument("--folder", type=Path, required=True, help="where siblings find each other")
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--replaces", action="store_true", help="take no requests before there is a pair")
    asked = parser.parse_args(argv)
    settings = served_settings(Settings.from_env(), asked.experiment)
    prepare_process()
    logging.basicConfig(level=logging.INFO, format=f"[{asked.index}] {LOG_FORMAT}")

    from serving.api import build_app

    backends = local_backends(settings)
    app = build_app(backends, settings, siblings=Siblings(asked.folder, asked.index))
    place = asked.folder / SOCKET.format(asked.index)
    probes = None if asked.probes is None else socket.socket(fileno=asked.probes)
    server = WorkerServer(
        configured(app, settings), app, settings.limits, place, backends if asked.replaces else {}, probes
    )
    listener = socket.socket(fileno=asked.listener)

    async def serve() -> None:
        server.end_with(asked.lifeline)
        await server.serve(sockets=[listener])

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
