"""Rollback in seconds, and the same artifacts from the same commit, configuration and data.

Rollback: two versions of a small forecast are trained and served by `python -m serving.local` on the loopback
interface; the clock runs from the command `dagster job execute -j rollback` to the first answer of the old
version, while a client keeps asking. The peer is the same command without its work, a job that finds nothing to repair.

Digests: every deterministic model family is trained by `dagster job execute` in two copies of this repository's files,
as two clones of one commit would have them, each with a state folder of its own.

Run as `python benchmarks/lifecycle.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from figures import report

REPOSITORY = Path(__file__).resolve().parent.parent
DAGSTER = str(Path(sys.executable).with_name("dagster"))
TOKEN = "a-token-for-this-benchmark"  # noqa: S105 - of a server that lives for seconds
AIM_S = 30.0
COLUMNS = {
    "load_pu": {"min": 0, "max": 5},
    "ambient_c": {"min": -50, "max": 60},
    "top_oil_c": {"min": -50, "max": 300},
    "hot_spot_c": {"min": -50, "max": 400},
    "cooling": {"type": "category", "nullable": False},
}
FORECAST: dict[str, Any] = {
    "dataset": {
        "name": "yard",
        "source": {
            "uri": "simulation://fleet",
            "options": {"entities": 2, "start": "2024-01-01", "end": "2024-03-01", "seed": 7, "gap_rate": 0.01},
        },
        "time_column": "timestamp",
        "entity_column": "transformer_id",
        "frequency": "1h",
        "window_steps": 48,
        "columns": COLUMNS,
    },
    "features": {"version": "yard_v1", "columns": list(COLUMNS)},
    "split": {
        "version": "yard_v1",
        "reference_steps": 168,
        "context_steps": 48,
        "cv": {"name": "expanding", "params": {"validation_steps": 168}},
        "folds": 2,
    },
    "task": "forecast",
    "targets": ["top_oil_c"],
    "lookback": 24,
    "horizon": 6,
    "metric": "mae",
    "baselines": [{"name": "repeat_last"}, {"name": "seasonal_naive", "params": {"season": 24}}],
}
TABULAR: dict[str, Any] = {"task": "regression", "targets": ["progression"], "metric": "mae"}
# Family -> defaults that the experiment takes from the packaged groups, values of its own, and parameters.
EXPERIMENTS: dict[str, tuple[dict[str, str], dict[str, Any], dict[str, Any]]] = {
    "xgboost": ({}, FORECAST, {"num_boost_round": 15, "max_depth": 3, "learning_rate": 0.3}),
    "nlinear": ({}, FORECAST, {"max_epochs": 3}),
    "ridge": ({}, FORECAST, {}),
    "xgboost_tabular": (
        {"dataset": "diabetes", "features": "diabetes_all_v1", "split": "diabetes_v1", "preprocessing": "tabular"},
        {**TABULAR, "baselines": [{"name": "dummy"}]},
        {"num_boost_round": 20},
    ),
    "linear": (
        {"dataset": "diabetes", "features": "diabetes_all_v1", "split": "diabetes_v1", "preprocessing": "tabular"},
        {**TABULAR, "baselines": [{"name": "dummy"}]},
        {},
    ),
}


def main() -> None:
    """Measure the rollback, then compare the digests of two clones."""
    with tempfile.TemporaryDirectory() as place:
        conf = Path(place, "conf")
        for family in EXPERIMENTS:
            _write_experiment(conf, family)
        measure_rollback(Path(place, "rollback"), conf)
        compare_digests(Path(place), conf)


def measure_rollback(folder: Path, conf: Path) -> None:
    """Report the seconds from the command to the first answer of the old version, and what the client saw."""
    experiment = "bench_xgboost"
    port = _free_port()
    environment = _environment(folder, conf) | {
        "MLPLATFORM_ADMIN_TOKEN": TOKEN,
        "MLPLATFORM_SERVING_URL": f"http://127.0.0.1:{port}",
    }
    _execute(f"train_{experiment}", environment, REPOSITORY)
    better = folder / "better.yaml"
    better.write_text('resources: {training: {config: {overrides: ["model.params.num_boost_round=60"]}}}\n')
    _execute(f"train_{experiment}", environment, REPOSITORY, "-c", str(better))
    asked = {name: folder / f"{name}.yaml" for name in ("repair", "rollback")}
    for name, path in asked.items():
        path.write_text(f"ops: {{{name}: {{config: {{experiment: {experiment}}}}}}}\n")
    idle = _execute("repair", environment, REPOSITORY, "-c", str(asked["repair"]))
    with _server(port, experiment, environment, folder / "server.log") as url:
        if _version(url) != 2:
            sys.exit(f"expected the server to answer with version 2; its log is {folder / 'server.log'}")
        client = _Client(url)
        started = time.perf_counter()
        order = ("rollback", environment, REPOSITORY, "-c", str(asked["rollback"]))
        command = threading.Thread(target=_execute, args=order)
        command.start()
        while client.first_old is None and time.perf_counter() - started < 600:
            client.ask()
        command.join()
        seconds = (client.first_old or float("nan")) - started
        report(
            "lifecycle",
            "rollback: from the command to the first answer of the old version",
            seconds,
            "s",
            peer="the same command, nothing to do",
            peer_value=idle,
            aim=f"<= {AIM_S:g}",
            met=seconds <= AIM_S,
        )
        case = f"rollback: failed requests of {client.asked}"
        report("lifecycle", case, client.failed, "requests", aim="0", met=client.failed == 0)


def compare_digests(place: Path, conf: Path) -> None:
    """Report for every family how many of its artifact digests differ between two clones."""
    digests = []
    for number in (1, 2):
        clone = place / f"clone{number}"
        _clone(clone)
        environment = _environment(place / f"state{number}", conf) | {"PYTHONPATH": str(clone)}
        for family in EXPERIMENTS:
            _execute(f"train_bench_{family}", environment, clone)
        output = subprocess.run(
            [sys.executable, str(clone / "benchmarks" / "lifecycle.py"), "--digests"],
            env=environment,
            cwd=clone,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        digests.append(json.loads(output.splitlines()[-1]))
        if digests[-1].pop("code") != str(clone):
            sys.exit(f"the code that ran was not that of {clone}")
    for family in EXPERIMENTS:
        first, second = (found[family] for found in digests)
        different = sorted(key for key in first if first[key] != second[key])
        case = f"{family}: digests and scores that differ between two clones, of {len(first)}"
        report("lifecycle", case, len(different), "values", aim="0", met=not different)


def print_digests() -> None:
    """Print digests and scores of the newest pair of every experiment in this state folder."""
    import mlplatform
    from mlplatform.registry.pairs import LATEST, PairStore
    from mlplatform.settings import Settings

    store = PairStore(Settings.from_env())
    found: dict[str, Any] = {"code": str(Path(mlplatform.__file__).resolve().parent.parent)}
    for family in EXPERIMENTS:
        info = store.resolve(f"bench_{family}", LATEST)
        run = store.client.get_run(info.run_id)
        hashes = {key: value for key, value in run.data.tags.items() if key.startswith(("data.", "dvc."))}
        scores = {key: value for key, value in run.data.metrics.items() if key != "fit_seconds"}
        _, answer = store.example(info)
        found[family] = {**info.digests, **hashes, **scores, "answer": answer.tobytes().hex()}
    print(json.dumps(found))


class _Client:
    """Asks for forecasts and keeps count.

    Attributes:
        first_old: when the old version answered for the first time, on the clock of `time.perf_counter`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked = self.failed = 0
        self.first_old: float | None = None

    def ask(self) -> None:
        self.asked += 1
        try:
            version = _version(self.url)
        except (OSError, urllib.error.URLError):
            self.failed += 1
            return
        if version == 1:
            self.first_old = time.perf_counter()
        time.sleep(0.02)


