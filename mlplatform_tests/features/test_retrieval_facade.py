"""Three lines to features: what an experiment implies, how old the answer is, and what a staleness policy does."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import (
    DatasetConfig,
    ExperimentConfig,
    FeaturesConfig,
    PreprocessingConfig,
    StalenessConfig,
    StepConfig,
    load_experiment,
)
from mlplatform.datamodule.panel import Panel
from mlplatform.features import FeatureStoreFacade
from mlplatform.features.errors import FeatureStoreError, StaleFeaturesError, UnknownEntityError
from mlplatform.features.retrieval.facade import create_strategy
from mlplatform.features.retrieval.freshness import judge, newest_event_times
from mlplatform.features.retrieval.strategies.online import OnlineRetrieval
from mlplatform.features.retrieval.strategies.tabular import TabularRetrieval
from mlplatform.features.retrieval.strategies.timeseries import TimeSeriesRetrieval
from mlplatform.settings import Settings
from mlplatform_tests.features.conftest import STEPS, raw_frame, tabular, tabular_frame, timeseries
from mlplatform_tests.features.stores import fill_store

HOUR = np.timedelta64(1, "h")
# Entity 1 ends at 15:00 on 2024-03-02, entity 2 at 13:00; see `raw_frame`.
ENDS = {1: np.datetime64("2024-03-02T15:00", "ns"), 2: np.datetime64("2024-03-02T13:00", "ns")}
NO_POLICY = StalenessConfig()


@pytest.fixture
def filled(dataset: DatasetConfig, settings: Settings) -> DatasetConfig:
    fill_store(raw_frame(), dataset, settings)
    return dataset


def experiment(staleness: StalenessConfig = NO_POLICY) -> ExperimentConfig:
    """An experiment on `plant` that reads two columns, six steps and two of preprocessing context."""
    context = StepConfig(transform="impute", params={"strategy": "median", "limit": 2})
    return load_experiment("fleet_xgboost").model_copy(
        update={
            "dataset": timeseries("plant"),
            "features": FeaturesConfig(version="plant_v1", columns=("oil", "load")),
            "lookback": 6,
            "preprocessing": PreprocessingConfig(steps=(context,)),
            "staleness": staleness,
        }
    )


@pytest.mark.parametrize("mode", ["online", "timeseries"])
def test_an_experiment_implies_columns_and_steps(mode: str, filled: DatasetConfig, settings: Settings) -> None:
    store = FeatureStoreFacade(experiment(), mode, settings)
    panel = store.load_features("now", [2, 1])
    assert list(panel.columns) == ["oil", "load"]
    assert panel.offsets.tolist() == [0, 8, 16]
    whole = FeatureStoreFacade(filled, mode, settings).load_features("now", [2, 1], ["oil", "load"], steps=STEPS)
    last = np.r_[STEPS - 8 : STEPS, 2 * STEPS - 8 : 2 * STEPS]
    assert panel.matrix(["oil", "load"]).tobytes() == whole.matrix(["oil", "load"])[last].tobytes()


def test_the_settings_come_from_the_environment(
    filled: DatasetConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPLATFORM_HOME", str(settings.home))
    store = FeatureStoreFacade(filled, mode="online")
    assert store.load_features("now", [1]).entity_ids.tolist() == [1]


def test_without_a_mode_the_history_is_read(filled: DatasetConfig, settings: Settings) -> None:
    assert isinstance(FeatureStoreFacade(filled, settings=settings).strategy, TimeSeriesRetrieval)
    assert isinstance(FeatureStoreFacade(tabular(), settings=settings).strategy, TabularRetrieval)


def test_importing_the_facades_package_is_cheap() -> None:
    code = "import sys, mlplatform.features\nassert not {'pandas', 'numpy', 'feast'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("mode", ["online", "timeseries"])
def test_every_read_says_how_old_it_is(mode: str, filled: DatasetConfig, settings: Settings) -> None:
    store = FeatureStoreFacade(filled, mode, settings)
    panel = store.load_features("2024-03-02T18:30:00Z", [2, 1], steps=3)
    assert panel.event_times.tolist() == [ENDS[2].astype(int), ENDS[1].astype(int)]
    assert panel.ages.dtype == np.dtype("timedelta64[ns]")
    assert panel.ages.tolist() == [(5.5 * HOUR.astype("m8[ns]")).astype(int), (3.5 * HOUR.astype("m8[ns]")).astype(int)]
    assert panel.is_stale.tolist() == [False, False]
    before = np.datetime64(dt.datetime.now(dt.UTC).replace(tzinfo=None), "ns")
    now = store.load_features("now", [1], steps=3)
    after = np.datetime64(dt.datetime.now(dt.UTC).replace(tzinfo=None), "ns")
    assert before - ENDS[1] <= now.ages[0] <= after - ENDS[1]


def test_offline_ages_count_from_the_cut_off_and_see_through_gaps(filled: DatasetConfig, settings: Settings) -> None:
    store = FeatureStoreFacade(filled, "timeseries", settings)
    # Entity 1 has no rows from 12:00 to 14:00, so at 14:30 its newest row is that of 11:00.
    panel = store.load_features("2024-03-02T14:30:00Z", [1, 2], ["load"], steps=5)
    assert panel.timestamps[4] == np.datetime64("2024-03-02T14:00")
    assert (panel.ages / np.timedelta64(1, "m")).tolist() == [210, 90]
    ranged = store.load_features("2024-03-02T14:30:00Z", [1], ["load"], start="2024-03-02T00:00Z")
    assert ranged.ages.tolist() == panel.ages[:1].tolist()


def test_tabular_ages_are_those_of_the_rows(settings: Settings) -> None:
    timed = tabular().model_copy(update={"time_column": "seen"})
    later = tabular_frame().iloc[[0]].assign(event_timestamp=pd.Timestamp("2010-01-01", tz="UTC"))
    fill_store(pd.concat([tabular_frame(), later]), timed, settings)
    panel = FeatureStoreFacade(timed, "tabular", settings).load_features("2010-01-03", ["b", "a"])
    assert panel.ages[1] == np.timedelta64(2, "D")
    assert panel.ages[0] == np.datetime64("2010-01-03") - np.datetime64("2000-01-01")
    assert panel.timestamps.tolist() == panel.event_times.tolist()
    earlier = FeatureStoreFacade(timed, "tabular", settings).load_features("2009-12-31", ["a"])
    assert earlier.event_times[0] == np.datetime64("2000-01-01")
    online = FeatureStoreFacade(timed, "online", settings).load_features("now", ["a", "b"])
    assert online.event_times.tolist() == [panel.event_times[1].astype(int), panel.event_times[0].astype(int)]


@pytest.mark.parametrize("mode", ["online", "tabular"])
def test_rows_without_a_time_have_no_age(mode: str, settings: Settings) -> None:
    fill_store(tabular_frame(), tabular(), settings)
    panel = FeatureStoreFacade(tabular(), mode, settings).load_features("now", ["b", "a"])
    assert np.isnat(panel.event_times).all()
    assert np.isnat(panel.ages).all()
    assert panel.is_stale.tolist() == [False, False]
    # Nobody can say that they are new enough.
    marking = StalenessConfig(max_age="6h", action="flag")
    marked = FeatureStoreFacade(tabular(), mode, settings, staleness=marking).load_features("now", ["b", "a"])
    assert marked.is_stale.tolist() == [True, True]
    refusing = FeatureStoreFacade(tabular(), mode, settings, staleness=StalenessConfig(max_age="6h"))
    with pytest.raises(StaleFeaturesError, match=r"'a' \(of unknown age, because the dataset has no time_column\)"):
        refusing.load_features("now", ["a"])


def panel_of(load: list[float], mode: list[str | None]) -> Panel:
    """Two entities with three hourly rows each."""
    times = np.datetime64("2024-01-01T00", "ns") + np.arange(3) * HOUR
    return Panel(
        columns={"load": np.array(load, dtype=np.float32), "mode": np.array(mode, dtype=object)},
        timestamps=np.tile(times, 2),
        entity_ids=np.array([7, 8]),
        offsets=np.array([0, 3, 6]),
    )


def test_the_event_time_is_that_of_the_newest_row_with_a_value() -> None:
    nan = float("nan")
    measured = panel_of([1, nan, nan, 1, 2, nan], [None, None, None, None, "eco", "eco"])
    assert (newest_event_times(measured) - np.datetime64("2024-01-01")).tolist() == [0, 2 * 3600 * 10**9]
    nothing = panel_of([nan] * 6, [None] * 6)
    assert (newest_event_times(nothing) == np.datetime64("2024-01-01")).all()


def test_an_age_is_never_negative_and_the_limit_itself_is_not_too_old() -> None:
    panel = panel_of([1.0] * 6, [None] * 6)
    early = judge(panel, "2024-01-01T01:00Z", "d", StalenessConfig(max_age="1h"))
    assert early.ages.tolist() == [0, 0]
    assert not judge(panel, "2024-01-01T03:00Z", "d", StalenessConfig(max_age="1h")).is_stale.any()
    over = judge(panel, "2024-01-01T03:00:00.000001Z", "d", StalenessConfig(max_age="1h", action="flag"))
    assert over.is_stale.tolist() == [True, True]
    assert over.with_columns({}).is_stale.tolist() == [True, True]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("mode", ["online", "timeseries"])
def test_refuse_names_entities_ages_limit_and_what_to_do(mode: str, settings: Settings) -> None:
    store = FeatureStoreFacade(experiment(StalenessConfig(max_age="4h")), mode, settings)
    with pytest.raises(StaleFeaturesError) as caught:
        store.load_features("2024-03-02T18:30:00Z", [1, 2])
    message = str(caught.value)
    assert "older than the limit of 4:00:00: 2 (newest row 2024-03-02T13:00:00+00:00, age 5:30:00);" in message
    assert "staleness.max_age" in message
    assert [stale.entity for stale in caught.value.stale] == [2]
    assert caught.value.stale[0].age == dt.timedelta(hours=5.5)
    assert isinstance(caught.value, FeatureStoreError)
    assert store.load_features("2024-03-02T18:30:00Z", [1]).ages[0] == np.timedelta64(210, "m")


@pytest.mark.usefixtures("filled")
def test_flag_answers_and_marks(settings: Settings) -> None:
    config = experiment(StalenessConfig(max_age="4h", action="flag"))
    panel = FeatureStoreFacade(config, "online", settings).load_features("2024-03-02T18:30:00Z", [1, 2])
    assert panel.is_stale.tolist() == [False, True]
    stricter = StalenessConfig(max_age="1h", action="flag")
    facade = FeatureStoreFacade(config, "online", settings, staleness=stricter)
    assert facade.load_features("2024-03-02T18:30:00Z", [1, 2]).is_stale.tolist() == [True, True]


@pytest.mark.usefixtures("filled")
def test_data_of_the_past_is_usable_without_a_limit(settings: Settings) -> None:
    panel = FeatureStoreFacade(experiment(), "online", settings).load_features("now", [1, 2])
    assert not panel.is_stale.any()
    assert (panel.ages > np.timedelta64(365, "D")).all()


def test_the_strategies_offer_their_reads_one_by_one(filled: DatasetConfig, settings: Settings) -> None:
    online = create_strategy(filled, "online", settings, NO_POLICY)
    assert isinstance(online, OnlineRetrieval)
    sequence = online.get_latest_n_sequence([2, 1], 3, ["load"], "2024-03-02T16:00Z")
    assert sequence.offsets.tolist() == [0, 3, 6]
    assert (sequence.ages / HOUR).tolist() == [3, 1]
    latest = online.get_online_features([2, 1], ["load"])
    assert latest.columns["load"].tolist() == sequence.columns["load"][[2, 5]].tolist()
    history = create_strategy(filled, "timeseries", settings, NO_POLICY)
    assert isinstance(history, TimeSeriesRetrieval)
    part = history.get_sequence_by_range([2, 1], "2024-03-02T12:00Z", "2024-03-02T13:00Z", ["load"])
    assert part.offsets.tolist() == [0, 2, 4]
    assert part.columns["load"][:2].tolist() == sequence.columns["load"][1:3].tolist()
    assert (part.ages / HOUR).tolist() == [0, 1]  # entity 1 has nothing but a gap here: a lower bound
    with pytest.raises(UnknownEntityError, match="no entities 9"):
        history.get_sequence_by_range([9], None)


def test_an_online_read_needs_entities(filled: DatasetConfig, settings: Settings) -> None:
    for mode in ("online", "timeseries"):
        with pytest.raises(FeatureStoreError, match="no entities were asked for"):
            FeatureStoreFacade(filled, mode, settings).load_features("now", [], steps=2)


def test_a_limit_is_a_length_of_time() -> None:
    with pytest.raises(ValueError, match="max_age must be a positive time step such as 1h, 15min or 1D, but is '6x'"):
        StalenessConfig(max_age="6x")
    with pytest.raises(ValueError, match="refuse"):
        StalenessConfig.model_validate({"max_age": "6h", "action": "ignore"})
    assert StalenessConfig(max_age="90min").limit == dt.timedelta(minutes=90)
    overrides = ["staleness.max_age=6h", "staleness.action=flag"]
    assert load_experiment("fleet_xgboost", overrides).staleness == StalenessConfig(max_age="6h", action="flag")
    assert load_experiment("fleet_xgboost").staleness.limit is None
