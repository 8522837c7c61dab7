"""A small forecast experiment on a CSV file, written as YAML into a configuration folder of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.factory import create_data_module
from mlplatform.settings import Settings
from mlplatform.training.cross_validation import FoldData, fit_preprocessor, prepare_fold

UNITS = (1, 2)
HOURS = 150
NAME = "pump_xgboost"

DATASET = {
    "name": "pump",
    "kind": "timeseries",
    "source": {"uri": "pump.csv"},
    "time_column": "time",
    "entity_column": "unit",
    "frequency": "1h",
    "window_steps": 24,
    "columns": {"flow": {}, "heat": {}, "state": {"type": "category"}},
}
FEATURES = {"version": "pump_v1", "columns": ["flow", "heat", "state"]}
SPLIT = {
    "version": "pump_v1",
    "reference_steps": 24,
    "test_steps": {"late": 12},
    "context_steps": 16,
    "cv": {"name": "expanding", "params": {"validation_steps": 24}},
    "folds": 2,
}
PREPROCESSING = {"steps": [{"transform": "impute", "params": {"limit": 2}}, {"transform": "scale"}]}
MODEL = {"version": "pump_v1", "family": "xgboost", "params": {"num_boost_round": 5, "patience": 2, "max_depth": 3}}
EXPERIMENT = {
    "name": NAME,
    "task": "forecast",
    "targets": ["heat"],
    "lookback": 12,
    "horizon": 3,
    "metric": "mae",
    "extra_metrics": ["rmse"],
    "seed": 3,
    "baselines": [{"name": "repeat_last"}, {"name": "seasonal_naive", "params": {"season": 6}}, {"name": "ridge"}],
}
GROUPS: dict[str, dict[str, Any]] = {
    "dataset/pump": DATASET,
    "features/pump_v1": FEATURES,
    "split/pump_v1": SPLIT,
    "preprocessing/pump": PREPROCESSING,
    "model/pump_v1": MODEL,
    "model/pump_nlinear_v1": {"version": "pump_nlinear_v1", "family": "nlinear", "params": {"max_epochs": 3}},
}


def write_yaml(folder: Path, name: str, values: dict[str, Any], head: str = "") -> None:
    """Write one file; JSON is YAML."""
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + json.dumps(values))


def write_conf(folder: Path) -> None:
    """Write the experiment and all its groups."""
    for name, values in GROUPS.items():
        write_yaml(folder, name, values)
    write_experiment(folder, NAME)


def write_experiment(folder: Path, name: str, **changes: Any) -> None:
    """Write the experiment under a name, with some values replaced."""
    chosen = {"dataset": "pump", "features": "pump_v1", "split": "pump_v1", "preprocessing": "pump", "model": "pump_v1"}
    chosen |= {"tuning": "none", "promotion": "default", "drift": "default"}
    defaults = [*({f"/{group}": option} for group, option in chosen.items()), "_self_"]
    values = {"defaults": defaults, **EXPERIMENT, **changes, "name": name}
    write_yaml(folder, f"experiment/{name}", values, "# @package _global_\n")


def pump_settings(folder: Path) -> Settings:
    """Return an installation with the experiment's configuration and data in `folder`."""
    (folder / "input").mkdir(parents=True)
    write_conf(folder / "conf")
    csv = pump_frame().rename(columns={"entity_id": "unit", "event_timestamp": "time"})
    csv.to_csv(folder / "input" / "pump.csv", index=False)
    return Settings.from_env(
        {
            "MLPLATFORM_HOME": str(folder / "home"),
            "MLPLATFORM_CONF_DIR": str(folder / "conf"),
            "MLPLATFORM_DATA_DIR": str(folder / "input"),
        }
    )


def pump_frame(hours: int = HOURS, units: Sequence[int] = UNITS) -> pd.DataFrame:
    """Return canonical rows: two units whose heat follows the flow of two hours before; unit 1 has a few holes."""
    noise = np.random.default_rng(5)
    pieces = []
    for unit in units:
        steps = np.arange(hours)
        flow = 5 + unit + 2 * np.sin(2 * np.pi * steps / 24) + noise.normal(0, 0.1, hours)
        heat = 20 + 3 * np.roll(flow, 2) + noise.normal(0, 0.1, hours)
        pieces.append(
            pd.DataFrame(
                {
                    "entity_id": np.int64(unit),
                    "event_timestamp": pd.date_range("2024-01-01", periods=hours, freq="1h", tz="UTC", unit="ns"),
                    "flow": flow.astype(np.float32),
                    "heat": heat.astype(np.float32),
                    "state": np.where(flow > 6, "open", "shut").astype(object),
                }
            )
        )
    holes = pieces[0].index.intersection([40, 41, 42, 90])
    pieces[0].loc[holes, "heat"] = np.nan
    return pd.concat(pieces, ignore_index=True)


def pump_config(settings: Settings, *overrides: str) -> ExperimentConfig:
    """Return the experiment with Hydra overrides."""
    return load_experiment(NAME, overrides, settings)


def pump_module(config: ExperimentConfig) -> DataModule:
    """Return all rows as one data module, without a split."""
    return create_data_module(config, pump_frame())


def prepare_folds(module: DataModule) -> list[FoldData]:
    """Return the folds of a module, preprocessed."""
    names = module.config.split.fold_names
    return [
        prepare_fold(name, module, fold, fit_preprocessor(module, fold.fit_rows))
        for name, fold in zip(names, module.folds(), strict=True)
    ]
