"""Offline retrieval: whole history, ranges, windows at cut-offs, and rows as of a moment."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import DatasetConfig
from mlplatform.features.errors import EntityTypeError, FeatureStoreError, UnknownEntityError
from mlplatform.features.feast.repository import apply_dataset
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.online.read import read_windows
from mlplatform.features.retrieval import FeatureStoreFacade, load_history, offline_windows
from mlplatform.features.tables.feature_table import features_path
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table
from mlplatform_tests.features.conftest import STEPS, raw_frame, tabular, tabular_frame, timeseries

COLUMNS = ["oil", "mode", "load"]


@pytest.fixture
def applied(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> DatasetConfig:
    write_feature_table(raw, dataset, settings)
    apply_dataset(dataset, settings)
    return dataset


def test_history_is_the_feature_table_in_canonical_form(applied: DatasetConfig, settings: Settings) -> None:
    history = load_history(applied, COLUMNS, settings)
    table = pd.read_parquet(features_path(applied, settings))
    assert list(history.columns) == ["entity_id", "event_timestamp", *COLUMNS]
    assert history["event_timestamp"].dtype == "datetime64[ns, UTC]"
    for name in ("oil", "load"):
        assert history[name].dtype == np.float32
        assert history[name].to_numpy().tobytes() == table[name].to_numpy().tobytes()
    assert history["mode"].tolist() == table["mode"].tolist()
    assert history["entity_id"].tolist() == table["entity_id"].tolist()


def test_history_can_be_cut_at_both_ends(applied: DatasetConfig, settings: Settings) -> None:
    part = load_history(applied, ["load"], settings, start="2024-03-02T10:00", end=dt.datetime(2024, 3, 2, 11))
    assert part["event_timestamp"].dt.hour.tolist() == [10, 11, 10, 11]
    assert part["entity_id"].tolist() == [1, 1, 2, 2]


def test_offline_windows_equal_online_windows_bit_for_bit(applied: DatasetConfig, settings: Settings) -> None:
    materialize_online(applied, settings)
    online = read_windows(applied, [2, 1], COLUMNS, STEPS, settings)
    for cutoff in ("now", "2024-03-02T15:00:00Z", "2030-01-01"):
        (offline,) = offline_windows(applied, [2, 1], [cutoff], COLUMNS, STEPS, settings)
        for name in ("oil", "load"):
            assert offline.columns[name].tobytes() == online.columns[name].tobytes()
        assert offline.columns["mode"].tolist() == online.columns["mode"].tolist()
        assert offline.timestamps.tobytes() == online.timestamps.tobytes()
        assert offline.offsets.tolist() == online.offsets.tolist()
        assert offline.entity_ids.tolist() == [2, 1]


def test_a_window_at_a_cut_off_equals_the_window_served_then(
    raw: pd.DataFrame, applied: DatasetConfig, settings: Settings
) -> None:
    cutoffs = ["2024-03-02T11:20:00", "2024-03-02T10:00:00"]
    windows = offline_windows(applied, [1, 2], cutoffs, COLUMNS, STEPS, settings)
    then = timeseries("then")
    for cutoff, offline in zip(cutoffs, windows, strict=True):
        write_feature_table(raw[raw["event_timestamp"] <= pd.Timestamp(cutoff, tz="UTC")], then, settings)
        apply_dataset(then, settings)
        materialize_online(then, settings)
        served = read_windows(then, [1, 2], COLUMNS, STEPS, settings)
        for name in ("oil", "load"):
            assert offline.columns[name].tobytes() == served.columns[name].tobytes()
        assert offline.timestamps.tobytes() == served.timestamps.tobytes()


def test_a_window_may_end_inside_a_gap(applied: DatasetConfig, settings: Settings) -> None:
    (panel,) = offline_windows(applied, [1], ["2024-03-02T14:59"], ["load"], 4, settings)
    assert panel.timestamps[-1] == np.datetime64("2024-03-02T14:00")
    assert np.isnan(panel.columns["load"]).tolist() == [False, True, True, True]


def test_unknown_and_unborn_entities_are_named(applied: DatasetConfig, settings: Settings) -> None:
    with pytest.raises(UnknownEntityError, match="no entities 5"):
        offline_windows(applied, [1, 5], ["now"], ["load"], 3, settings)
    with pytest.raises(UnknownEntityError, match="no entities 2"):
        offline_windows(applied, [1, 2], ["2024-03-01T12:00"], ["load"], 3, settings)
    with pytest.raises(EntityTypeError, match="got '1'"):
        offline_windows(applied, ["1"], ["now"], ["load"], 3, settings)


def test_time_series_mode_reads_ranges_and_last_steps(applied: DatasetConfig, settings: Settings) -> None:
    facade = FeatureStoreFacade(applied, "timeseries", settings)
    everything = facade.load_features()
    assert everything.rows == 45
    assert list(everything.columns) == ["load", "oil", "mode"]
    part = facade.load_features("2024-03-02T11:00Z", entities=[2, 1], columns=["load"], start="2024-03-02T10:00Z")
    assert part.entity_ids.tolist() == [2, 1]
    assert part.offsets.tolist() == [0, 2, 4]
    steps = facade.load_features("2024-03-02T11:30Z", entities=[1], columns=["load"], steps=2)
    assert steps.columns["load"].tobytes() == part.columns["load"][2:].tobytes()
    with pytest.raises(
        FeatureStoreError, match="no rows of these entities in the requested range; theirs reach from 2024-03-01"
    ):
        facade.load_features("2024-02-01", entities=[1])
    with pytest.raises(FeatureStoreError, match="not both"):
        facade.load_features(steps=1, start="2024-03-01")


def test_tabular_mode_answers_as_of_the_moment(settings: Settings) -> None:
    later = tabular_frame().iloc[[0]].assign(event_timestamp=pd.Timestamp("2010-01-01", tz="UTC"), age=np.float32(5))
    write_feature_table(pd.concat([tabular_frame(), later]), tabular(), settings)
    apply_dataset(tabular(), settings)
    facade = FeatureStoreFacade(tabular(), "tabular", settings)
    assert facade.load_features(entities=["c", "a"], columns=["age"]).columns["age"].tolist() == [np.float32(77.7), 5]
    before = facade.load_features("2009-12-31", entities=["a"], columns=["age", "sex"])
    assert before.columns["age"].tolist() == [np.float32(0.1)]
    assert before.columns["sex"].tolist() == ["f"]
    with pytest.raises(UnknownEntityError, match="'a', 'b', 'c'"):
        facade.load_features("1999-01-01")
    with pytest.raises(UnknownEntityError, match=r"'a\\x00'"):
        facade.load_features(entities=["a\0"])
    with pytest.raises(FeatureStoreError, match="takes no steps or start"):
        facade.load_features(steps=3)


def test_online_mode_reads_the_online_store(applied: DatasetConfig, settings: Settings) -> None:
    materialize_online(applied, settings)
    panel = FeatureStoreFacade(applied, "online", settings).load_features()
    assert panel.entity_ids.tolist() == [1, 2]
    assert panel.rows == 2 * STEPS
    short = FeatureStoreFacade(applied, "online", settings).load_features(entities=[2], columns=["load"], steps=3)
    assert short.columns["load"].tobytes() == panel.columns["load"][-3:].tobytes()
    write_feature_table(tabular_frame(), tabular(), settings)
    apply_dataset(tabular(), settings)
    materialize_online(tabular(), settings)
    assert FeatureStoreFacade(tabular(), "online", settings).load_features().entity_ids.tolist() == ["a", "b", "c"]


def test_a_mode_must_exist_and_fit_the_dataset(dataset: DatasetConfig, settings: Settings) -> None:
    with pytest.raises(
        FeatureStoreError, match="unknown retrieval mode 'stream'; known: as_known, online, tabular, timeseries"
    ):
        FeatureStoreFacade(dataset, "stream", settings)
    with pytest.raises(FeatureStoreError, match="'tabular' does not fit dataset 'plant' of kind timeseries"):
        FeatureStoreFacade(dataset, "tabular", settings)


def test_history_needs_the_table_and_the_registration(dataset: DatasetConfig, settings: Settings) -> None:
    with pytest.raises(FeatureStoreError, match="materialise plant/feature_table first"):
        load_history(dataset, ["load"], settings)
    write_feature_table(raw_frame(), dataset, settings)
    with pytest.raises(FeatureStoreError, match="or apply_dataset"):
        load_history(dataset, ["load"], settings)


def test_the_package_does_not_import_feast_or_duckdb_by_itself() -> None:
    modules = "retrieval online.read feast.repository feast.definitions tables.feature_table asof.query"
    code = (
        "import importlib, sys\n"
        f"[importlib.import_module('mlplatform.features.' + name) for name in '{modules}'.split()]\n"
        "assert not {'feast', 'duckdb', 'pyarrow.parquet'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
