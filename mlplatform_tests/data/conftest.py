"""Fixtures of the data tests: a home of their own, and a small hourly data set to bend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlplatform.config import DatasetConfig
from mlplatform.settings import Settings
from mlplatform_tests.data.servers import Database, Kafka, kafka_cluster, mysql_server, postgres_server, redis_server


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


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as database:
        yield database


@pytest.fixture(scope="session")
def mysql() -> Iterator[Database]:
    with mysql_server() as database:
        yield database


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    with kafka_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a Redis server."""
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address
