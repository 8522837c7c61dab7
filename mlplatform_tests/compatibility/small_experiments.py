"""The experiments behind a stored state, as a user's configuration folder and data files.

Two datasets with a hundred rows or two, and one experiment per model family and task, so that a state with all of them
is small. Nothing is taken from the packaged configuration, which may be tuned anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HOURS, PARTS = 192, 120

GROUPS: dict[str, dict[str, Any]] = {
    "dataset/pump": {
        "name": "pump",
        "kind": "timeseries",
        "source": {"uri": "pump.csv"},
        "time_column": "time",
        "entity_column": "unit",
        "frequency": "1h",
        "window_steps": 24,
        "columns": {
            "flow": {"min": 0, "unit": "l/s"},
            "heat": {"min": -50, "max": 200, "unit": "degC"},
            "valve": {"type": "category"},
            "site": {"type": "category", "nullable": False},
        },
    },
    "dataset/parts": {
        "name": "parts",
        "kind": "tabular",
        "source": {"uri": "parts.csv"},
        "columns": {
            "width": {"min": 0, "unit": "mm"},
            "colour": {"type": "category"},
            "weight": {"min": 0, "unit": "g"},
            "grade": {"type": "category", "nullable": False},
        },
    },
    "features/pump_v1": {"version": "pump_v1", "columns": ["flow", "heat", "valve"]},
    "features/pump_known_v1": {
        "version": "pump_known_v1",
        "columns": ["heat", "flow", "site"],
        "known_future": ["flow"],
        "static": ["site"],
    },
    "features/parts_v1": {"version": "parts_v1", "columns": ["width", "colour"]},
    "split/pump_v1": {
        "version": "pump_v1",
        "reference_steps": 36,
        "context_steps": 16,
        "cv": {"name": "expanding", "params": {"validation_steps": 24}},
        "folds": 2,
    },
    "split/parts_v1": {
        "version": "parts_v1",
        "reference_fraction": 0.25,
        "seed": 7,
        "cv": {"name": "kfold"},
        "folds": 2,
    },
    "preprocessing/pump": {
        "steps": [
            {"transform": "impute", "params": {"strategy": "median", "limit": 2}},
            {"transform": "clip", "params": {"lower": 0.01, "upper": 0.99}},
            {"transform": "scale", "params": {"method": "standard"}},
        ]
    },
    "preprocessing/pump_robust": {
        "steps": [
            {"transform": "impute", "params": {"strategy": "mean", "limit": 2}},
            {"transform": "log", "columns": ["flow"]},
            {"transform": "scale", "params": {"method": "robust"}},
        ]
    },
    "preprocessing/parts": {
        "steps": [
            {"transform": "label_encoding", "columns": ["colour"]},
            {"transform": "impute", "columns": ["width"]},
            {"transform": "scale", "columns": ["width", "weight"], "params": {"method": "minmax"}},
        ]
    },
    "preprocessing/parts_inputs": {"steps": [{"transform": "impute"}, {"transform": "scale"}]},
    "model/pump_xgboost_v1": {
        "version": "pump_xgboost_v1",
        "family": "xgboost",
        "params": {"num_boost_round": 8, "patience": 3, "max_depth": 2, "learning_rate": 0.3},
        "search_space": {"max_depth": {"type": "int", "low": 2, "high": 3}},
    },
    "model/pump_catboost_v1": {
        "version": "pump_catboost_v1",
        "family": "catboost",
        "params": {"iterations": 20, "patience": 5, "learning_rate": 0.3, "depth": 3},
        "search_space": {},
    },
    "model/pump_random_forest_v1": {
        "version": "pump_random_forest_v1",
        "family": "random_forest",
        "params": {"n_estimators": 8, "max_features": 0.8, "min_samples_leaf": 5},
        "search_space": {},
    },
    "model/pump_ridge_v1": {
        "version": "pump_ridge_v1",
        "family": "ridge",
        "params": {"alpha": 0.3},
        "search_space": {},
    },
    "model/pump_nlinear_v1": {
        "version": "pump_nlinear_v1",
        "family": "nlinear",
        "params": {"max_epochs": 8, "decay": 0.9, "device": "cpu"},
        "search_space": {},
    },
    "model/pump_tft_v1": {
        "version": "pump_tft_v1",
        "family": "tft",
        "params": {"max_epochs": 6, "hidden": 8, "heads": 2, "batch_size": 16, "learning_rate": 0.01, "device": "cpu"},
        "search_space": {},
    },
    "model/parts_xgboost_v1": {
        "version": "parts_xgboost_v1",
        "family": "xgboost_tabular",
        "params": {"num_boost_round": 25, "patience": 5, "learning_rate": 0.3},
        "search_space": {},
    },
    "model/parts_catboost_v1": {
        "version": "parts_catboost_v1",
        "family": "catboost_tabular",
        "params": {"iterations": 25, "patience": 5, "learning_rate": 0.3},
        "search_space": {},
    },
    "model/parts_random_forest_v1": {
        "version": "parts_random_forest_v1",
        "family": "random_forest_tabular",
        "params": {"n_estimators": 10},
        "search_space": {},
    },
    "tuning/one_trial": {"trials": 1},
    "tuning/two_trials": {"trials": 2, "pruner_startup_trials": 2},
    "promotion/any_gain": {"margin": 0.0, "must_beat_baselines": True, "min_reference_rows": 20},
    "drift/day": {"test": "wasserstein", "recent_steps": 24, "min_predictions": 24},
}
FORECAST: dict[str, Any] = {
    "task": "forecast",
    "targets": ["heat"],
    "lookback": 12,
    "horizon": 3,
    "metric": "mae",
    "extra_metrics": ["rmse"],
    "seed": 3,
    "baselines": [{"name": "repeat_last"}, {"name": "seasonal_naive", "params": {"season": 12}}],
}
TABULAR: dict[str, Any] = {"seed": 3, "baselines": [{"name": "dummy"}, {"name": "linear"}]}
REGRESSION = {**TABULAR, "task": "regression", "targets": ["weight"], "metric": "rmse", "extra_metrics": ["mae"]}
CLASSES = {**TABULAR, "task": "classification", "targets": ["grade"], "metric": "log_loss"}
QUANTILES = {"uncertainty": {"coverage": 0.8, "quantiles": [0.1, 0.5, 0.9]}}
# Experiment -> (options of the groups that differ from its dataset's own, values).
EXPERIMENTS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "pump_xgboost": ({"tuning": "two_trials"}, FORECAST),
    "pump_catboost": ({}, FORECAST),
    "pump_random_forest": ({"preprocessing": "pump_robust"}, FORECAST),
    "pump_ridge": ({"preprocessing": "pump_robust"}, FORECAST),
    "pump_nlinear": ({}, FORECAST),
    "pump_tft": ({"features": "pump_known_v1"}, {**FORECAST, **QUANTILES}),
    "parts_xgboost": ({}, REGRESSION),
    "parts_catboost": ({"preprocessing": "parts_inputs"}, CLASSES),
    "parts_random_forest": ({"preprocessing": "parts_inputs"}, CLASSES),
}


def write_conf(folder: Path) -> None:
    """Write the configuration folder."""
    for name, values in GROUPS.items():
        _write(folder, name, values)
    for name, (choices, values) in EXPERIMENTS.items():
        dataset = name.partition("_")[0]
        groups = {
            "dataset": dataset,
            "features": f"{dataset}_v1",
            "split": f"{dataset}_v1",
            "preprocessing": dataset,
            "model": f"{name}_v1",
            "tuning": "one_trial",
            "promotion": "any_gain",
            "drift": "day",
            **choices,
        }
        defaults = [*({f"/{group}": option} for group, option in groups.items()), "_self_"]
        _write(folder, f"experiment/{name}", {"defaults": defaults, "name": name, **values}, "# @package _global_\n")


def write_data(folder: Path) -> None:
    """Write the CSV files."""
    folder.mkdir(parents=True)
    pump_rows().to_csv(folder / "pump.csv", index=False)
    parts_rows().to_csv(folder / "parts.csv", index=False)


def pump_rows() -> pd.DataFrame:
    """Return hourly rows of two pumps whose heat follows the flow of two hours before; one has a few holes."""
    noise = np.random.default_rng(5)
    hours = np.arange(HOURS)
    frames = []
    for unit, site in ((1, "north"), (2, "south")):
        wander = np.cumsum(noise.normal(0, 0.25, HOURS))
        flow = 9 + unit + 2 * np.sin(2 * np.pi * hours / 12) + wander - wander.mean()
        heat = 20 + unit + 3 * np.roll(flow, 2) + noise.normal(0, 0.1, HOURS)
        frame = pd.DataFrame(
            {
                "unit": unit,
                "time": pd.date_range("2024-01-01", periods=HOURS, freq="1h", tz="UTC"),
                "flow": flow.round(3),
                "heat": heat.round(3),
                "valve": np.where(flow > 9 + unit, "open", "shut"),
                "site": site,
            }
        )
        frames.append(frame)
    frames[0].loc[[40, 41, 42, 90], "heat"] = np.nan
    return pd.concat(frames, ignore_index=True)


def parts_rows() -> pd.DataFrame:
    """Return parts whose weight and grade follow their width and colour; a few widths are missing."""
    noise = np.random.default_rng(6)
    width = noise.uniform(1, 10, PARTS)
    colour = noise.choice(["red", "green", "blue"], PARTS)
    weight = 3 * width + 4 * (colour == "red") + noise.normal(0, 0.3, PARTS)
    grade = np.select([width > 7, width > 4], ["large", "medium"], "small")
    frame = pd.DataFrame({"width": width.round(3), "colour": colour, "weight": weight.round(3), "grade": grade})
    frame.loc[[3, 50], "width"] = np.nan
    return frame


def _write(folder: Path, name: str, values: Mapping[str, Any], head: str = "") -> None:
    """Write one file; JSON is YAML."""
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{json.dumps(values, indent=1)}\n")
