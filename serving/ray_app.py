"""The same routes from Ray Serve: each step of a prediction in a deployment of its own, or all in one.

In `split` mode `ForecastAPI` (HTTP, validation, answers) asks `FeastService` for windows, `PreprocessingService` for
samples, `ModelService` for the model's output, and `PreprocessingService` again for original units; the version to use
travels with every call. In `fused` mode each replica of `ForecastAPI` takes all steps.

Run it with `python -m serving.ray_app` (or `make serve-ray`): it starts a Ray instance of its own and stops it at the
end. On a cluster, `serve run serving.ray_app:build_application experiment=a,b`; or `serve build serving.ray_app:app`,
which takes what the environment names, and `serve deploy` of what that writes.

Here: the command, and the names under which clusters import the application. Not here: the application (`ray_build`),
its ingress (`ray_ingress`), its backends (`ray_backend`, `ray_fused`) and services (`ray_services`), what is added to
the proxy (`ray_proxy`), and the Ray instance (`ray_runtime`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from serving.local import LOG_FORMAT, parse_arguments
from serving.ray_build import build_application
from serving.ray_runtime import running

__all__ = ["build_application", "main"]

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    """Return the application as `app`: made when it is asked for, because that imports Ray."""
    if name == "app":
        return build_application({})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then stop Ray; requests in flight are answered and the log is written."""
    settings, host, port = parse_arguments("Serve predictions from Ray Serve.", argv)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    with suppress(KeyboardInterrupt), running(settings, host, port):
        logger.info("serving %s on http://%s:%d", ", ".join(settings.experiments), host, port)
        threading.Event().wait()
    logger.info("stopped")


if __name__ == "__main__":
    main()
