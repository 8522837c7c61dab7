"""Entities that their source removes: unknown to whoever serves, while what is known of their past stays as it was."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ENTITY, DatasetConfig
from mlplatform.data import ingest
from mlplatform.features import FeatureStoreFacade, UnknownEntityError
from mlplatform.features.feast.repository import apply_dataset, open_store
from mlplatform.features.online import materialize_online, push_rows, read_rows, read_windows, remove_online
from mlplatform.features.retrieval import load_history
from mlplatform.features.tables import is_behind, present_ranges, update_feature_table
from mlplatform.settings import Settings

HOURS = 30
START = pd.Timestamp("2024-01-01", tz="UTC")


@pytest.fixture
def settings(online_settings: Settings, tmp_path: Path) -> Settings:
    """Run every test here on every kind of online store."""
    return replace(online_settings, data_dir=tmp_path)


def fleet(kind: str = "timeseries", **changes: Any) -> DatasetConfig:
    fields = {
        "name": "fleet",
        "kind": kind,
        "source": {"uri": "fleet.csv"},
        "time_column": "time",
        "entity_column": "line",
        "removed_column": "removed",
        "frequency": "1h",
        "window_steps": 8,
        "columns": {"flow": {}},
    }
    return DatasetConfig.model_validate(fields | changes)


def rows(line: str, hours: range | list[int], removed: Any = None) -> pd.DataFrame:
    times = [(START + pd.Timedelta(hours=hour)).isoformat() for hour in hours]
    cells = {"time": times, "line": line, "flow": [float(hour) for hour in hours], "removed": removed}
    return pd.DataFrame(cells, dtype=object)


BOTH = [rows("007", range(HOURS)), rows("7", range(HOURS))]
GONE = pd.DataFrame({"time": [None], "line": ["7"], "flow": [None], "removed": ["true"]}, dtype=object)


def bring(dataset: DatasetConfig, settings: Settings, mode: Any, *frames: pd.DataFrame) -> Any:
    """Ingest a file of these rows and bring both stores up to date."""
    assert settings.data_dir is not None
    pd.concat(frames).to_csv(settings.data_dir / "fleet.csv", index=False)
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    apply_dataset(dataset, settings)
    return materialize_online(dataset, settings, mode)


def served(dataset: DatasetConfig, settings: Settings, mode: str = "online", **asked: Any) -> list[Any]:
    return FeatureStoreFacade(dataset, mode, settings).load_features(**asked).entity_ids.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", ["full", "incremental"])
@pytest.mark.parametrize("kind", ["timeseries", "tabular"])
def test_it_is_unknown_and_its_rows_stay(settings: Settings, kind: str, mode: Any) -> None:
    dataset = fleet(kind)
    bring(dataset, settings, "full", *BOTH)
    before = load_history(dataset, ["flow"], settings)
    report = bring(dataset, settings, mode, *BOTH, GONE)
    assert (report.removed, report.entities) == (1, 1)
    reads: list[Callable[[], Any]] = [lambda: read_rows(dataset, ["7"], ["flow"], settings)]
    asked: dict[str, Any] = {"steps": 4} if kind == "timeseries" else {}
    modes = ("online", "as_known", kind)
    reads += [lambda mode=mode: served(dataset, settings, mode, entities=["7"], **asked) for mode in modes]
    if kind == "timeseries":
        reads.append(lambda: read_windows(dataset, ["007", "7"], ["flow"], 4, settings))
    for read in reads:
        with pytest.raises(UnknownEntityError, match="'7'"):
            read()
    assert [served(dataset, settings, mode, **asked) for mode in modes] == [["007"]] * 3
    pd.testing.assert_frame_equal(load_history(dataset, ["flow"], settings), before)
    assert bring(dataset, settings, mode, *BOTH, GONE).removed == 0


def test_what_was_known_in_the_past_is_as_it_was(settings: Settings) -> None:
    dataset = fleet()
    bring(dataset, settings, "full", *BOTH)
    moments = [START + pd.Timedelta(hours=12, minutes=30), pd.Timestamp.now(tz="UTC").floor("us")]

    def then(moment: pd.Timestamp, mode: str) -> tuple[list[Any], bytes]:
        panel = FeatureStoreFacade(dataset, mode, settings).load_features(moment.isoformat(), steps=8)
        return panel.entity_ids.tolist(), panel.columns["flow"].tobytes()

    answers = [then(moment, mode) for moment in moments for mode in ("timeseries", "as_known")]
    assert all(ids == ["007", "7"] for ids, _ in answers)
    bring(dataset, settings, "incremental", *BOTH, GONE)
    assert [then(moment, mode) for moment in moments for mode in ("timeseries", "as_known")] == answers
    gone = pd.Timestamp.now(tz="UTC")
    assert [then(gone, mode)[0] for mode in ("timeseries", "as_known")] == [["007"]] * 2
    bring(dataset, settings, "incremental", *BOTH)
    assert [then(gone, mode)[0] for mode in ("timeseries", "as_known")] == [["007"]] * 2
    assert then(pd.Timestamp.now(tz="UTC"), "as_known")[0] == ["007", "7"]


def test_batch_forecasts_ask_for_those_that_are_there(settings: Settings) -> None:
    dataset = fleet()
    bring(dataset, settings, "full", *BOTH)
    before = pd.Timestamp.now(tz="UTC")
    bring(dataset, settings, "incremental", *BOTH, GONE)
    assert present_ranges(dataset, settings)[ENTITY].tolist() == ["007"]
    assert present_ranges(dataset, settings, before)[ENTITY].tolist() == ["007", "7"]


@pytest.mark.parametrize("more", [[], [rows("7", [HOURS])]])
def test_one_that_comes_back_is_served_from_its_whole_history(settings: Settings, more: list[pd.DataFrame]) -> None:
    dataset = fleet()
    bring(dataset, settings, "full", *BOTH, GONE)
    bring(dataset, settings, "incremental", *BOTH, *more)
    window = read_windows(dataset, ["7"], ["flow"], 8, settings)
    end = HOURS + len(more)
    assert window.columns["flow"].tolist() == list(range(end - 8, end))


def test_a_removal_alone_puts_the_table_behind(settings: Settings) -> None:
    dataset = fleet()
    bring(dataset, settings, "full", *BOTH)
    assert settings.data_dir is not None
    pd.concat([*BOTH, GONE]).to_csv(settings.data_dir / "fleet.csv", index=False)
    assert not is_behind(dataset, settings)
    ingest(dataset, settings)
    assert is_behind(dataset, settings)
    report = update_feature_table(dataset, settings)
    assert (report.periods_written, report.rows) == ((), 2 * HOURS)
    assert not is_behind(dataset, settings)


def test_the_last_one_can_leave(settings: Settings) -> None:
    dataset = fleet()
    bring(dataset, settings, "full", *BOTH)
    bring(dataset, settings, "incremental", *BOTH, GONE, GONE.assign(line="007"))
    assert served(dataset, settings, "timeseries", time_point=START + pd.Timedelta("1h"), steps=1) == ["007", "7"]
    for line in ("007", "7"):
        with pytest.raises(UnknownEntityError):
            read_windows(dataset, [line], ["flow"], 4, settings)


def canonical(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={"line": ENTITY, "time": "event_timestamp"}).astype({"flow": float})


class TestPush:
    def test_a_pushed_mark_takes_the_entity_out_at_once(self, settings: Settings) -> None:
        dataset = fleet()
        bring(dataset, settings, "full", *BOTH)
        report = push_rows(dataset, canonical(pd.concat([rows("007", [HOURS]), GONE])), settings)
        assert (report.rows, report.added, report.removed, report.dropped, report.repeated) == (2, 1, 1, 0, 0)
        assert read_windows(dataset, ["007"], ["flow"], 1, settings).columns["flow"].tolist() == [HOURS]
        with pytest.raises(UnknownEntityError):
            read_windows(dataset, ["7"], ["flow"], 1, settings)
        push_rows(dataset, canonical(rows("7", [HOURS])), settings)
        assert read_windows(dataset, ["7"], ["flow"], 1, settings).columns["flow"].tolist() == [HOURS]

    def test_what_was_only_pushed_goes_with_the_removal_and_what_is_newer_stays(self, settings: Settings) -> None:
        dataset = fleet()
        bring(dataset, settings, "full", *BOTH)
        bring(dataset, settings, "incremental", *BOTH, GONE)
        push_rows(dataset, canonical(rows("7", [HOURS])), settings)
        assert materialize_online(dataset, settings, "incremental").removed == 1
        with pytest.raises(UnknownEntityError):
            read_windows(dataset, ["7"], ["flow"], 1, settings)
        now = pd.Timestamp.now(tz="UTC").ceil("1h")
        newer = canonical(rows("7", [HOURS])).assign(event_timestamp=now.isoformat())
        assert push_rows(dataset, newer, settings, now=now.to_pydatetime()).added == 1
        assert materialize_online(dataset, settings, "incremental").removed == 0
        read_windows(dataset, ["7"], ["flow"], 1, settings)

    def test_entities_that_nobody_knows_are_no_error(self, settings: Settings) -> None:
        dataset = fleet()
        bring(dataset, settings, "full", *BOTH)
        for ids in (["unheard-of"], [7], []):
            assert remove_online(dataset, np.array(ids, dtype=object if ids == ["unheard-of"] else None), settings) == 0
        read_windows(dataset, ["7", "007"], ["flow"], 1, settings)


def materialise_by_feast(settings: Settings, dataset: DatasetConfig, *, incremental: bool) -> None:
    """Do what `feast materialize START END`, or `feast materialize-incremental END`, does."""
    store, end = open_store(settings), dt.datetime.now(dt.UTC)
    views = [view.name for view in store.list_feature_views() if view.name.startswith(dataset.name)]
    if incremental:
        store.materialize_incremental(end_date=end, feature_views=views)
    else:
        store.materialize(start_date=dt.datetime(2023, 12, 1, tzinfo=dt.UTC), end_date=end, feature_views=views)


class TestFeast:
    """What plain Feast materialises: the newest row of every entity that the table has ever had."""

    @pytest.mark.parametrize("incremental", [True, False], ids=["incremental", "from start to end"])
    @pytest.mark.parametrize("kind", ["timeseries", "tabular"])
    def test_it_brings_no_removed_entity_back(self, settings: Settings, kind: str, incremental: bool) -> None:
        dataset = fleet(kind)
        bring(dataset, settings, "full", *BOTH, GONE)
        materialise_by_feast(settings, dataset, incremental=incremental)
        read_rows(dataset, ["007"], ["flow"], settings)
        with pytest.raises(UnknownEntityError, match="'7'"):
            read_rows(dataset, ["7"], ["flow"], settings)

    def test_nor_one_whose_removal_only_the_raw_table_knows_yet(self, settings: Settings) -> None:
        dataset = fleet()
        bring(dataset, settings, "full", *BOTH)
        assert settings.data_dir is not None
        pd.concat([*BOTH, GONE]).to_csv(settings.data_dir / "fleet.csv", index=False)
        ingest(dataset, settings)
        remove_online(dataset, np.array(["7"], dtype=object), settings)
        materialise_by_feast(settings, dataset, incremental=False)
        with pytest.raises(UnknownEntityError, match="'7'"):
            read_windows(dataset, ["7"], ["flow"], 4, settings)
        # One that is back is there again.
        pd.concat(BOTH).to_csv(settings.data_dir / "fleet.csv", index=False)
        ingest(dataset, settings)
        materialise_by_feast(settings, dataset, incremental=False)
        read_windows(dataset, ["7"], ["flow"], 4, settings)

    def test_a_newer_row_that_is_pushed_is_written(self, settings: Settings) -> None:
        dataset = fleet()
        bring(dataset, settings, "full", *BOTH, GONE)
        row = {ENTITY: ["7"], "event_timestamp": [pd.Timestamp.now(tz="UTC") + pd.Timedelta("1min")], "flow": [5.0]}
        open_store(settings).push("fleet_features_push", pd.DataFrame(row).astype({"flow": np.float32}))
        assert read_rows(dataset, ["7"], ["flow"], settings).columns["flow"].tolist() == [5.0]
