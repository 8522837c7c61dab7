"""A Ray instance of its own: started on the loopback interface, with a token of its own, and stopped without a trace.

Ray is imported only in the functions that use it, after the switches that it reads at import are set.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlplatform.settings import Settings
from serving.ray_build import APPLICATION, application

OBJECT_STORE_BYTES = 128 * 1024 * 1024
# A Unix socket's path may have 107 characters, and Ray appends about 70 to its folder.
LONGEST_RAY_FOLDER = 36


@contextmanager
def running(settings: Settings, host: str, port: int) -> Iterator[None]:
    """Serve from a Ray instance of its own while the context is open, and leave no process behind."""
    _refuse_haproxy()
    _set_environment()

    import ray
    from ray import serve

    with _ray_folder(settings.home) as folder:
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.WARNING,
                _temp_dir=str(folder),
            )
            _stop_on_sigterm()
            serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
            serve.run(application(settings), name=APPLICATION, route_prefix="/")
            yield
        finally:
            if ray.is_initialized():
                serve.shutdown()  # type: ignore[no-untyped-call] # it has no annotations
            ray.shutdown()


def _stop_on_sigterm() -> None:
    """Have SIGTERM do what SIGINT does: unwind, and shut Ray down on the way.

    Called after Ray started, because Ray installs a handler of its own that aborts the process.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)


def _refuse_haproxy() -> None:
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        raise SystemExit(
            "RAY_SERVE_ENABLE_HA_PROXY=1 makes Ray Serve listen on all network interfaces, whatever the host option "
            "says; unset it, or run Ray Serve behind a firewall of your own with `serve run`"
        )


def _set_environment() -> None:
    """Set the switches that Ray reads when it is imported; its processes inherit them."""
    os.environ.update(
        {
            "RAY_USAGE_STATS_ENABLED": "0",
            # The name is historical: without it every Ray process listens on all network interfaces.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # Calls between replicas have a port of their own that listens everywhere all the same, so every call must
            # carry a token; one per run, because the default one would be written to the home directory.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # The proxy starts uvicorn itself; this is the one place where it asks what to add.
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.connections.answer_half_closed_clients",
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
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


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
