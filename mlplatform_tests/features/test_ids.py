"""Entity ids from a source to every store and back: what is asked for by its own id is what was delivered under it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data import ingest
from mlplatform.features.errors import UnknownEntityError
from mlplatform.features.feast.repository import apply_dataset, open_store
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.online.push import push_rows
from mlplatform.features.online.read import read_rows, read_windows
from mlplatform.features.retrieval.offline import load_history, offline_windows
from mlplatform.features.tables import update_feature_table
from mlplatform.monitoring.prediction_log import PredictionLog, ServedPredictions, read_predictions
from mlplatform.settings import Settings

BIG = 1787654321098765437
TEXT = ["007", "7", "12E2", "1200", "1.0"]
WHOLE = [BIG, BIG + 1, 7, -3, 2**63 - 1]
HOURS = 3
NOW = pd.Timestamp("2024-01-01T03:00Z")


def fleet(entity_type: str = "auto") -> DatasetConfig:
    return DatasetConfig.model_validate(
        {
            "name": "fleet",
            "source": {"uri": "fleet.csv"},
            "time_column": "time",
            "entity_column": "line",
            "entity_type": entity_type,
            "frequency": "1h",
            "window_steps": HOURS,
            "columns": {"load": {}, "kind": {"type": "category"}},
        }
    )


def store(ids: list[Any], dataset: DatasetConfig, settings: Settings, folder: Path) -> Settings:
    """Bring hours of every id, its number in the list as `load`, from a CSV file to the online store."""
    settings = replace(settings, data_dir=folder)
    rows = [
        {"time": f"2024-01-01T{hour:02d}:00Z", "line": value, "load": number, "kind": value}
        for hour in range(HOURS)
        for number, value in enumerate(ids)
    ]
    pd.DataFrame(rows, dtype=object).to_csv(folder / "fleet.csv", index=False)
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    return settings


@pytest.mark.parametrize(
    ("ids", "entity_type"), [(TEXT, "auto"), (TEXT, "string"), (WHOLE, "auto"), (WHOLE, "integer"), (WHOLE, "string")]
)
def test_ids_in_are_ids_out_of_every_store_and_the_log(
    ids: list[Any], entity_type: str, online_settings: Settings, tmp_path: Path
) -> None:
    dataset = fleet(entity_type)
    settings = store(ids, dataset, online_settings, tmp_path)
    ids = [str(value) for value in ids] if entity_type == "string" else ids
    numbers = [float(number) for number in range(len(ids))]
    categories = [str(value) for value in ids]

    online = read_windows(dataset, ids, ["load", "kind"], 1, settings)
    assert online.entity_ids.tolist() == ids
    assert online.columns["load"].tolist() == numbers
    assert online.columns["kind"].tolist() == categories
    assert read_rows(dataset, ids, ["load"], settings).columns["load"].tolist() == numbers
    (offline,) = offline_windows(dataset, ids, ["now"], ["load", "kind"], 1, settings)
    assert (offline.columns["load"].tolist(), offline.columns["kind"].tolist()) == (numbers, categories)
    history = load_history(dataset, ["load"], settings)
    assert history.groupby(ENTITY)["load"].first().to_dict() == dict(zip(ids, numbers, strict=True))
    asked = pd.DataFrame({ENTITY: ids, TIMESTAMP: NOW})
    joined = open_store(settings).get_historical_features(asked, ["fleet_features:load"]).to_df()
    assert joined[ENTITY].tolist() == ids
    assert joined["load"].tolist() == numbers

    pushed = pd.DataFrame({ENTITY: ids, TIMESTAMP: NOW, "load": [number + 0.5 for number in numbers], "kind": "new"})
    assert push_rows(dataset, pushed, settings).added == len(ids)
    latest = read_windows(dataset, ids, ["load"], 1, settings)
    assert latest.columns["load"].tolist() == [number + 0.5 for number in numbers]
    other = "0" if isinstance(ids[0], str) else BIG + 2
    with pytest.raises(UnknownEntityError):
        read_windows(dataset, [other], ["load"], 1, settings)

    log = PredictionLog(settings, "fleet")
    log.append(served(online.entity_ids))
    log.close()
    assert read_predictions(settings, "fleet")["entity_id"].tolist() == categories


def served(ids: Any) -> ServedPredictions:
    moments = np.full((len(ids), 1), np.datetime64("2024-01-01T03:00", "ns"))
    return ServedPredictions(
        served_at=dt.datetime(2024, 1, 1, 3, tzinfo=dt.UTC),
        request_id="r",
        version=1,
        pair_id="p",
        entity_ids=[str(entity) for entity in ids.tolist()],
        origins=moments[:, 0],
        targets=("load",),
        steps=np.ones(1, np.int64),
        timestamps=moments,
        values=np.zeros((len(ids), 1, 1)),
    )


def test_the_configuration_changes_the_type_of_ids_in_every_table(settings: Settings, tmp_path: Path) -> None:
    before = store([7, 8], fleet(), settings, tmp_path)
    assert read_windows(fleet(), [7, 8], ["load"], 1, before).columns["load"].tolist() == [0, 1]
    dataset = fleet("string")
    after = store(["007", "8"], dataset, settings, tmp_path)
    assert read_windows(dataset, ["007", "8"], ["load"], 1, after).columns["load"].tolist() == [0, 1]
    assert load_history(dataset, ["load"], after)[ENTITY].unique().tolist() == ["007", "8"]
