"""A Ray instance of its own: started on the loopback interface, with a token of its own, and stopped without a trace.

Ray is imported only in the functions that use it, after the switches that it reads at import are set.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.config import INGRESS, load_serving
from mlplatform.settings import Settings
from serving.ray_build import APPLICATION, application
from serving.ray_proxy import IDLE_S, PROXY_ENVIRONMENT

if TYPE_CHECKING:
    from ray.serve import Application

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 128 * 1024 * 1024
# A Unix socket's path may have 107 characters, and Ray appends about 70 to its folder.
LONGEST_RAY_FOLDER = 36
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is compared with, not bound to
# How long a replica may take to answer before it is not waited for, in seconds.
_ANSWER_S = 5.0


@contextmanager
def running(
    settings: Settings, host: str, port: int, build: Callable[[Settings], Application] = application
) -> Iterator[None]:
    """Serve from a Ray instance of its own while the context is open, and leave no process behind.

    What is in flight when the context is left is answered first.

    Parameters:
        build: returns what is served.
    """
    config = load_serving(settings.serving_config, settings)
    _check_haproxy(host)
    has_own_token = _set_environment()

    import ray
    from ray import serve

    with _ray_folder(settings.home) as folder:
        try:
            context = ray.init(
                address="local",
                include_dashboard=config.dashboard,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.WARNING,
                _temp_dir=str(folder),
            )
            if config.dashboard:
                hint = "RAY_AUTH_TOKEN" if has_own_token else "a RAY_AUTH_TOKEN of your own, set before the start"
                logger.info("dashboard on http://%s, for those who have %s", context.dashboard_url, hint)
            _stop_on_sigterm()
            serve.start(proxy_location="HeadOnly", http_options=_http_options(settings, host, port))
            serve.run(build(settings), name=APPLICATION, route_prefix="/")
            try:
                yield
            finally:
                asyncio.run(_end(settings, port))
        finally:
            if ray.is_initialized():
                serve.shutdown()  # type: ignore[no-untyped-call] # it has no annotations
            ray.shutdown()


def _http_options(settings: Settings, host: str, port: int) -> dict[str, object]:
    # Longer than a replica that died takes to be replaced; within that time its requests wait for the next one.
    patience = 3 * settings.limits.deadline_s
    return {"host": host, "port": port, "request_timeout_s": patience}


async def _end(settings: Settings, port: int) -> None:
    from ray import serve

    await _drain(settings, port)
    # In the loop that the handle was used in, because its end is part of this.
    await serve.shutdown_async()  # type: ignore[no-untyped-call] # it has no annotations


async def _drain(settings: Settings, port: int) -> None:
    """Say that the server is not ready, take no more connections, and wait until all requests are answered."""
    from ray import serve

    ingress = serve.get_deployment_handle(INGRESS, APPLICATION)

    async def every(method: str, timeout_s: float) -> None:
        # A replica that does not answer any more has nothing that could be waited for.
        await ingress.broadcast(method).results_async(timeout_s=timeout_s, return_exceptions=True)

    try:
        if settings.limits.drain_s:
            logger.info("not ready any more, stopping in %g s", settings.limits.drain_s)
            await every("announce_end", _ANSWER_S)
            await asyncio.sleep(settings.limits.drain_s)
        await every("take_no_more", _ANSWER_S)
        # The proxy learns it from the next answer; where nobody asks, this does.
        await asyncio.to_thread(_ask_once, port)
        # What connections that are still open have sent by then reaches a replica.
        await asyncio.sleep(2 * IDLE_S)
        await every("idle", settings.limits.deadline_s)
        # What replicas have answered reaches the clients.
        await asyncio.sleep(IDLE_S)
    except Exception as error:
        logger.warning("requests in flight may be lost: %s: %s", type(error).__name__, error)


def _ask_once(port: int) -> None:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=_ANSWER_S):
        pass


def _stop_on_sigterm() -> None:
    """Have SIGTERM do what SIGINT does: unwind, and shut Ray down on the way.

    Called after Ray started, because Ray installs a handler of its own that aborts the process.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)


def _check_haproxy(host: str) -> None:
    """Refuse Ray Serve's HAProxy mode unless the server is meant to listen everywhere, as that mode always does."""
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return
    if host != EVERYWHERE:
        raise SystemExit(
            f"RAY_SERVE_ENABLE_HA_PROXY=1 makes Ray Serve listen on all network interfaces, but the host is {host}: "
            f"unset it, or set MLPLATFORM_HOST={EVERYWHERE} and keep strangers out with a firewall"
        )
    logger.warning("Ray Serve's HAProxy mode: port, replicas and statistics are open on all network interfaces")


def _set_environment() -> bool:
    """Set the switches that Ray reads when it is imported; its processes inherit them.

    Returns:
        Whether the token that calls must carry was given from outside.
    """
    has_own_token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not has_own_token:
        # One per run, because Ray's own would be written to the home directory.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.update(
        {
            "RAY_USAGE_STATS_ENABLED": "0",
            # The name is historical: without it every Ray process listens on all network interfaces.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # Calls between replicas have a port of their own that listens everywhere all the same, so every call must
            # carry a token.
            "RAY_AUTH_MODE": "token",
            **PROXY_ENVIRONMENT,
        }
    )
    defaults = {
        # Replicas are servers, not batch jobs: they should not yield to every other process.
        "RAY_worker_niceness": "0",
        # As in `serving.local`, and for the same reasons.
        "OMP_NUM_THREADS": "1",
        # The handlers never block, so threads and event loops of their own only add hand-overs.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        # Small arguments are faster in the call itself than through the object store.
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        # MLflow's client gives up within seconds, not minutes: the server asks again by itself.
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    return has_own_token


@contextmanager
def _ray_folder(home: Path) -> Iterator[Path]:
    """Yield the folder for Ray's sockets and logs: under `home`, or a temporary one where that path is too long."""
    folder = home / "ray"
    if len(str(folder)) <= LONGEST_RAY_FOLDER:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    folder = Path(tempfile.mkdtemp(prefix="mlp-ray-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
