"""Forecasts in batch: ten thousand entities, 24 steps each, in seconds and in peak memory.

Every figure is of a process of its own, which makes one run: of all entities, of a tenth of them (memory should not
depend on their number), of all in one chunk (what chunks save), of a past moment, and into a database.
Run as `python benchmarks/forecasts.py`; it takes a minute on two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from figures import report

from mlplatform.config import ExperimentConfig, ForecastDatabase, load_experiment
from mlplatform.datamodule import ModelSpec, Panel
from mlplatform.features.feast import apply_dataset
from mlplatform.features.online import materialize_online
from mlplatform.models import DirectFitModel, create_model
from mlplatform.preprocessing import TransformManager
from mlplatform.registry import Contract, Forecaster, experiment_id
from mlplatform.registry.pairs import PairStore, example_rows
from mlplatform.settings import PACKAGE_ROOT, Settings
from mlplatform.testing import pump_settings, write_feature_table

BENCHMARK = "forecasts"
EXPERIMENT = "pump_xgboost"
OVERRIDES = (
    "lookback=24",
    "horizon=24",
    "dataset.window_steps=48",
    "split.context_steps=48",
    "split.test_steps.late=24",
)
ENTITIES, TENTH, HOURS, CHUNK = 10_000, 1_000, 60, 500
DATABASE = "BENCHMARK_FORECASTS"


def main() -> None:
    """Print every figure."""
    found = {}
    for entities in (TENTH, ENTITIES):
        with tempfile.TemporaryDirectory() as folder:
            environ = prepare(Path(folder), entities)
            cases = ("now",) if entities == TENTH else ("now", "one chunk", "past moment", "database")
            found |= {(entities, case): measured(environ, case) for case in cases}
    tenth, whole = found[TENTH, "now"], found[ENTITIES, "now"]
    size = f"{ENTITIES} entities x 24 steps, {CHUNK} at a time"
    report(BENCHMARK, size, whole["seconds"], "s", peer=f"{TENTH} entities", peer_value=tenth["seconds"])
    report(
        BENCHMARK, f"{size}: rows", whole["rows"], "rows", aim=str(ENTITIES * 24), met=whole["rows"] == ENTITIES * 24
    )
    report(BENCHMARK, f"{size}: peak memory", whole["mib"], "MiB", peer=f"{TENTH} entities", peer_value=tenth["mib"],
           aim="at most 1.25 of a tenth", met=whole["mib"] <= 1.25 * tenth["mib"])  # fmt: skip
    alone = found[ENTITIES, "one chunk"]
    report(BENCHMARK, "all in one chunk: peak memory", alone["mib"], "MiB", peer=size, peer_value=whole["mib"])
    report(BENCHMARK, "all in one chunk", alone["seconds"], "s", peer=size, peer_value=whole["seconds"])
    for case in ("past moment", "database"):
        figures = found[ENTITIES, case]
        report(BENCHMARK, case, figures["seconds"], "s", peer=size, peer_value=whole["seconds"])
        report(BENCHMARK, f"{case}: peak memory", figures["mib"], "MiB", peer=size, peer_value=whole["mib"])


def prepare(folder: Path, entities: int) -> dict[str, str]:
    """Fill an installation with features and a pair in production, and return its environment."""
    settings = pump_settings(folder / "state")
    config = experiment(settings)
    frame = rows(entities)
    write_feature_table(frame, config.dataset, settings)
    apply_dataset(config.dataset, settings)
    materialize_online(config.dataset, settings)
    register(config, frame[frame["entity_id"] <= 20], settings)
    return {
        "MLPLATFORM_HOME": str(settings.home),
        "MLPLATFORM_CONF_DIR": str(settings.conf_dir),
        DATABASE: f"sqlite:///{folder / 'forecasts.db'}",
    }


def measured(environ: dict[str, str], case: str) -> dict[str, float]:
    """Return the figures of one run in a process of its own."""
    variables = {**os.environ, **environ, "PYTHONPATH": str(PACKAGE_ROOT.parent)}
    command = [sys.executable, "-W", "ignore", __file__, case]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_once(case: str) -> None:
    """Make one run and print its figures."""
    from mlplatform.forecasts import make_forecasts

    settings = Settings.from_env()
    config = experiment(settings)
    changes: dict[str, Any] = {"chunk_entities": ENTITIES if case == "one chunk" else CHUNK}
    if case == "database":
        changes["database"] = ForecastDatabase(address_env=DATABASE)
    config = config.model_copy(update={"forecasts": config.forecasts.model_copy(update=changes)})
    time_point = pd.Timestamp.now(tz="UTC").isoformat() if case == "past moment" else "now"
    done = make_forecasts(config, settings, time_point)
    # Not what `getrusage` says, which begins with the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    print(json.dumps({"seconds": done.seconds, "mib": peak, "rows": done.rows}))


def experiment(settings: Settings) -> ExperimentConfig:
    """Return the experiment that looks a day back and a day ahead."""
    return load_experiment(EXPERIMENT, OVERRIDES, settings)


def rows(entities: int) -> pd.DataFrame:
    """Return hourly rows of many pumps."""
    noise = np.random.default_rng(5)
    steps, units = np.tile(np.arange(HOURS), entities), np.repeat(np.arange(1, entities + 1), HOURS)
    flow = 5 + units % 7 + 2 * np.sin(2 * np.pi * steps / 24) + noise.normal(0, 0.1, len(steps))
    return pd.DataFrame(
        {
            "entity_id": units,
            "event_timestamp": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(steps, unit="h"),
            "flow": flow.astype(np.float32),
            "heat": (20 + 3 * flow).astype(np.float32),
            "state": np.where(flow > 6, "open", "shut").astype(object),
        }
    )


def register(config: ExperimentConfig, frame: pd.DataFrame, settings: Settings) -> None:
    """Fit a pair on some rows and put it into production."""
    from mlflow import MlflowClient

    panel = Panel.from_frame(frame, config.features.columns)
    manager = TransformManager.for_experiment(config).fit(panel)
    contract = Contract.for_experiment(config, manager)
    spec = ModelSpec(
        task="forecast",
        channels=contract.columns,
        targets=(contract.columns.index("heat"),),
        lookback=contract.lookback,
        horizon=contract.horizon,
        step_seconds=contract.step_seconds,
    )
    model = create_model(config.model.family, config.model.params, spec)
    assert isinstance(model, DirectFitModel)
    forecaster = Forecaster(contract, manager, model)
    origins = panel.offsets[1:] - 1 - contract.horizon
    model.fit(forecaster.windows(manager.transform(panel), origins), None)
    run_id = MlflowClient(settings.mlflow_tracking_uri).create_run(experiment_id(settings, config.name)).info.run_id
    store = PairStore(settings)
    example = example_rows(contract, frame)
    pair = store.register(config.registered_name, forecaster, config.model.family, run_id, example=example)
    store.promote(pair.name, pair.version, who="benchmark", why="a benchmark")


if __name__ == "__main__":
    if sys.argv[1:]:
        run_once(sys.argv[1])
    else:
        main()
