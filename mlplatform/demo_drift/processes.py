"""The processes of the demo: jobs, the daemon, the prediction server, and a web hook that hears the alerts.

None of them outlives the demo.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

START_S, JOB_S, STOP_S = 180.0, 300.0, 20.0
_BIN = Path(sys.executable).parent


class DemoError(RuntimeError):
    """A stage of the demo that failed."""


def run_job(job: str, environment: Mapping[str, str], log: Path, tags: Mapping[str, str] | None = None) -> None:
    """Run a job as a person does from a shell.

    Raises:
        DemoError: if it fails, with the place of its output.
    """
    command = [str(_BIN / "dagster"), "job", "execute", "-m", "mlplatform.definitions", "-j", job]
    if tags:
        command += ["--tags", json.dumps(dict(tags))]
    with log.open("a") as record:
        done = subprocess.run(  # noqa: S603 - our own programs
            command, env=dict(environment), stdout=record, stderr=subprocess.STDOUT, timeout=JOB_S, check=False
        )
    if done.returncode != 0:
        raise DemoError(f"{job} ended with status {done.returncode}; its output is in {log}")


@contextlib.contextmanager
def daemon(environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run Dagster's daemon, which looks at the sensors and launches what they ask for."""
    with _child([str(_BIN / "dagster-daemon"), "run", "-m", "mlplatform.definitions"], environment, log):
        yield


@contextlib.contextmanager
def server(environment: Mapping[str, str], port: int, log: Path) -> Iterator[str]:
    """Run the prediction server and yield its address once it is ready."""
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "serving.local", "--port", str(port)]
    with _child(command, environment, log) as process:

        def is_ready() -> bool:
            if process.poll() is not None:
                raise DemoError(f"the server ended; its output is in {log}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health/ready", timeout=5) as response:  # noqa: S310
                return bool(response.status == 200)
            return False

        wait_for(is_ready, f"the server to be ready; its output is in {log}", START_S)
        yield url


@dataclass
class Hook:
    """A web hook of this process: what it was told, oldest first."""

    url: str
    told: list[str] = field(default_factory=list)


@contextlib.contextmanager
def hook(on_alert: Callable[[str], None]) -> Iterator[Hook]:
    """Run a web hook on the loopback interface."""
    own = Hook("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            title = str(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["title"])
            own.told.append(title)
            on_alert(title)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    own.url = f"json://127.0.0.1:{listening.server_address[1]}/"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield own
    finally:
        listening.shutdown()
        listening.server_close()


def wait_for(holds: Callable[[], bool], what: str, seconds: float, pause_s: float = 0.2) -> None:
    """Wait until something holds.

    Raises:
        DemoError: naming it, if it does not in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise DemoError(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause_s)


def post(url: str, body: Mapping[str, Any], token: str = "") -> tuple[int, dict[str, Any]]:
    """Send JSON and return status and answer; 0 where there was no answer."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - loopback
            return int(response.status), json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, {"error": error.read().decode(errors="replace")}
    except OSError as error:
        return 0, {"error": str(error)}


@contextlib.contextmanager
def _child(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with all that it starts, and end them all."""
    with log.open("w") as record:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            command, env=dict(environment), stdout=record, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # What it has started may hold on longer than itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
