"""Meters: an installation whose rows a test writes into a CSV file, as a user's export would hold them.

Here: hourly rows of a few meters, and an experiment of a closed form on them. Not here: the simulated transformers of
the yard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlplatform.testing.yard import EXPERIMENT, GROUPS, Yard, write_experiment, write_option

END = "2024-01-20T23:00:00Z"
FILE = "meters.csv"


def meter_rows(hours: Mapping[str, int], end: str = END, seed: int = 5) -> pd.DataFrame:
    """Return `time`, `line` and `load` of meters that all measure up to `end`, each for so many hours."""
    noise, parts = np.random.default_rng(seed), []
    for position, (name, count) in enumerate(hours.items()):
        times = pd.date_range(end=end, periods=count, freq="h")
        load = 10 + position + 3 * np.sin(2 * np.pi * times.hour / 24) + noise.normal(0, 0.3, count)
        text = times.strftime("%Y-%m-%dT%H:%M:%SZ")
        parts.append(pd.DataFrame({"time": text, "line": name, "load": np.round(load, 3)}))
    return pd.concat(parts, ignore_index=True)


def meter_yard(
    folder: Path,
    mlflow_database: Path,
    rows: pd.DataFrame,
    *,
    dataset: Mapping[str, Any] | None = None,
    features: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    **experiment: Any,
) -> Yard:
    """Return an installation with the rows in a file, and an experiment on them that looks back 24 hours.

    Parameters:
        dataset, features: values on top of those of the two groups.
        model: in the place of a ridge.
        experiment: values on top of those of the experiment.
    """
    yard = Yard.create(folder, mlflow_database)
    yard = replace(yard, environ={**yard.environ, "MLPLATFORM_DATA_DIR": str(folder)})
    write_rows(yard, rows)
    table = {
        "name": "yard",
        "source": {"uri": FILE},
        "time_column": "time",
        "entity_column": "line",
        "frequency": "1h",
        "window_steps": 48,
        "columns": {"load": {}},
        **(dataset or {}),
    }
    write_option(yard.conf, "dataset/yard", table)
    write_option(yard.conf, "features/yard", {"version": "yard", "columns": ["load"], **(features or {})})
    write_option(yard.conf, "model/yard", model or {**GROUPS["model"], "family": "ridge", "params": {}})
    split = {**GROUPS["split"], "reference_steps": 120, "cv": {"name": "expanding", "params": {"validation_steps": 48}}}
    write_option(yard.conf, "split/yard", split)
    baselines = [{"name": "repeat_last"}]
    write_experiment(yard.conf, EXPERIMENT, **{"targets": ["load"], "baselines": baselines, **experiment})
    return yard


def write_rows(yard: Yard, rows: pd.DataFrame) -> None:
    """Write the file that the dataset is read from."""
    rows.to_csv(Path(yard.environ["MLPLATFORM_DATA_DIR"]) / FILE, index=False)
