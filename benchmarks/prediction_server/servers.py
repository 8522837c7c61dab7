"""Servers under test: ours and the peers, each in a process of its own, and what its CPU did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlplatform.child_processes import free_port
from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.registry.pairs import PairStore
from mlplatform.settings import Settings

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = float(os.environ.get("SECONDS", "4"))
FORECAST, TABLE = "fleet_xgboost", "diabetes_xgboost"
BY_ENTITY = "/predict/feast/batch"


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Return what the process and its children have used so far."""
        pids = [self.pid, *_children(self.pid)]
        return sum(map(_cpu_seconds, pids))

    def replicas(self, deployment: str) -> list[int]:
        """Return the processes of a deployment's replicas on Ray Serve, those that start among them."""
        return [pid for pid in _children(self.pid) if f"ServeReplica:mlplatform:{deployment}" in _title(pid)]

    def resident_mib(self) -> float:
        """Return the memory of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def serving(command: list[str], ready: str, environ: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a command whose last argument `{port}` is filled in, until the route `ready` answers well."""
    port = free_port()
    filled = [argument.replace("{port}", str(port)) for argument in command]
    # One thread per call: the processes share the cores with the load.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environ or {})}
    # MLflow starts its server by name.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    quiet = subprocess.DEVNULL
    with subprocess.Popen(filled, env=environment, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        server = Server(f"http://127.0.0.1:{port}", process.pid)
        try:
            _wait(f"{server.url}{ready}")
            yield server
        finally:
            process.terminate()
            process.wait(60)
            # Those that do not end with who started them.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ours(experiments: str, module: str = "serving.local", **environ: str) -> list[str]:
    """Return the command of our server, the one in one process or that on Ray."""
    settings = [f"{name}={value}" for name, value in environ.items()]
    return ["env", *settings, sys.executable, "-m", module, "--experiment", experiments, "--port", "{port}"]


def bare(experiment: str) -> list[str]:
    """Return the command of a handler that does nothing but predict."""
    return [sys.executable, str(Path(__file__).with_name("bare.py")), experiment, "{port}"]


def bodies() -> dict[str, bytes]:
    """Return, by experiment, the stored example of its production pair as a request of one entity or row."""
    store = PairStore(Settings.from_env())
    found = {}
    for name in (FORECAST, TABLE):
        rows, _ = store.example(store.resolve(name))
        rows = rows[rows[ENTITY] == rows[ENTITY].iloc[0]]
        rows = rows.astype({TIMESTAMP: str}) if name == FORECAST else rows.drop(columns=[ENTITY, TIMESTAMP]).head(1)
        records = json.loads(rows.to_json(orient="records", double_precision=15))
        found[name] = json.dumps({"rows": records}).encode()
    return found


def entity() -> bytes:
    """Return a request for one entity of the feature store."""
    store = PairStore(Settings.from_env())
    rows, _ = store.example(store.resolve(FORECAST))
    return json.dumps({"entities": [rows[ENTITY].iloc[0].item()]}).encode()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(f"{url} did not answer")


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_children(child)]
    return found
