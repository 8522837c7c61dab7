"""The deployment that clients talk to: the routes of `serving.api`, and what a replica of several has to do besides.

A replica counts as started once it has looked for its pairs, so that none takes requests that another could answer at
once. Metrics are asked of all replicas. Before the end it says so, and waits until its requests are answered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlplatform.settings import Settings
from serving.api import build_app
from serving.backend import Backend, ReloadReport
from serving.concurrency import keep_loaded, let_the_loop_in
from serving.entrance import ask_inside
from serving.errors import ServingError
from serving.exposition import CONTENT_TYPE
from serving.local import LOG_FORMAT, Stages
from serving.ray_backend import RayBackend
from serving.ray_fused import FusedBackend
from serving.ray_peers import TELLING_S, Peers, merged
from serving.ray_proxy import LAST_ANSWER
from serving.security import SECURITY_HEADERS

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    Handle = DeploymentHandle[Any]

logger = logging.getLogger(__name__)

# How long a new replica may take to find its pairs before it begins without, in seconds: whatever is away comes back.
STARTING_S = 60.0
_METRICS = "/metrics"


class IngressBackend(Backend, Protocol):
    """A backend of one replica of several."""

    async def reload_here(self) -> ReloadReport:
        """Have this replica alone serve the pair that is in production now; raises as `reload`."""


class ForecastAPI:
    """The ingress.

    Parameters:
        settings: the experiments, the default one first, and all that the routes need.
        services: of `split` mode: feature store, preprocessing, model; without them, everything is computed here.
    """

    def __init__(self, settings: Settings, *services: Handle) -> None:
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        let_the_loop_in()
        self._peers = Peers()
        self._backends = _backends(settings, self._peers, services)
        # Ray's proxy makes the request id and puts it on the answer.
        self._app = build_app(self._backends, settings, is_request_id_answered=False)
        self._ingress = Ingress(self._app, self._backends, self._gathered)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application; Ray Serve calls this after the constructor."""
        return self._ingress

    async def reload_here(self, experiment: str) -> ReloadReport | ServingError:
        """Have this replica serve what is in production now, or return what keeps it from it."""
        try:
            return await self._backends[experiment].reload_here()
        except ServingError as error:
            return error

    async def metrics_here(self) -> tuple[str, bytes]:
        """Return the name of this replica and its metrics."""
        from ray import serve

        return serve.get_replica_context().replica_id.unique_id, (await ask_inside(self._app, _METRICS)).body

    async def announce_end(self) -> None:
        """Say from now on that the server is not ready."""
        self._app.state.server.is_draining = True

    async def take_no_more(self) -> None:
        """Have the proxy take no connections any more as soon as it sees an answer of this replica."""
        self._ingress.is_ending = True

    async def idle(self) -> None:
        """Return once this replica has nothing left to answer."""
        while self._ingress.in_flight:
            await asyncio.sleep(0.02)

    async def _gathered(self) -> bytes:
        try:
            pages = await self._peers.ask("metrics_here", patience_s=TELLING_S)
        except TimeoutError:
            # One that hangs should not hide what this one has to tell.
            pages = [await self.metrics_here()]
        return merged(sorted(pages))


def _backends(settings: Settings, peers: Peers, services: Sequence[Handle]) -> dict[str, IngressBackend]:
    """Return the backend of every experiment, the default one first."""
    named = {name: replace(settings, experiment=name) for name in settings.experiments}
    if services:
        return {name: RayBackend(own, peers, *services) for name, own in named.items()}
    stages = Stages(settings.limits)
    return {name: FusedBackend(own, peers, stages) for name, own in named.items()}


class Ingress:
    """The application, and around it what concerns the replica.

    Parameters:
        app: the routes.
        backends: those that should have looked for their pairs before the first request.
        gather: returns the metrics of all replicas.

    Attributes:
        in_flight: requests that have no answer yet.
        is_ending: whether answers tell the proxy that the server ends.
    """

    def __init__(self, app: ASGIApp, backends: Mapping[str, Backend], gather: Callable[[], Awaitable[bytes]]) -> None:
        self._app, self._backends, self._gather = app, backends, gather
        self.in_flight = 0
        self.is_ending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._once_looked(send))
            return
        self.in_flight += 1
        try:
            if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == _METRICS:
                page = Response(await self._gather(), headers={"content-type": CONTENT_TYPE})
                page.raw_headers.extend(SECURITY_HEADERS)
                await page(scope, receive, send)
            else:
                await self._app(scope, receive, self._marked(send) if self.is_ending else send)
        finally:
            self.in_flight -= 1

    def _once_looked(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                deadline = time.monotonic() + STARTING_S
                while not all(backend.looks() for backend in self._backends.values()) and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)
                keep_loaded()
            await send(message)

        return sent

    def _marked(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), LAST_ANSWER]
            await send(message)

        return sent
