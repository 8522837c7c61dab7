"""What the online store answers equals the tail of the feature table, bit for bit."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import DatasetConfig
from mlplatform.features.errors import EntityTypeError, FeatureStoreError, UnknownEntityError
from mlplatform.features.feast.repository import apply_dataset, open_store
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.online.push import push_rows
from mlplatform.features.online.read import read_rows, read_windows
from mlplatform.features.tables.feature_table import features_path
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table
from mlplatform_tests.features.conftest import STEPS, raw_frame, tabular, tabular_frame, timeseries

NAN_PATTERN = np.uint32(0x7FC00000)


def fill(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> None:
    write_feature_table(raw, dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)


@pytest.fixture
def settings(online_settings: Settings) -> Settings:
    """Run every test here on every kind of online store."""
    return online_settings


@pytest.fixture
def filled(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> DatasetConfig:
    fill(raw, dataset, settings)
    return dataset


@pytest.mark.parametrize("name", ["a?b*[c]", "%41#c"])
def test_features_are_kept_in_the_state_folder_whatever_it_is_called(
    name: str, raw: pd.DataFrame, dataset: DatasetConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "state" / name
    settings = Settings.from_env({"MLPLATFORM_HOME": str(folder)})
    fill(raw, dataset, settings)
    row = raw[raw["entity_id"] == 1].tail(1)
    pushed = row.assign(event_timestamp=row["event_timestamp"] + pd.Timedelta(hours=1))
    assert push_rows(dataset, pushed, settings).added == 1
    panel = read_windows(dataset, [1], ["load"], 1, settings)
    assert pd.to_datetime(panel.timestamps, utc=True).tolist() == pushed["event_timestamp"].tolist()
    assert (folder / "feast" / "online.db").stat().st_size > 0
    assert list((tmp_path / "state").iterdir()) == [folder]


def test_windows_equal_the_tail_of_the_feature_table(filled: DatasetConfig, settings: Settings) -> None:
    entities: Sequence[Any] = [2, 1]
    panel = read_windows(filled, entities, ["oil", "load", "mode"], STEPS, settings)
    assert list(panel.columns) == ["oil", "load", "mode"]
    assert panel.entity_ids.tolist() == entities
    assert panel.offsets.tolist() == [0, STEPS, 2 * STEPS]
    table = pd.read_parquet(features_path(filled, settings))
    for position, entity in enumerate(entities):
        rows = table[table["entity_id"] == entity].tail(STEPS)
        inside = slice((position + 1) * STEPS - len(rows), (position + 1) * STEPS)
        padding = slice(position * STEPS, inside.start)
        for name in ("oil", "load"):
            values = panel.columns[name]
            assert values.dtype == np.float32
            assert values[inside].tobytes() == rows[name].to_numpy().tobytes()
            assert (values[padding].view(np.uint32) == NAN_PATTERN).all()
        assert panel.columns["mode"][inside].tolist() == rows["mode"].tolist()
        assert panel.columns["mode"][padding].tolist() == [None] * (STEPS - len(rows))
        times = panel.timestamps[position * STEPS : (position + 1) * STEPS]
        end = rows["event_timestamp"].iloc[-1].tz_localize(None).to_datetime64()
        np.testing.assert_array_equal(times, end - np.arange(STEPS)[::-1] * np.timedelta64(1, "h"))


def test_every_kind_of_float_survives_the_store(settings: Settings) -> None:
    values = np.array([np.nan, -0.0, np.inf, -np.inf, 1e-45, 3.4028235e38, 0.1, np.pi], dtype=np.float32)
    frame = raw_frame().iloc[:8].assign(load=values)
    fill(frame, timeseries("plant", window_steps=8), settings)
    panel = read_windows(timeseries("plant", window_steps=8), [1], ["load"], 8, settings)
    assert panel.columns["load"].tobytes() == values.tobytes()


def test_fewer_steps_are_the_end_of_the_window(filled: DatasetConfig, settings: Settings) -> None:
    whole = read_windows(filled, [1], ["load"], STEPS, settings)
    part = read_windows(filled, np.array([1, 1]), ["load"], 4, settings)
    assert part.columns["load"].tobytes() == whole.columns["load"][-4:].tobytes() * 2
    assert part.timestamps[:4].tolist() == whole.timestamps[-4:].tolist()


def test_new_data_replaces_the_windows(filled: DatasetConfig, settings: Settings) -> None:
    corrected = raw_frame(seed=9)
    fill(corrected, filled, settings)
    panel = read_windows(filled, [1], ["load"], 1, settings)
    last = corrected[corrected["entity_id"] == 1]["load"].iloc[-1]
    assert panel.columns["load"][0] == last


def test_a_time_point_before_the_stored_window_is_refused(filled: DatasetConfig, settings: Settings) -> None:
    end = "2024-03-02T15:00:00Z"
    at_end = read_windows(filled, [1, 2], ["load"], 2, settings, time_point=end)
    assert (
        at_end.columns["load"].tobytes()
        == read_windows(filled, [1, 2], ["load"], 2, settings).columns["load"].tobytes()
    )
    with pytest.raises(
        FeatureStoreError, match=r"lies before the stored window of entity 1, which ends at 2024-03-02T15"
    ):
        read_windows(filled, [2, 1], ["load"], 2, settings, time_point="2024-03-02T14:59:59+00:00")


@pytest.mark.parametrize("time_point", ["soon", "today", "01/02/2024", "", "9999-12-31T23:59:59Z", "0001-01-01"])
def test_a_time_point_is_now_or_iso_8601_of_years_that_can_be_kept(
    filled: DatasetConfig, settings: Settings, time_point: str
) -> None:
    """What some write for ever was an overflow within the store; other words were taken for the clock's time."""
    found = re.escape(f"must be 'now' or an ISO 8601 time of the years 1678 to 2261, but is {time_point!r}")
    with pytest.raises(FeatureStoreError, match=found):
        read_windows(filled, [1], ["load"], 2, settings, time_point=time_point)


