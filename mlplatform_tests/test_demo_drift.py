"""The plant of `make demo-drift`: configuration, what arrives when, the picture. The demo itself takes minutes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest

from mlplatform.config import load_experiment
from mlplatform.demo_drift.client import Client
from mlplatform.demo_drift.picture import draw
from mlplatform.demo_drift.plant import COOLING_FAILS, ENTITIES, EXPERIMENT, SENSOR_STICKS, STUCK_VALUE, TARGET, Plant
from mlplatform.settings import Settings


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return Plant.build(tmp_path_factory.mktemp("demo") / "demo-drift")


def day(date: dt.date) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(), dt.UTC)


def test_its_configuration_is_one_that_the_platform_takes(plant: Plant) -> None:
    others = {"MLPLATFORM_HOME": "/elsewhere", "MLFLOW_TRACKING_URI": "http://elsewhere", "PATH": "/bin"}
    environment = plant.environment(others)
    settings = Settings.from_env(environment)
    assert settings.home == plant.home
    assert "MLFLOW_TRACKING_URI" not in environment
    assert environment["PATH"] == "/bin"
    config = load_experiment(EXPERIMENT, settings=settings)
    assert config.drift.retrain.triggers == ("errors",)
    assert config.automation.running == ("drift",)


def test_sensors_stick_in_what_arrives_and_not_in_the_truth(plant: Plant) -> None:
    stuck = plant.rows["timestamp"] >= pd.Timestamp(SENSOR_STICKS, tz="UTC")
    assert set(plant.rows.loc[stuck, "load_pu"]) == {STUCK_VALUE}
    assert plant.truth.loc[stuck, "load_pu"].nunique() > 100
    pd.testing.assert_frame_equal(plant.rows[~stuck], plant.truth[~stuck])


def test_rows_arrive_by_time(plant: Plant) -> None:
    start = day(COOLING_FAILS)
    rows = plant.between(start, start + dt.timedelta(hours=6))
    assert len(rows) == 6 * len(ENTITIES)
    assert type(rows[0]["transformer_id"]) is int
    assert rows[0]["timestamp"] == f"{COOLING_FAILS}T00:00:00+00:00"
    plant.happened(start)
    assert pd.to_datetime(pd.read_csv(plant.folder / "plant.csv")["timestamp"]).max() < start


def test_the_outcome_and_its_picture(plant: Plant, tmp_path: Path) -> None:
    client = Client(plant, "http://127.0.0.1:9", "token", day(COOLING_FAILS))
    client.ask()
    assert client.failed
    times = plant.truth["timestamp"]
    early = plant.truth[times < times.min() + pd.Timedelta(days=3)]
    for version, wrong in ((1, 1.0), (2, 3.0)):
        for row in early.itertuples():
            value = getattr(row, TARGET) + wrong
            client.values.append(
                {
                    "entity": row.transformer_id,
                    "timestamp": row.timestamp.isoformat(),
                    "value": value,
                    "lower": value - 2.0,
                    "upper": value + 2.0,
                    "version": version,
                }
            )
    outcome = client.outcome().set_index("version")
    assert outcome["error"].round(6).groupby(level=0).unique().map(list).to_dict() == {1: [1.0], 2: [3.0]}
    assert outcome["covered"].groupby(level=0).mean().to_dict() == {1: 1.0, 2: 0.0}
    marks = {"begins": day(dt.date(2024, 1, 2)), "ends": day(dt.date(2024, 1, 3))}
    path = draw(client.outcome(), marks, {1: 1.2}, tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")