def _write_experiment(conf: Path, family: str) -> None:
    groups, values, params = EXPERIMENTS[family]
    chosen = {"preprocessing": "standard", **groups, "tuning": "none", "promotion": "default", "drift": "default"}
    document = {
        "defaults": [*({f"/{group}": option} for group, option in chosen.items()), "_self_"],
        **values,
        "name": f"bench_{family}",
        "model": {"version": f"{family}_v0", "family": family, "params": params, "search_space": {}},
    }
    path = conf / "experiment" / f"bench_{family}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    path.write_text(f"# @package _global_\n{json.dumps(document)}")


def _environment(folder: Path, conf: Path) -> dict[str, str]:
    folder.mkdir(parents=True)
    home = folder / "home"
    (home / "dagster").mkdir(parents=True)
    shutil.copy(REPOSITORY / "dagster.yaml", home / "dagster" / "dagster.yaml")
    own = {"MLPLATFORM_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "MLPLATFORM_CONF_DIR": str(conf)}
    return {**{key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}, **own}


def _execute(job: str, environment: Mapping[str, str], folder: Path, *options: str) -> float:
    """Run a job as a user does and return the seconds it took."""
    command = [DAGSTER, "job", "execute", "-m", "mlplatform.definitions", "-j", job, *options]
    started = time.perf_counter()
    done = subprocess.run(command, env=dict(environment), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return time.perf_counter() - started


def _clone(target: Path) -> None:
    """Copy the files that a clone of this working tree would have."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target / name)


@contextlib.contextmanager
def _server(port: int, experiment: str, environment: Mapping[str, str], log: Path) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "serving.local", "--port", str(port), "--experiment", experiment]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + 120
            while not _is_ready(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the server did not become ready:\n{log.read_text()[-4000:]}")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=10) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _version(url: str) -> int:
    request = urllib.request.Request(
        f"{url}/predict/feast/batch",
        data=b'{"entities": [1, 2], "time_point": "now"}',
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(json.load(answer)["version"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    print_digests() if "--digests" in sys.argv else main()
