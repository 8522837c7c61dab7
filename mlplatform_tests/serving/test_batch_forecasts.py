"""The table of forecasts holds what the server answers, bit for bit, and what the registered pyfunc answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.forecasts import make_forecasts, read_forecasts
from mlplatform.registry.pairs import PairStore
from mlplatform.registry.tracking import open_tracking
from mlplatform.settings import Settings
from mlplatform_tests.serving.conftest import UNITS, Platform, put_online, register, series, table
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend


def forecasts(platform: Platform, experiment: str, time_point: str = "now", **changes: Any) -> pd.DataFrame:
    """Run the batch and return its table."""
    config = load_experiment(experiment, settings=platform.settings)
    report = make_forecasts(config.model_copy(update=changes), platform.settings, time_point)
    found = read_forecasts(platform.settings, experiment, report.origin)
    assert len(found) == report.rows
    return found


def served(platform: Platform, experiment: str, entities: list[int], time_point: str = "now") -> Any:
    settings = platform.serving(experiment)
    with TestClient(build_app({experiment: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        answer = client.post("/predict/feast/batch", json={"entities": entities, "time_point": time_point})
    assert answer.status_code == 200, answer.text
    return answer.json()


def chunked(config: ExperimentConfig, size: int) -> Any:
    return config.forecasts.model_copy(update={"chunk_entities": size})


@pytest.mark.parametrize("size", [1, 2, 500])
def test_forecasts_are_those_of_the_server(platform: Platform, size: int) -> None:
    config = load_experiment("tiny_forecast", settings=platform.settings)
    found = forecasts(platform, "tiny_forecast", forecasts=chunked(config, size))
    answer = served(platform, "tiny_forecast", list(UNITS))
    assert set(found["version"]) == {answer["version"]}
    assert set(found["pair_id"]) == {answer["pair_id"]}
    assert found["entity_id"].drop_duplicates().tolist() == list(UNITS)
    for expected in answer["forecasts"]:
        own = found[found["entity_id"] == expected["entity"]]
        assert own["step"].tolist() == [1, 2, 3]
        assert own["value"].tolist() == np.array(expected["values"]["oil"], np.float32).tolist()
        assert own["timestamp"].tolist() == pd.to_datetime(expected["timestamps"]).tolist()
        assert set(own["window_end"]) == {pd.Timestamp(expected["window_end"])}
        assert set(own["event_time"]) == {pd.Timestamp(expected["event_time"])}
        assert set(own["observed"]) == {expected["observed"]}
        assert set(own["fallback"]) == {expected["fallback"]}
        assert set(own["stale"]) == {expected["stale"]}
        assert all(json.loads(json.dumps(list(marks))) == expected["marks"] for marks in own["marks"])
        assert (own["age_seconds"] - expected["age_seconds"]).abs().max() < 60


@pytest.mark.parametrize("time_point", ["2026-01-03T10:30:00Z", "2026-02-01T00:00:00Z"], ids=["inside", "after"])
def test_forecasts_of_a_moment_are_those_of_the_server(platform: Platform, time_point: str) -> None:
    found = forecasts(platform, "tiny_forecast", time_point)
    for expected in served(platform, "tiny_forecast", list(UNITS), time_point)["forecasts"]:
        own = found[found["entity_id"] == expected["entity"]]
        assert own["value"].tolist() == np.array(expected["values"]["oil"], np.float32).tolist()
        assert set(own["window_end"]) == {pd.Timestamp(expected["window_end"])}
        # Both count from the moment, and not from the clock.
        assert set(own["age_seconds"]) == {expected["age_seconds"]}


def test_forecasts_are_those_of_the_registered_pyfunc(platform: Platform) -> None:
    found = forecasts(platform, "tiny_forecast")
    open_tracking(platform.settings)
    rows = mlflow.pyfunc.load_model("models:/tiny_forecast_forecaster@production").predict(platform.raw)
    assert found["entity_id"].tolist() == rows["entity_id"].tolist()
    assert found["timestamp"].tolist() == rows["event_timestamp"].tolist()
    assert found["value"].to_numpy().tobytes() == rows["oil"].to_numpy(np.float32).tobytes()


def test_regression_is_that_of_the_server(platform: Platform) -> None:
    found = forecasts(platform, "tiny_regression")
    ids = table()["entity_id"].tolist()
    answer = served(platform, "tiny_regression", ids)
    assert found["entity_id"].tolist() == ids
    assert found["value"].tolist() == [np.float32(each["value"]).item() for each in answer["predictions"]]
    assert set(found["step"]) == {0}
    # The dataset has no time column, so no row has a time; the table is named by the day.
    assert found[["timestamp", "window_end", "event_time", "age_seconds"]].isna().all(axis=None)
    assert set(found["origin"]) == {pd.Timestamp.now(tz="UTC").normalize()}


def test_classification_is_that_of_the_server(platform: Platform) -> None:
    found = forecasts(platform, "tiny_classification")
    answer = served(platform, "tiny_classification", table()["entity_id"].tolist())
    for (_, row), expected in zip(found.iterrows(), answer["predictions"], strict=True):
        assert (row["entity_id"], row["label"]) == (expected["entity"], expected["label"])
        probabilities = {label: np.float32(value).item() for label, value in expected["probabilities"].items()}
        assert dict(row["probabilities"]) == probabilities
        assert row["value"] == max(probabilities.values())


def test_what_falls_back_has_no_interval(platform: Platform) -> None:
    config = load_experiment("tiny_forecast", settings=platform.settings)
    observation = config.observation.model_copy(update={"min_observed": 0.9, "action": "fallback"})
    found = forecasts(platform, "tiny_forecast", observation=observation)
    assert found.groupby("entity_id")["fallback"].first().to_dict() == {1: False, 2: True, 3: False}


@pytest.fixture
def crowd(platform: Platform, tmp_path: Path) -> Platform:
    """An installation of its own with 150 units, every unit with a level of its own, some with a gap."""
    environ = {**platform.environ, "MLPLATFORM_HOME": str(tmp_path / "state")}
    settings = Settings.from_env(environ)
    one, noise = series()[lambda rows: rows["entity_id"] == 1], np.random.default_rng(2)
    parts = [one.assign(entity_id=np.int64(unit), oil=one["oil"] + np.float32(unit / 7)) for unit in range(1, 151)]
    rows = pd.concat(parts, ignore_index=True)
    rows["load"] = (rows["load"] + noise.normal(0, 0.1, len(rows))).astype(np.float32)
    rows.loc[rows.index[::17], "load"] = np.nan
    put_online(rows, load_experiment("tiny_forecast", settings=settings).dataset, settings)
    pair = register("tiny_forecast", settings, rounds=6)
    PairStore(settings).promote(pair.name, pair.version, who="test", why="a test")
    return Platform(settings, environ, rows)


def test_a_hundred_of_many_are_those_of_the_server_and_of_the_pyfunc(crowd: Platform) -> None:
    config = load_experiment("tiny_forecast", settings=crowd.settings)
    found = forecasts(crowd, "tiny_forecast", forecasts=chunked(config, 40))
    assert found["entity_id"].nunique() == 150
    drawn = np.random.default_rng(3).permutation(np.arange(1, 151))[:100].tolist()
    own = {entity: rows["value"].to_numpy(np.float32) for entity, rows in found.groupby("entity_id")}
    answers = served(crowd, "tiny_forecast", drawn)["forecasts"]
    assert [each["entity"] for each in answers] == drawn
    for each in answers:
        assert own[each["entity"]].tobytes() == np.array(each["values"]["oil"], np.float32).tobytes()
    open_tracking(crowd.settings)
    rows = crowd.raw[crowd.raw["entity_id"].isin(drawn)]
    told = mlflow.pyfunc.load_model("models:/tiny_forecast_forecaster@production").predict(rows)
    assert told["entity_id"].nunique() == 100
    for entity, part in told.groupby("entity_id"):
        assert own[entity].tobytes() == part["oil"].to_numpy(np.float32).tobytes()
    # Units differ, or one forecast could stand for all.
    assert len({values.tobytes() for values in own.values()}) > 100
