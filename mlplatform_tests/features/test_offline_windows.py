"""Windows of many entities at many cut-offs: equal to cutting each by hand, and reading only what they need."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import DatasetConfig
from mlplatform.features.retrieval import load_history, offline, offline_windows
from mlplatform.features.retrieval.offline import read_range
from mlplatform.settings import Settings
from mlplatform_tests.features.conftest import timeseries
from mlplatform_tests.features.stores import fill_offline

START = pd.Timestamp("2023-11-20", tz="UTC")
HOUR = pd.Timedelta(1, "h")
STEPS = 12
COLUMNS = ("load", "mode")


def fleet(entities: int = 6, hours: int = 60 * 24) -> pd.DataFrame:
    """Entities that start, pause and end at different times; entity 0 ended long ago."""
    generator = np.random.default_rng(3)
    frames = []
    for entity in range(entities):
        first, last = entity * 7, hours - entity * 5 if entity else 200
        present = np.flatnonzero(generator.uniform(size=last - first) > 0.1) + first
        size = len(present)
        frame = {
            "entity_id": np.full(size, entity, dtype=np.int64),
            "event_timestamp": START + present * HOUR,
            "load": generator.normal(size=size).astype(np.float32),
            "oil": generator.normal(size=size).astype(np.float32),
            "mode": generator.choice(np.array(["eco", "boost", None], dtype=object), size),
        }
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetConfig, Settings]:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("windows"))})
    dataset = timeseries("plant")
    fill_offline(fleet(), dataset, settings)
    return dataset, settings


@pytest.fixture
def read_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows of the reads that a test makes."""
    counts: list[int] = []
    pull = offline._pull

    def counted(*arguments: object) -> object:
        table = pull(*arguments)  # type: ignore[arg-type]
        counts.append(table.num_rows)
        return table

    monkeypatch.setattr(offline, "_pull", counted)
    return counts


def by_hand(history: pd.DataFrame, entity: int, cutoff: pd.Timestamp) -> pd.DataFrame:
    """Return the window that ends at the last grid row at or before a cut-off, cut row by row."""
    own = history[history.entity_id == entity].set_index("event_timestamp")
    end = own.index[own.index <= cutoff].max()
    return own.reindex(pd.date_range(end - (STEPS - 1) * HOUR, end, freq="h"))


@pytest.mark.parametrize("entities", [[4, 0, 2], [5, 4, 3, 2, 1, 0], [3, 3]])
def test_windows_equal_those_cut_by_hand(plant: tuple[DatasetConfig, Settings], entities: list[int]) -> None:
    dataset, settings = plant
    history = load_history(dataset, COLUMNS, settings)
    cutoffs = [START + hours * HOUR for hours in (39, 1400.5, 41, 700, 5000, 40)]
    panels = offline_windows(dataset, entities, [cutoff.isoformat() for cutoff in cutoffs], COLUMNS, STEPS, settings)
    for panel, cutoff in zip(panels, cutoffs, strict=True):
        for position, entity in enumerate(entities):
            rows = slice(position * STEPS, (position + 1) * STEPS)
            expected = by_hand(history, entity, cutoff)
            assert panel.timestamps[rows].tolist() == expected.index.tz_localize(None).as_unit("ns").asi8.tolist()
            np.testing.assert_array_equal(panel.columns["load"][rows], expected["load"].to_numpy(np.float32))
            known = expected["mode"].astype(object)
            assert panel.columns["mode"][rows].tolist() == known.where(known.notna(), None).tolist()


def test_only_the_stretch_of_the_windows_is_read(plant: tuple[DatasetConfig, Settings], read_rows: list[int]) -> None:
    dataset, settings = plant
    whole = len(load_history(dataset, COLUMNS, settings))
    read_rows.clear()
    offline_windows(dataset, [1, 2], [(START + 1000 * HOUR).isoformat()], COLUMNS, STEPS, settings)
    assert sum(read_rows) <= 6 * STEPS
    read_rows.clear()
    distant = [(START + hours * HOUR).isoformat() for hours in (60, 1000)]
    offline_windows(dataset, [1, 2], distant, COLUMNS, STEPS, settings)
    assert len(read_rows) == 2
    assert sum(read_rows) <= 2 * 6 * STEPS
    read_rows.clear()
    # An entity that ended long ago does not make the read reach back to its end.
    offline_windows(dataset, [0, 1], ["now"], COLUMNS, STEPS, settings)
    assert sum(read_rows) <= 4 * 6 * STEPS
    assert whole > 50 * 6 * STEPS


def test_neighbouring_cut_offs_share_a_read(plant: tuple[DatasetConfig, Settings], read_rows: list[int]) -> None:
    dataset, settings = plant
    cutoffs = [(START + hours * HOUR).isoformat() for hours in range(500, 600)]
    offline_windows(dataset, [1, 2, 3], cutoffs, COLUMNS, STEPS, settings)
    assert len(read_rows) == 1


def test_a_range_of_few_entities_is_read_in_bounded_parts(
    plant: tuple[DatasetConfig, Settings], read_rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, settings = plant
    at_once = read_range(dataset, [4, 2], COLUMNS, settings)
    monkeypatch.setattr(offline, "ROWS_PER_READ", 1000)
    read_rows.clear()
    in_parts = read_range(dataset, [4, 2], COLUMNS, settings)
    assert len(read_rows) > 5
    assert max(read_rows) <= 1000 + 6
    assert in_parts.columns["load"].tobytes() == at_once.columns["load"].tobytes()
    assert in_parts.timestamps.tolist() == at_once.timestamps.tolist()
    assert in_parts.entity_ids.tolist() == [4, 2]


def test_history_crosses_periods_in_order(plant: tuple[DatasetConfig, Settings]) -> None:
    dataset, settings = plant
    history = load_history(dataset, COLUMNS, settings)
    assert history.equals(history.sort_values(["entity_id", "event_timestamp"], kind="stable").reset_index(drop=True))
    assert history.event_timestamp.dt.month.nunique() > 1
    part = load_history(dataset, COLUMNS, settings, "2023-12-31T22:00", "2024-01-01T01:00")
    assert len(part) == 4 * 5
    assert load_history(dataset, COLUMNS, settings, "2030-01-01").empty


def test_entities_with_text_ids_are_read_the_same_way(
    plant: tuple[DatasetConfig, Settings], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("text"))})
    named = timeseries("named")
    fill_offline(fleet().assign(entity_id=lambda frame: "unit " + frame.entity_id.astype(str)), named, settings)
    cutoffs = ["now", (START + 700 * HOUR).isoformat()]
    for texts, numbers in zip(
        offline_windows(named, ["unit 4", "unit 2"], cutoffs, COLUMNS, STEPS, settings),
        offline_windows(plant[0], [4, 2], cutoffs, COLUMNS, STEPS, plant[1]),
        strict=True,
    ):
        assert texts.columns["load"].tobytes() == numbers.columns["load"].tobytes()
        assert texts.columns["mode"].tolist() == numbers.columns["mode"].tolist()
    ranged = read_range(named, ["unit 4", "unit 2"], COLUMNS, settings)
    assert ranged.entity_ids.tolist() == ["unit 4", "unit 2"]
    expected = read_range(plant[0], [4, 2], COLUMNS, plant[1])
    assert ranged.columns["load"].tobytes() == expected.columns["load"].tobytes()


def test_no_cut_offs_give_no_windows(plant: tuple[DatasetConfig, Settings]) -> None:
    dataset, settings = plant
    assert offline_windows(dataset, [1], [], COLUMNS, STEPS, settings) == ()
