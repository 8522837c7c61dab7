"""Rows pushed as they arrive leave the online store as the feature table would, on every kind of online store."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import DatasetConfig
from mlplatform.features.errors import EntityTypeError, FeatureStoreError, UnknownEntityError
from mlplatform.features.feast.definitions import push_source_name
from mlplatform.features.feast.repository import apply_dataset, open_store
from mlplatform.features.online import push as push_module
from mlplatform.features.online import rows as online_rows
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.online.push import PushReport, push_rows
from mlplatform.features.online.read import read_rows, read_windows
from mlplatform.features.retrieval.offline import offline_windows
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table
from mlplatform_tests.features.conftest import STEPS, raw_frame, tabular, tabular_frame, timeseries

COLUMNS = ["load", "oil", "mode"]
START = pd.Timestamp("2024-03-01", tz="UTC")


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


def row(entity: Any, hour: float, load: float = 1.0, mode: str | None = "eco") -> dict[str, Any]:
    moment = START + pd.Timedelta(hours=hour)
    return {"entity_id": entity, "event_timestamp": moment, "load": load, "oil": -load, "mode": mode}


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def windows(dataset: DatasetConfig, settings: Settings, entities: list[Any], steps: int = STEPS) -> dict[str, Any]:
    panel = read_windows(dataset, entities, COLUMNS, steps, settings)
    return {
        "times": panel.timestamps.tolist(),
        "load": panel.columns["load"].tobytes(),
        "oil": panel.columns["oil"].tobytes(),
        "mode": panel.columns["mode"].tolist(),
    }


def counts(report: PushReport) -> dict[str, int]:
    fields = ("added", "late", "replaced", "repeated", "too_old", "off_grid", "future")
    assert sum(getattr(report, name) for name in (*fields, "far", "invalid")) == report.rows
    return {name: getattr(report, name) for name in fields if getattr(report, name)}


def test_times_that_are_counted_are_pushed_where_the_dataset_says_what_they_count(
    plant: DatasetConfig, settings: Settings
) -> None:
    rows = frame(row(1, 40, 7.0), row(2, 38, 8.0))
    counted = rows.assign(event_timestamp=rows["event_timestamp"].dt.as_unit("ms").astype("int64"))
    assert counts(push_rows(plant, counted, settings)) == {}
    milliseconds = plant.model_copy(update={"time_unit": "ms"})
    late = counted.assign(event_timestamp=counted["event_timestamp"] + 10**12)
    assert counts(push_rows(milliseconds, late, settings)) == {"future": 2}
    assert counts(push_rows(milliseconds, counted, settings)) == {"added": 2}
    assert counts(push_rows(plant, rows, settings)) == {"repeated": 2}
    assert windows(plant, settings, [1, 2], 1)["load"] == np.float32([7.0, 8.0]).tobytes()


def test_pushed_windows_equal_those_of_the_table_with_the_same_rows(settings: Settings) -> None:
    dataset = timeseries("plant")
    history = pd.concat([raw_frame(), raw_frame(3).assign(entity_id=lambda rows: rows["entity_id"] + 2)])
    times = history["event_timestamp"]
    before = history[(times < START + pd.Timedelta(hours=34)) & (history["entity_id"] != 4)]
    write_feature_table(before, dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    late = history[(times == START + pd.Timedelta(hours=31)) & (history["entity_id"] == 1)].assign(load=99.0)
    arriving = history.drop_duplicates().merge(before, how="left", indicator=True)
    arriving = arriving[arriving.pop("_merge") == "left_only"]
    for batch in np.array_split(np.random.default_rng(5).permutation(len(arriving)), 5):
        push_rows(dataset, arriving.iloc[batch], settings)
    push_rows(dataset, late, settings)
    corrected = pd.concat([history, late]).drop_duplicates(["entity_id", "event_timestamp"], keep="last")
    write_feature_table(corrected, dataset, settings)
    apply_dataset(dataset, settings)
    (offline,) = offline_windows(dataset, [1, 2, 3, 4], ["now"], COLUMNS, STEPS, settings)
    online = windows(dataset, settings, [1, 2, 3, 4])
    assert online["times"] == offline.timestamps.tolist()
    assert online["load"] == offline.columns["load"].tobytes()
    assert online["oil"] == offline.columns["oil"].tobytes()
    assert online["mode"] == offline.columns["mode"].tolist()
    latest = read_rows(dataset, [1, 2, 3, 4], COLUMNS, settings)
    assert latest.columns["load"].tobytes() == offline.columns["load"].reshape(4, STEPS)[:, -1].tobytes()
    assert latest.columns["mode"].tolist() == offline.columns["mode"].reshape(4, STEPS)[:, -1].tolist()


def test_a_window_moves_on_and_shows_the_gap(plant: DatasetConfig, settings: Settings) -> None:
    before = windows(plant, settings, [1, 2])
    report = push_rows(plant, frame(row(1, 41, 7.0), row(9, 5, 8.0, None)), settings)
    assert (counts(report), report.written) == ({"added": 2}, 2)
    panel = read_windows(plant, [1], ["load"], STEPS, settings)
    assert panel.columns["load"][-1] == 7.0
    assert np.isnan(panel.columns["load"][-2])
    assert panel.columns["load"][:-2].tobytes() == before["load"][2 * 4 : STEPS * 4]
    assert pd.Timestamp(panel.timestamps[-1], tz="UTC") == START + pd.Timedelta(hours=41)
    assert windows(plant, settings, [2]) == {name: part[len(part) // 2 :] for name, part in before.items()}
    new = read_windows(plant, [9], COLUMNS, STEPS, settings)
    assert new.columns["load"][-1] == 8.0
    assert np.isnan(new.columns["load"][:-1]).all()
    latest = read_rows(plant, [1, 9], COLUMNS, settings)
    assert latest.columns["load"].tolist() == [7.0, 8.0]
    assert latest.columns["mode"].tolist() == ["eco", None]
    assert (
        latest.timestamps.tolist() == [panel.timestamps[-1], new.timestamps[-1]]
        or (latest.timestamps == np.array([panel.timestamps[-1], new.timestamps[-1]])).all()
    )


def test_every_row_is_counted_and_a_repeat_writes_nothing(
    plant: DatasetConfig, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    now = (START + pd.Timedelta(hours=50)).to_pydatetime()
    rows = frame(
        row(1, 40, 1.0),
        row(1, 41, 2.0),
        row(1, 41, 3.0),
        row(1, 37, 4.0),
        row(1, 39, 5.0),
        row(1, 2, 6.0),
        row(1, 40.5, 7.0),
        row(2, 50.001, 8.0),
    )
    with caplog.at_level(logging.WARNING):
        report = push_rows(plant, rows, settings, now=now)
    expected = {"added": 2, "repeated": 1, "late": 1, "replaced": 1, "too_old": 1, "off_grid": 1, "future": 1}
    assert (counts(report), report.written, report.dropped) == (expected, 1, 3)
    assert "dropped 3 of 8 rows: 1 before the window, 1 off the grid, 1 after now" in caplog.text
    after = windows(plant, settings, [1, 2])
    again = push_rows(plant, rows.iloc[[0, 2, 3, 4]], settings, now=now)
    assert (counts(again), again.written) == ({"repeated": 4}, 0)
    assert windows(plant, settings, [1, 2]) == after


def test_an_old_row_never_replaces_the_latest(plant: DatasetConfig, settings: Settings) -> None:
    before = read_rows(plant, [1], ["load"], settings)
    push_rows(plant, frame(row(1, 37, 5.0)), settings)
    after = read_rows(plant, [1], ["load"], settings)
    assert after.columns["load"].tobytes() == before.columns["load"].tobytes()
    assert after.timestamps.tolist() == before.timestamps.tolist()
    assert read_windows(plant, [1], ["load"], 3, settings).columns["load"][0] == 5.0


def test_a_push_that_was_killed_between_its_writes_is_healed_by_a_repeat(
    plant: DatasetConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = frame(row(1, 40, 7.0), row(2, 38, 8.0))

    write = online_rows._write
    views: list[str] = []

    def killed(known: Any, view: Any, *content: Any) -> None:
        if views:
            raise KeyboardInterrupt
        views.append(view.name)
        write(known, view, *content)

    with monkeypatch.context() as patch:
        patch.setattr(online_rows, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            push_rows(plant, rows, settings)
    assert views == ["plant_features"]
    assert read_rows(plant, [1], ["load"], settings).columns["load"].tolist() == [7.0]
    assert read_windows(plant, [1], ["load"], 1, settings).columns["load"].tolist() != [7.0]
    assert push_rows(plant, rows, settings).written == 2
    assert read_windows(plant, [1, 2], ["load"], 1, settings).columns["load"].tolist() == [7.0, 8.0]


def test_pushers_at_the_same_time_lose_no_row(plant: DatasetConfig, settings: Settings) -> None:
    errors: list[BaseException] = []

    def push(first: int) -> None:
        try:
            for hour in range(first, 48, 4):
                push_rows(plant, frame(row(1, hour, float(hour)), row(7, hour, float(hour))), settings)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=push, args=(40 + number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    panel = read_windows(plant, [1, 7], ["load"], 8, settings)
    assert panel.columns["load"].tolist() == [float(hour) for hour in range(40, 48)] * 2


def test_rows_that_cannot_be_pushed_are_refused_and_nothing_is_written(
    plant: DatasetConfig, settings: Settings
) -> None:
    before = windows(plant, settings, [1, 2])
    good = frame(row(1, 40))
    with pytest.raises(FeatureStoreError, match=r"the rows lack \['mode'\]"):
        push_rows(plant, good.drop(columns="mode"), settings)
    with pytest.raises(FeatureStoreError, match=r"more than one column named \['load'\]"):
        push_rows(plant, pd.concat([good, good[["load"]]], axis=1), settings)
    with pytest.raises(FeatureStoreError, match="'load' holds numbers, but a row has 'high' of type str"):
        push_rows(plant, good.assign(load="high"), settings)
    with pytest.raises(FeatureStoreError, match="rows without event_timestamp"):
        push_rows(plant, good.assign(event_timestamp=pd.to_datetime(["NaT"], utc=True)), settings)
    with pytest.raises(EntityTypeError, match="entity ids are whole numbers, but got '1' of type str"):
        push_rows(plant, good.assign(entity_id="1"), settings)
    with pytest.raises(UnknownEntityError, match=str(2**63)):
        push_rows(plant, good.assign(entity_id=np.array([2**63], dtype=np.uint64)), settings)
    with pytest.raises(FeatureStoreError, match="'other' is not registered: it was never applied, or"):
        push_rows(timeseries("other"), good, settings)
    longer = plant.model_copy(update={"window_steps": STEPS + 1})
    with pytest.raises(FeatureStoreError, match=r"with \[12\] steps, but window_steps is 13; materialise .* in full"):
        push_rows(longer, good, settings)
    assert windows(plant, settings, [1, 2]) == before
    assert push_rows(plant, good.iloc[:0], settings).rows == 0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(1, 40, np.inf), "load: not a finite 32-bit number"),
        (row(1, 40, 1e300), "load: not a finite 32-bit number"),
        (row(9, 40.5), "event_timestamp: off the 1h grid"),
        (row(1, 40, 101.0), "load: above the maximum 100"),
        (row(1, 40, mode="eco\0"), "mode: not known exactly"),
        (
            row(1, 40) | {"event_timestamp": "tomorrow"},
            "event_timestamp: not an ISO 8601 time of the years 1678 to 2261",
        ),
    ],
)
def test_what_an_ingest_would_quarantine_is_dropped_and_its_neighbours_are_pushed(
    bad: dict[str, Any], reason: str, plant: DatasetConfig, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    limited = plant.model_copy(
        update={"columns": plant.columns | {"load": plant.columns["load"].model_copy(update={"max": 100.0})}}
    )
    with caplog.at_level(logging.WARNING):
        report = push_rows(limited, frame(bad, row(2, 40, 5.0)).astype({"load": "float64"}), settings)
    assert (report.added, report.dropped, report.written) == (1, 1, 1)
    assert any(name.startswith(reason) for name in report.reasons)
    assert reason in caplog.text
    assert report.invalid + report.off_grid == 1
    panel = read_windows(plant, [1, 2], ["load"], 1, settings)
    assert pd.Timestamp(panel.timestamps[0], tz="UTC") == START + pd.Timedelta(hours=39)
    assert panel.columns["load"][1] == 5.0


def test_one_wild_time_does_not_empty_a_window_but_a_machine_that_is_back_is_taken(
    plant: DatasetConfig, settings: Settings
) -> None:
    before = windows(plant, settings, [1, 2])
    report = push_rows(plant, frame(row(1, 39 + STEPS, 7.0), row(8, 1), row(8, 1 + STEPS)), settings)
    assert counts(report) | {"far": report.far} == {"added": 1, "far": 2}
    assert windows(plant, settings, [1, 2]) == before
    report = push_rows(plant, frame(row(1, 5000, 7.0), row(1, 5001, 8.0)), settings)
    assert (report.added, report.far) == (2, 0)
    hours = list(range(40, 41 + STEPS))
    report = push_rows(plant, frame(*(row(2, hour, hour) for hour in hours)), settings)
    assert (report.written, report.far) == (1, 0)
    assert read_windows(plant, [2], ["load"], STEPS, settings).columns["load"].tolist() == hours[1:]


def test_times_pushed_as_text_mean_the_same_in_any_company(plant: DatasetConfig, settings: Settings) -> None:
    times = ["2024-03-02T18:00:00+02:00", "2024-03-02T17:00:00", "2024-03-02T18:00:00Z"]
    rows = frame(row(1, 0, 1.0), row(1, 0, 2.0), row(1, 0, 3.0)).assign(event_timestamp=times)
    assert counts(push_rows(plant, rows, settings)) == {"added": 3}
    assert read_windows(plant, [1], ["load"], 3, settings).columns["load"].tolist() == [1.0, 2.0, 3.0]


def test_more_entities_than_fit_one_block(
    plant: DatasetConfig, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_module, "CHUNK", 3)
    rows = frame(*(row(entity, hour, entity + hour / 100) for hour in (40, 41) for entity in range(10, 18)))
    report = push_rows(plant, rows.sample(frac=1, random_state=1), settings)
    assert (counts(report), report.written) == ({"added": 16}, 8)
    panel = read_windows(plant, list(range(10, 18)), ["load"], 1, settings)
    assert panel.columns["load"].tolist() == [np.float32(entity + 0.41) for entity in range(10, 18)]


def test_text_ids_are_pushed_too(settings: Settings) -> None:
    dataset = timeseries("plant")
    history = raw_frame().assign(entity_id=lambda rows: np.where(rows["entity_id"] == 1, "süd 1", "north"))
    write_feature_table(history, dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    push_rows(dataset, frame(row("süd 1", 40, 2.0), row("new", 40, 3.0)), settings)
    panel = read_windows(dataset, ["new", "süd 1", "north"], ["load"], 2, settings)
    assert panel.columns["load"][[1, 3]].tolist() == [3.0, 2.0]
    with pytest.raises(EntityTypeError, match="entity ids are text, but got 1"):
        push_rows(dataset, frame(row(1, 40)), settings)


def test_the_newest_row_of_tabular_data_wins(settings: Settings) -> None:
    dataset = tabular()
    write_feature_table(tabular_frame(), dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    stored, day = pd.Timestamp("2000-01-01", tz="UTC"), pd.Timedelta(days=1)
    rows = pd.DataFrame(
        {
            "entity_id": ["a", "a", "a", "b", "c", "d"],
            "event_timestamp": [stored + day, stored + 2 * day, stored + day, stored - day, stored, stored],
            "age": [1.0, np.nan, 3.0, 4.0, 5.0, 6.0],
            "sex": ["f", "m", "m", "m", "", None],
        }
    )
    report = push_rows(dataset, rows, settings)
    assert (counts(report), report.written) == ({"added": 2, "replaced": 1, "repeated": 2, "too_old": 1}, 3)
    panel = read_rows(dataset, ["a", "b", "c", "d"], ["age", "sex"], settings)
    assert panel.columns["age"].tobytes() == np.array([np.nan, np.nan, 5.0, 6.0], dtype=np.float32).tobytes()
    assert panel.columns["sex"].tolist() == ["m", "m", None, None]
    again = push_rows(dataset, rows.iloc[[1, 4, 5]], settings)
    assert (counts(again), again.written) == ({"repeated": 3}, 0)


def test_plain_feast_pushes_to_the_same_views(plant: DatasetConfig, settings: Settings) -> None:
    moment = START + pd.Timedelta(hours=40)
    arrays = {f"window_{name}": [np.arange(STEPS, dtype=np.float32).tolist()] for name in ("load", "oil")}
    window = pd.DataFrame(
        {
            "entity_id": [1],
            "event_timestamp": [moment],
            "end_ns": [moment.value],
            "window_mode": [["eco"] * STEPS],
            **arrays,
        }
    )
    store = open_store(settings)
    store.push(push_source_name("plant_windows"), window)
    store.push(push_source_name("plant_features"), frame(row(1, 40, 11.0)))
    panel = read_windows(plant, [1], ["load"], STEPS, settings)
    assert panel.columns["load"].tolist() == list(range(STEPS))
    assert pd.Timestamp(panel.timestamps[-1], tz="UTC") == moment
    assert read_rows(plant, [1], ["load"], settings).columns["load"].tolist() == [11.0]
    push_rows(plant, frame(row(1, 41, 12.0)), settings)
    answer = store.get_online_features(
        features=["plant_windows:window_load", "plant_features:load"], entity_rows=[{"entity_id": 1}]
    ).to_dict()
    assert answer["window_load"] == [[*range(1, STEPS), 12.0]]
    assert answer["load"] == [12.0]


def test_a_naive_now_is_taken_as_utc(plant: DatasetConfig, settings: Settings) -> None:
    report = push_rows(plant, frame(row(1, 40)), settings, now=dt.datetime(2024, 3, 2, 15, 59))
    assert counts(report) == {"future": 1}


def test_late_rows_of_years_ago_do_not_make_a_new_one_the_odd_one_out(plant: DatasetConfig, settings: Settings) -> None:
    """What is far from all others is judged by the table and not by the push, of which late rows can be the most."""
    ago = -5 * 366 * 24
    report = push_rows(plant, frame(*(row(1, ago + hour, 1.0) for hour in range(3)), row(1, 40, 2.0)), settings)
    assert report.added == 1
    assert read_windows(plant, [1], ["load"], STEPS, settings).columns["load"][-1] == 2.0


def berlin(frequency: str = "1h", zone: str = "Europe/Berlin") -> DatasetConfig:
    given = timeseries("plant", 16).model_dump(mode="json")
    return DatasetConfig.model_validate({**given, "frequency": frequency, "timezone": zone})


def clocks(dataset: DatasetConfig, begin: str, count: int) -> pd.DataFrame:
    """Rows of one entity with local times that tell no offset, in their order, no two with the same values."""
    if dataset.frequency == "D":
        # The first of two midnights begins a day.
        moments = pd.date_range(begin, periods=count, freq="D").tz_localize(
            dataset.timezone, ambiguous=np.ones(count, bool)
        )
    else:
        moments = pd.date_range(begin, periods=count, freq=dataset.frequency, tz=dataset.timezone)
    load = np.arange(count, dtype=float) + 1000
    rows = pd.DataFrame({"entity_id": 1, "event_timestamp": moments, "load": load, "oil": -load, "mode": "eco"})
    return rows.assign(moment=moments.tz_convert("UTC"), local=moments.strftime("%Y-%m-%dT%H:%M:%S"))


def stored(dataset: DatasetConfig, settings: Settings) -> tuple[list[Any], list[float]]:
    panel = read_windows(dataset, [1], ["load"], dataset.window_steps, settings)
    return panel.timestamps.tolist(), panel.columns["load"].tolist()


@pytest.mark.parametrize(
    ("frequency", "zone", "begin", "is_text"),
    [
        ("1h", "Europe/Berlin", "2023-10-28 22:00", True),
        ("30min", "Europe/Berlin", "2023-10-29 00:00", False),
        ("30min", "Australia/Lord_Howe", "2025-04-05 22:00", True),
        ("1h", "America/Havana", "2023-11-04 20:00", False),
    ],
)
@pytest.mark.parametrize("size", [1, 2])
def test_the_hour_that_comes_twice_is_whole_however_it_was_pushed(
    frequency: str, zone: str, begin: str, is_text: bool, size: int, settings: Settings
) -> None:
    dataset = berlin(frequency, zone)
    rows = clocks(dataset, begin, 16)
    before = rows.iloc[:3].assign(event_timestamp=rows["moment"])
    write_feature_table(before, dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    naive = rows["local"] if is_text else pd.to_datetime(rows["local"])
    sent = rows.assign(event_timestamp=naive)
    expected = rows["moment"].dt.tz_localize(None).astype("datetime64[ns]").to_numpy().tolist(), rows["load"].tolist()
    for start in range(3, len(rows), size):
        batch = sent.iloc[start : start + size]
        assert counts(push_rows(dataset, batch, settings)) == {"added": len(batch)}
        # A client that got no answer sends it again.
        assert counts(push_rows(dataset, batch, settings)) == {"repeated": len(batch)}
    assert stored(dataset, settings) == expected
    # A night that is sent anew, in one piece or row by row, says nothing new.
    assert counts(push_rows(dataset, sent, settings)) == {"repeated": len(sent)}
    for place in range(len(sent)):
        assert counts(push_rows(dataset, sent.iloc[[place]], settings)) == {"repeated": 1}
    assert stored(dataset, settings) == expected


def test_an_hour_of_which_the_window_holds_nothing_is_the_earlier_one(settings: Settings) -> None:
    dataset = berlin()
    rows = clocks(dataset, "2023-10-28 22:00", 16)
    write_feature_table(rows.iloc[:3].assign(event_timestamp=rows["moment"]), dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    sent = rows.assign(event_timestamp=rows["local"], load=1000.0, oil=0.0)
    push_rows(dataset, sent.iloc[[4]], settings)
    assert stored(dataset, settings)[0][-1] == rows["moment"][4].value
    # Two hours with the same values that come one by one are one row that is repeated; in one push they are two.
    assert counts(push_rows(dataset, sent.iloc[[5]], settings)) == {"repeated": 1}
    assert counts(push_rows(dataset, sent.iloc[4:6], settings)) == {"repeated": 1, "added": 1}
    assert stored(dataset, settings)[0][-1] == rows["moment"][5].value


def test_a_day_that_begins_twice_is_one_step_and_is_corrected(settings: Settings) -> None:
    dataset = berlin("D", "America/Havana")
    rows = clocks(dataset, "2023-10-31", 6)
    write_feature_table(rows.iloc[:3].assign(event_timestamp=rows["moment"]), dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    sent = rows.assign(event_timestamp=rows["local"])
    assert rows["local"][5].startswith("2023-11-05T00:00")
    assert counts(push_rows(dataset, sent.iloc[3:], settings)) == {"added": 3}
    assert counts(push_rows(dataset, sent.iloc[[5]].assign(load=7.0), settings)) == {"replaced": 1}
    assert stored(dataset, settings)[1][-1] == 7.0
