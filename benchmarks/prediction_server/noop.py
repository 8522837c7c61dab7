"""The limit on Ray Serve: deployments of the same names, options and shape, which read JSON, pass it on, and write it.

Run as `python -m prediction_server.noop --experiment <name> --port <port>` with the folder of benchmarks on the path
and `MLPLATFORM_SERVING_CONFIG` as for our server.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response

from mlplatform.config import DEPLOYMENTS, INGRESS, load_serving
from mlplatform.settings import Settings
from serving.local import parse_arguments
from serving.ray_build import options_of
from serving.ray_runtime import running

if TYPE_CHECKING:
    from ray.serve import Application


class Step:
    """A deployment behind the ingress."""

    async def pass_on(self, content: Any) -> Any:
        """Return what was given."""
        return content


class Front:
    """The ingress: in split mode a request visits preprocessing, model, and preprocessing again."""

    def __init__(self, *services: Any) -> None:
        self._app = FastAPI()

        @self._app.post("/predict")
        async def predict(request: Request) -> Response:
            content = orjson.loads(await request.body())
            if services:
                _, preprocessing, model = services
                for service in (preprocessing, model, preprocessing):
                    content = await service.pass_on.remote(content)
            return Response(orjson.dumps(content), media_type="application/json")

        @self._app.get("/health/ready")
        async def ready() -> dict[str, str]:
            return {"status": "ready"}

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Ray Serve calls this after the constructor."""
        return self._app

    async def take_no_more(self) -> None:
        """Do as the server's ingress when it is told to end."""

    async def idle(self) -> None:
        """Do as the server's ingress when it is told to end."""


def application(settings: Settings) -> Application:
    """Return the deployments of the configured mode."""
    from ray import serve

    config = load_serving(settings.serving_config, settings)
    services = [
        serve.deployment(name=name, **options_of(config.of(name)))(Step).bind()
        for name in DEPLOYMENTS
        if name in config.names and name != INGRESS
    ]
    front = serve.deployment(name=INGRESS, **options_of(config.of(INGRESS)))
    whole: Application = front(serve.ingress()(Front)).bind(*services)
    return whole


def main() -> None:
    """Serve until SIGTERM."""
    settings, host, port = parse_arguments("Pass requests on.")
    with suppress(KeyboardInterrupt), running(settings, host, port, application):
        threading.Event().wait()


if __name__ == "__main__":
    # By the name of this module, under which replicas find the classes.
    from prediction_server.noop import main as run

    run()
