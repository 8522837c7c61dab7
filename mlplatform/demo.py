"""`make demo`: train, promote, serve and query a model, by the same commands a user would type.

Everything runs in child processes, and none of them outlives the demo. Nothing but this machine is needed. The server
starts beside the training and waits for a pair in production, as every server does.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mlplatform.child_processes import child_process, free_port
from mlplatform.settings import Settings

EXPERIMENT = "fleet_xgboost"
ENTITIES = [1, 2, 3]
SERVER_START_S = 120.0


def main() -> int:
    """Run the demo and return the exit status."""
    settings = Settings.from_env()
    folder = settings.home / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        _say(f"1/3  Training {EXPERIMENT}: dagster job execute -m mlplatform.definitions -j train_{EXPERIMENT}")
        threading.Thread(target=_import_ahead, daemon=True).start()
        with _server(folder / "serve.log") as server:
            _train(folder / "train.log")
            _say("\n2/3  What the training run recorded in MLflow")
            version = _show_scores(settings)
            _say("\n3/3  Asking a server that waited for the pair: python -m serving.local")
            answer = server.ask(version)
        _show_forecast(answer)
        picture = _plot(settings, answer, folder / "forecast.png")
    except DemoError as error:
        _say(f"\nThe demo stopped: {error}")
        return 1
    _say(f"\nDone in {time.monotonic() - started:.0f} s. The forecast as a picture: {picture}")
    _say("Next:  make ui      assets, checks, runs and sensors   http://127.0.0.1:3000")
    _say("       make mlflow  runs, metrics and model versions   http://127.0.0.1:5000")
    _say("       make serve   the prediction API and its docs    http://127.0.0.1:8000/docs")
    return 0


class DemoError(RuntimeError):
    """A stage of the demo that failed."""


def _import_ahead() -> None:
    """Import what the later stages need, which takes seconds, while the training runs in another process."""
    import matplotlib.figure  # noqa: F401 - for its effect
    import mlflow.tracking  # noqa: F401 - for its effect


def _train(log: Path) -> None:
    """Run the training job and show what the run prints; with what stands around it, it goes to a log file."""
    dagster = Path(sys.executable).with_name("dagster")
    command = [str(dagster), "job", "execute", "-m", "mlplatform.definitions", "-j", f"train_{EXPERIMENT}"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w") as record,
        child_process(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        has_begun = False
        for line in process.stdout:
            record.write(line)
            # Above it stands what the command has to say about itself.
            has_begun = has_begun or line.startswith(f"train_{EXPERIMENT}, ")
            if has_begun:
                _say(f"     {line.rstrip()}".rstrip())
        status = process.wait()
    if status != 0:
        raise DemoError(f"training ended with status {status}; its output is in {log}")


def _show_scores(settings: Settings) -> int:
    """Print what the newest version scored, and return the version that is in production."""
    from mlplatform.config import load_experiment
    from mlplatform.registry.pairs import LATEST, PRODUCTION, PairStore
    from mlplatform.registry.runs import mlflow_name

    config = load_experiment(EXPERIMENT, settings=settings)
    store = PairStore(settings)
    run = store.client.get_run(store.resolve(EXPERIMENT, LATEST).run_id)
    names = {config.model.family: "", **{b.name: f"baseline_{b.name}_" for b in config.baselines}}
    columns = [f"fold_{k}_{config.metric}" for k in range(config.split.folds)] + [f"reference_{config.metric}"]
    _say(
        "     " + f"{config.metric}".ljust(16) + "".join(c.removesuffix(f"_{config.metric}").rjust(12) for c in columns)
    )
    for name, prefix in names.items():
        values = "".join(f"{run.data.metrics.get(mlflow_name(prefix + column), math.nan):12.4f}" for column in columns)
        _say(f"     {name.ljust(16)}{values}")
    decision = "promoted" if run.data.tags["promotion.promote"] == "true" else "not promoted"
    _say(f"     gate: {decision}, because {run.data.tags['promotion.reason']}")
    version = store.resolve(EXPERIMENT, PRODUCTION).version
    _say(f"     production is {EXPERIMENT} version {version}")
    return version


@dataclass(frozen=True)
class _Server:
    """A prediction server in a process of its own."""

    url: str
    process: subprocess.Popen[Any]
    log: Path

    def ask(self, version: int) -> dict[str, Any]:
        """Return forecasts of a version, once the server has found it."""
        body = json.dumps({"entities": ENTITIES, "time_point": "now"})
        _say(f"     POST /predict/feast/batch {body}")
        deadline = time.monotonic() + SERVER_START_S
        while True:
            status, answer = _post(f"{self.url}/predict/feast/batch", body)
            if status == HTTPStatus.OK and answer["version"] == version:
                forecasts: dict[str, Any] = answer
                return forecasts
            if status not in (None, HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE):
                raise DemoError(f"the server answered {status}: {answer}")
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the server did not serve version {version}; its output is in {self.log}")
            time.sleep(0.1)


@contextlib.contextmanager
def _server(log: Path) -> Iterator[_Server]:
    """Yield a prediction server that begins to look for a pair in production, and stop it afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "serving.local", "--port", str(port), "--experiment", EXPERIMENT]
    environment = {**os.environ, "MLPLATFORM_POLL_S": "1"}
    with (
        log.open("w") as record,
        child_process(command, stdout=record, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        yield _Server(f"http://127.0.0.1:{port}", process, log)


def _post(url: str, body: str) -> tuple[int | None, Any]:
    """Return status and answer of a request; no status if nobody listens yet."""
    request = urllib.request.Request(  # noqa: S310 - loopback
        url, data=body.encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - loopback
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None, ""


def _show_forecast(answer: dict[str, Any]) -> None:
    _say(f"     answered by {answer['model']} version {answer['version']}, pair {answer['pair_id'][:12]}")
    for forecast in answer["forecasts"]:
        for target, values in forecast["values"].items():
            shown = "  ".join(f"{value:.1f}" for value in values[:8])
            _say(f"     entity {forecast['entity']}  {target} from {forecast['timestamps'][0]}:  {shown} ...")


def _plot(settings: Settings, answer: dict[str, Any], path: Path) -> Path:
    """Draw the recent history and the served forecasts with their intervals."""
    import pandas as pd

    from mlplatform.config import ENTITY, TIMESTAMP, load_dataset
    from mlplatform.features.retrieval import load_history
    from mlplatform.figures import GREY, ORANGE, new_figure

    dataset = load_dataset("fleet", settings)
    forecasts = answer["forecasts"]
    target = next(iter(forecasts[0]["values"]))
    start = pd.Timestamp(forecasts[0]["window_end"]) - pd.Timedelta(days=5)
    history = load_history(dataset, (target,), settings, start=start.isoformat())
    figure = new_figure(8.0, 1.7 * len(forecasts))
    for axes, forecast in zip(figure.subplots(len(forecasts), sharex=True), forecasts, strict=True):
        own = history[history[ENTITY] == forecast["entity"]]
        axes.plot(own[TIMESTAMP], own[target], color=GREY, label="history")
        times, interval = pd.to_datetime(forecast["timestamps"]), forecast["interval"]
        axes.plot(times, forecast["values"][target], color=ORANGE, label="forecast")
        bounds = interval["lower"][target], interval["upper"][target]
        share = f"{interval['coverage']:.0%} interval"
        axes.fill_between(times, *bounds, color=ORANGE, alpha=0.25, linewidth=0, label=share)
        axes.set_ylabel(f"{target} [{dataset.columns[target].unit}]")
        axes.set_title(f"transformer {forecast['entity']}", fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(f"{answer['model']} version {answer['version']}: the next {len(forecast['timestamps'])} hours")
    figure.savefig(path, dpi=120)
    return path


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
