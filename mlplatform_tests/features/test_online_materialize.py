"""Incremental materialisation writes what changed, however late, and starts over where it cannot know that."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import redis

from mlplatform.config import DatasetConfig
from mlplatform.features.errors import UnknownEntityError
from mlplatform.features.feast.definitions import features_view_name
from mlplatform.features.feast.repository import apply_dataset, open_store
from mlplatform.features.online import materialize as materialize_module
from mlplatform.features.online.materialize import OnlineReport, materialize_online
from mlplatform.features.online.push import push_rows
from mlplatform.features.online.read import read_rows, read_windows
from mlplatform.features.online.rows import write_windows
from mlplatform.features.retrieval.offline import offline_windows
from mlplatform.features.tables.feature_table import table_link
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table
from mlplatform_tests.features.conftest import STEPS, raw_frame, tabular, tabular_frame, timeseries

START = pd.Timestamp("2024-03-01", tz="UTC")
COLUMNS = ["load", "oil", "mode"]


@pytest.fixture
def settings(online_settings: Settings) -> Settings:
    """Run every test here on every kind of online store."""
    return online_settings


@pytest.fixture
def plant(settings: Settings) -> DatasetConfig:
    """A dataset whose entity 1 ends at hour 39 and entity 2 at hour 37, materialised."""
    dataset = timeseries("plant")
    write_feature_table(raw_frame(), dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    return dataset


def row(entity: Any, hour: int, load: float) -> pd.DataFrame:
    moment = START + pd.Timedelta(hours=hour)
    return pd.DataFrame(
        {"entity_id": [entity], "event_timestamp": [moment], "load": [load], "oil": [0.0], "mode": ["eco"]}
    )


def with_rows(*rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([raw_frame(), *rows]).drop_duplicates(["entity_id", "event_timestamp"], keep="last")


def incremental(dataset: DatasetConfig, settings: Settings) -> OnlineReport:
    return materialize_online(dataset, settings, "incremental")


def online_equals_offline(dataset: DatasetConfig, settings: Settings, entities: list[Any]) -> bool:
    online = read_windows(dataset, entities, COLUMNS, STEPS, settings)
    (offline,) = offline_windows(dataset, entities, ["now"], COLUMNS, STEPS, settings)
    return (
        online.timestamps.tolist() == offline.timestamps.tolist()
        and all(online.columns[name].tobytes() == offline.columns[name].tobytes() for name in ("load", "oil"))
        and online.columns["mode"].tolist() == offline.columns["mode"].tolist()
    )


def load(dataset: DatasetConfig, settings: Settings, entity: Any, steps: int) -> list[float]:
    return [float(value) for value in read_windows(dataset, [entity], ["load"], steps, settings).columns["load"]]


def test_only_changed_entities_are_written_and_late_rows_are_among_them(
    plant: DatasetConfig, settings: Settings
) -> None:
    assert (incremental(plant, settings).mode, incremental(plant, settings).written) == ("incremental", 0)
    write_feature_table(with_rows(row(1, 37, 5.0)), plant, settings)
    report = incremental(plant, settings)
    assert (report.mode, report.written, report.entities) == ("incremental", 1, 2)
    assert load(plant, settings, 1, 3)[0] == 5.0
    write_feature_table(with_rows(row(1, 37, 5.0), row(2, 38, 6.0), row(3, 38, 7.0)), plant, settings)
    assert incremental(plant, settings).written == 2
    assert online_equals_offline(plant, settings, [1, 2, 3])
    assert read_rows(plant, [3, 2], ["load"], settings).columns["load"].tolist() == [7.0, 6.0]


def test_steps_that_were_pushed_stay_until_the_table_has_them(plant: DatasetConfig, settings: Settings) -> None:
    push_rows(plant, pd.concat([row(1, 39, 1.0), row(1, 40, 2.0), row(1, 41, 3.0), row(2, 36, 4.0)]), settings)
    write_feature_table(with_rows(row(1, 38, 8.0), row(1, 40, 9.0), row(2, 33, 5.0)), plant, settings)
    assert incremental(plant, settings).written == 2
    assert load(plant, settings, 1, 4) == [8.0, float(raw_frame()["load"][36]), 9.0, 3.0]
    assert read_rows(plant, [1], ["load"], settings).columns["load"].tolist() == [3.0]
    assert online_equals_offline(plant, settings, [2])
    write_feature_table(with_rows(row(1, 38, 8.0), row(1, 40, 9.0), row(1, 41, 3.0)), plant, settings)
    assert incremental(plant, settings).written == 1  # entity 2, whose row is back to what it was
    assert online_equals_offline(plant, settings, [1, 2])


def test_entities_that_did_not_change_keep_what_was_pushed(plant: DatasetConfig, settings: Settings) -> None:
    push_rows(plant, row(1, 38, 4.0), settings)
    write_feature_table(with_rows(row(2, 38, 5.0)), plant, settings)
    assert incremental(plant, settings).written == 1
    assert load(plant, settings, 1, 2)[0] == 4.0


def test_a_full_run_takes_back_what_was_pushed(plant: DatasetConfig, settings: Settings) -> None:
    push_rows(plant, row(1, 41, 3.0), settings)
    assert not online_equals_offline(plant, settings, [1])
    report = materialize_online(plant, settings)
    assert (report.mode, report.written) == ("full", 2)
    assert online_equals_offline(plant, settings, [1, 2])
    assert load(plant, settings, 1, 1) == [float(raw_frame()["load"][36])]


def test_another_table_is_written_in_full(plant: DatasetConfig, settings: Settings) -> None:
    link = table_link(plant, settings)
    link.unlink()
    write_feature_table(raw_frame(seed=4), plant, settings)
    report = incremental(plant, settings)
    assert (report.mode, report.written) == ("full", 2)
    assert online_equals_offline(plant, settings, [1, 2])


def test_an_emptied_online_store_is_filled_again(plant: DatasetConfig, settings: Settings) -> None:
    if settings.redis_url is None:
        with sqlite3.connect(settings.feast_dir / "online.db") as connection:
            connection.executescript("DROP TABLE mlplatform_plant_features; DROP TABLE mlplatform_plant_windows")
            connection.execute("PRAGMA user_version = 0")
    else:
        client = redis.Redis.from_url(settings.redis_url)
        client.flushall()
        client.close()
    assert incremental(plant, settings).mode == "full"
    assert online_equals_offline(plant, settings, [1, 2])


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"revision": "new"}'])
def test_a_damaged_note_of_what_the_store_holds_has_it_filled_again(
    plant: DatasetConfig, settings: Settings, damaged: str
) -> None:
    (settings.feast_dir / "materialized" / f"{plant.name}.json").write_text(damaged)
    assert incremental(plant, settings).mode == "full"
    assert incremental(plant, settings).mode == "incremental"


def test_a_killed_run_is_finished_by_the_next(
    plant: DatasetConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_feature_table(with_rows(row(1, 40, 1.0), row(2, 40, 2.0)), plant, settings)
    write = write_windows
    written: list[int] = []

    def killed(known: Any, windows: Any, *rest: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.extend(windows.entity_ids.tolist())
        write(known, windows, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(materialize_module, "CHUNK", 1)
        patch.setattr(materialize_module, "write_windows", killed)
        with pytest.raises(KeyboardInterrupt):
            incremental(plant, settings)
    assert written == [1]
    report = incremental(plant, settings)
    assert (report.mode, report.written) == ("incremental", 1)
    assert online_equals_offline(plant, settings, [1, 2])


def test_a_killed_full_run_is_not_taken_for_a_whole_one(
    plant: DatasetConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_rows(plant, row(2, 39, 3.0), settings)
    write = write_windows

    def killed(known: Any, windows: Any, *rest: Any) -> None:
        if 2 in windows.entity_ids:
            raise KeyboardInterrupt
        write(known, windows, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(materialize_module, "CHUNK", 1)
        patch.setattr(materialize_module, "write_windows", killed)
        with pytest.raises(KeyboardInterrupt):
            materialize_online(plant, settings)
    assert incremental(plant, settings).mode == "full"
    assert online_equals_offline(plant, settings, [1, 2])


def test_blocks_and_row_groups_do_not_show(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialize_module, "CHUNK", 2)
    dataset = timeseries("plant")
    parts = [raw_frame(seed) for seed in range(4)]
    many = pd.concat([part.assign(entity_id=part["entity_id"] + 10 * seed) for seed, part in enumerate(parts)])
    write_feature_table(many, dataset, settings)
    apply_dataset(dataset, settings)
    assert materialize_online(dataset, settings).written == 8
    entities = sorted(many["entity_id"].unique().tolist())
    assert online_equals_offline(dataset, settings, entities)
    write_feature_table(pd.concat([many, row(11, 40, 5.0), row(32, 40, 5.0)]), dataset, settings)
    assert incremental(dataset, settings).written == 2
    assert online_equals_offline(dataset, settings, entities)


def test_the_recorded_intervals_join(plant: DatasetConfig, settings: Settings) -> None:
    write_feature_table(with_rows(row(1, 45, 1.0)), plant, settings)
    incremental(plant, settings)
    view = open_store(settings).registry.get_feature_view(features_view_name(plant), "mlplatform")
    hours = [
        tuple((moment - START) / pd.Timedelta(hours=1) for moment in pair) for pair in view.materialization_intervals
    ]
    assert hours == [(0.0, 39.0), (39.0, 45.0)]


def test_tabular_rows_are_compared_one_by_one(settings: Settings) -> None:
    dataset = tabular()
    write_feature_table(tabular_frame(), dataset, settings)
    apply_dataset(dataset, settings)
    assert materialize_online(dataset, settings, "incremental").mode == "full"
    assert incremental(dataset, settings).written == 0
    changed = tabular_frame().assign(age=np.array([0.1, 5.0, 77.7], dtype=np.float32))
    older = changed.iloc[[0]].assign(entity_id="d", event_timestamp=pd.Timestamp("1990-01-01", tz="UTC"))
    newer = changed.iloc[[2]].assign(event_timestamp=pd.Timestamp("2001-01-01", tz="UTC"), age=9.0)
    push_rows(dataset, newer, settings)
    write_feature_table(pd.concat([changed, older]), dataset, settings)
    report = incremental(dataset, settings)
    assert (report.mode, report.written) == ("incremental", 2)
    panel = read_rows(dataset, ["a", "b", "c", "d"], ["age"], settings)
    assert panel.columns["age"].tolist() == [np.float32(0.1), 5.0, 9.0, np.float32(0.1)]


def test_what_one_installation_materialised_is_not_taken_for_anothers(plant: DatasetConfig, settings: Settings) -> None:
    fresh = replace(settings, home=settings.home.parent / "other")
    write_feature_table(raw_frame(), plant, fresh)
    apply_dataset(plant, fresh)
    assert incremental(plant, fresh).mode == "full"


class TestRemoval:
    """Entities that the source has no more are unknown, and not served as they last were."""

    def without(self, entity: int) -> pd.DataFrame:
        frame = raw_frame()
        return frame[frame["entity_id"] != entity]

    @pytest.mark.parametrize("mode", ["full", "incremental"])
    def test_an_entity_that_left_the_table_is_unknown(
        self, plant: DatasetConfig, settings: Settings, mode: Any
    ) -> None:
        read_windows(plant, [1, 2], COLUMNS, STEPS, settings)
        write_feature_table(self.without(2), plant, settings)
        assert materialize_online(plant, settings, mode).removed == 1
        read_windows(plant, [1], COLUMNS, STEPS, settings)
        for read in (
            lambda: read_windows(plant, [1, 2], COLUMNS, STEPS, settings),
            lambda: read_rows(plant, [2], COLUMNS, settings),
        ):
            with pytest.raises(UnknownEntityError, match="2"):
                read()
        assert materialize_online(plant, settings, mode).removed == 0

    def test_one_that_comes_back_is_as_it_is_in_the_table(self, plant: DatasetConfig, settings: Settings) -> None:
        before = read_windows(plant, [2], COLUMNS, STEPS, settings)
        write_feature_table(self.without(2), plant, settings)
        incremental(plant, settings)
        write_feature_table(raw_frame(), plant, settings)
        incremental(plant, settings)
        after = read_windows(plant, [2], COLUMNS, STEPS, settings)
        assert after.columns["load"].tobytes() == before.columns["load"].tobytes()
        assert after.timestamps.tolist() == before.timestamps.tolist()

    def test_a_push_brings_it_back_too(self, plant: DatasetConfig, settings: Settings) -> None:
        write_feature_table(self.without(2), plant, settings)
        materialize_online(plant, settings)
        push_rows(plant, row(2, 40, 1.5), settings)
        assert read_windows(plant, [2], COLUMNS, STEPS, settings).columns["load"][-1] == 1.5

    def test_a_run_that_was_killed_forgets_nobody(
        self, plant: DatasetConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame = raw_frame()
        third = frame[frame["entity_id"] == 2].assign(entity_id=np.int64(3))
        write_feature_table(pd.concat([frame, third]), plant, settings)
        with monkeypatch.context() as patch:
            patch.setattr(materialize_module, "remove_entities", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                materialize_online(plant, settings)
        read_windows(plant, [3], COLUMNS, STEPS, settings)
        write_feature_table(self.without(2), plant, settings)
        assert materialize_online(plant, settings).removed == 2
        for entity in (2, 3):
            with pytest.raises(UnknownEntityError):
                read_windows(plant, [entity], COLUMNS, STEPS, settings)

    def test_rows_of_a_table_go_as_well(self, settings: Settings) -> None:
        dataset = tabular()
        write_feature_table(tabular_frame(), dataset, settings)
        apply_dataset(dataset, settings)
        materialize_online(dataset, settings)
        gone = tabular_frame()["entity_id"].iloc[0]
        write_feature_table(tabular_frame().iloc[1:], dataset, settings)
        assert materialize_online(dataset, settings).removed == 1
        with pytest.raises(UnknownEntityError):
            read_rows(dataset, [gone], ["age"], settings)