def test_unknown_entities_are_named(filled: DatasetConfig, settings: Settings) -> None:
    with pytest.raises(UnknownEntityError, match="'plant' has no entities 7, -3") as caught:
        read_windows(filled, [1, 7, -3, 7], ["load"], 2, settings)
    assert caught.value.entities == (7, -3)
    with pytest.raises(UnknownEntityError, match=str(2**70)):
        read_windows(filled, [2**70], ["load"], 2, settings)


@pytest.mark.parametrize("entity", ["1", 1.0, True, None])
def test_ids_of_another_type_are_refused(entity: Any, filled: DatasetConfig, settings: Settings) -> None:
    with pytest.raises(EntityTypeError, match="entity ids are whole numbers, but got"):
        read_windows(filled, [1, entity], ["load"], 2, settings)


def test_requests_that_cannot_be_answered_say_why(filled: DatasetConfig, settings: Settings) -> None:
    with pytest.raises(FeatureStoreError, match=rf"13 steps were asked for.*have {STEPS}"):
        read_windows(filled, [1], ["load"], STEPS + 1, settings)
    with pytest.raises(FeatureStoreError, match=r"has no columns \['wind'\]; ask for any of load, oil, mode"):
        read_windows(filled, [1], ["load", "wind"], 2, settings)
    with pytest.raises(FeatureStoreError, match="no entities were asked for"):
        read_windows(filled, [], ["load"], 2, settings)
    with pytest.raises(FeatureStoreError, match="'other' is not registered: it was never applied, or"):
        read_windows(timeseries("other"), [1], ["load"], 2, settings)


def test_the_report_tells_what_was_written(filled: DatasetConfig, settings: Settings) -> None:
    report = materialize_online(filled, settings)
    assert (report.entities, report.window_steps) == (2, STEPS)
    assert report.views == ("plant_features", "plant_windows")
    assert report.end == pd.Timestamp("2024-03-02T15:00Z")


def test_materialization_never_records_an_end_beyond_the_data(filled: DatasetConfig, settings: Settings) -> None:
    store = open_store(settings)
    store.registry.refresh(store.project)
    newest = dt.datetime(2024, 3, 2, 15, tzinfo=dt.UTC)
    assert {view.most_recent_end_time for view in store.list_feature_views()} == {newest}
    with pytest.raises(
        FeatureStoreError, match=r"entity 1 .* 2024-03-02T15:00:00\+00:00, more than future_tolerance 1D"
    ):
        materialize_online(filled, settings, now=newest - dt.timedelta(days=1, seconds=1))


def test_latest_rows_of_tabular_data(settings: Settings) -> None:
    fill(tabular_frame(), tabular(), settings)
    panel = read_rows(tabular(), ["c", "b", "a"], ["sex", "age"], settings)
    assert panel.columns["age"].tobytes() == np.array([77.7, np.nan, 0.1], dtype=np.float32).tobytes()
    assert panel.columns["sex"].tolist() == [None, "m", "f"]
    assert panel.timestamps.tolist() == [np.datetime64("2000-01-01", "ns").astype(int)] * 3
    assert panel.offsets.tolist() == [0, 1, 2, 3]
    with pytest.raises(UnknownEntityError, match="'z'"):
        read_rows(tabular(), ["a", "z"], ["age"], settings)
    with pytest.raises(EntityTypeError, match="entity ids are text, but got 1 of type int"):
        read_rows(tabular(), [1], ["age"], settings)
    # NumPy's text type drops NUL characters from the end: the id would be that of another entity.
    with pytest.raises(UnknownEntityError, match=r"'a\\x00'"):
        read_rows(tabular(), ["a", "a\0"], ["age"], settings)


def test_ids_that_differ_in_an_ending_nul_are_two(settings: Settings) -> None:
    frame = tabular_frame().assign(entity_id=["a", "a\0", "a\0\0"])
    fill(frame, tabular(), settings)
    ids = ["a\0\0", "a", "a\0"]
    panel = read_rows(tabular(), ids, ["sex"], settings)
    assert panel.entity_ids.tolist() == ids
    assert panel.columns["sex"].tolist() == [None, "f", "m"]


def test_threads_read_whole_windows_while_another_writes(settings: Settings) -> None:
    dataset = timeseries("plant")
    versions = {}
    for seed in (1, 2):
        fill(raw_frame(seed), dataset, settings)
        panel = read_windows(dataset, [1, 2], ["load", "oil"], STEPS, settings)
        versions[seed] = panel.matrix(["load", "oil"]).tobytes()
    seen: set[bytes] = set()
    errors: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                panel = read_windows(dataset, [1, 2], ["load", "oil"], STEPS, settings)
                seen.add(panel.matrix(["load", "oil"]).tobytes())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for seed in (1, 2, 1, 2):
        fill(raw_frame(seed), dataset, settings)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert seen == set(versions.values())
