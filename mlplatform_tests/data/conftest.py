"""Fixtures of the data tests: a home of their own, and a small hourly data set to bend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlplatform.config import DatasetConfig
from mlplatform.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "input").mkdir()
    return Settings.from_env(
        {"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_DATA_DIR": str(tmp_path / "input")}
    )


def hourly_dataset(**changes: Any) -> DatasetConfig:
    """A data set of one series with two numbers and a category; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "name": "pump",
        "kind": "timeseries",
        "source": {"uri": "pump.csv"},
        "time_column": "time",
        "frequency": "1h",
        "window_steps": 4,
        "max_bad_fraction": 0.5,
        "columns": {
            "flow": {"min": 0, "max": 100},
            "pressure": {"nullable": False},
            "state": {"type": "category"},
        },
    }
    return DatasetConfig.model_validate(fields | changes)


def hourly_frame(rows: int = 6, start: str = "2024-01-01") -> pd.DataFrame:
    """Good rows for `hourly_dataset`, as a source would deliver them."""
    times = pd.date_range(start, periods=rows, freq="1h").strftime("%Y-%m-%d %H:%M:%S")
    return pd.DataFrame(
        {
            "time": times.astype(object),
            "flow": [float(row) for row in range(rows)],
            "pressure": [1.5] * rows,
            "state": ["open"] * rows,
        }
    )
