"""Increments: what a source adds is merged in once, at the cost of the increment, and equals a table built at once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mlplatform.config import DatasetConfig
from mlplatform.data import intake, raw
from mlplatform.data.errors import DataError
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import open_raw, read_raw
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.tables.feature_table import (
    entity_ranges,
    features_path,
    is_behind,
    update_feature_table,
    windows_path,
)
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table

START = pd.Timestamp("2024-01-30", tz="UTC")


def readings(**changes: Any) -> DatasetConfig:
    """A data set whose files arrive in a folder."""
    fields: dict[str, Any] = {
        "name": "plant",
        "source": {"uri": "readings/*.parquet"},
        "time_column": "time",
        "entity_column": "unit",
        "frequency": "1h",
        "window_steps": 30,
        "partition": "day",
        "columns": {"load": {"max": 100}, "mode": {"type": "category"}},
    }
    return DatasetConfig.model_validate(fields | changes)


def frame(units: list[Any], hours: list[int], load: list[float], mode: list[str | None] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "time": [START + pd.Timedelta(hours=hour) for hour in hours],
            "unit": units,
            "load": load,
            "mode": mode or ["on"] * len(units),
        }
    )


def arrive(name: str, rows: pd.DataFrame, settings: Settings) -> None:
    assert settings.data_dir is not None
    folder = settings.data_dir / "readings"
    folder.mkdir(exist_ok=True)
    rows.to_parquet(folder / f"{name}.parquet", index=False)


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.parquet")}


@pytest.fixture
def stored(settings: Settings) -> DatasetConfig:
    """Two units over four days, raw and features."""
    hours = list(range(96))
    arrive("a", frame([1] * 96 + [2] * 96, hours * 2, list(range(96)) * 2), settings)
    dataset = readings()
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    return dataset


def test_an_increment_writes_only_the_periods_it_reaches(stored: DatasetConfig, settings: Settings) -> None:
    raw_before, table_before = inodes(settings.raw_dir / "plant" / "rows"), inodes(features_path(stored, settings))
    arrive("b", frame([1], [96], [5.0]), settings)
    report = ingest(stored, settings)
    assert (report.rows_read, report.rows, report.periods_written) == (1, 193, ("2024-02-03",))
    raw_after = inodes(settings.raw_dir / "plant" / "rows")
    assert {name for name in raw_after if raw_after[name] != raw_before.get(name)} == {"2024-02-03.parquet"}
    assert is_behind(stored, settings)
    features = update_feature_table(stored, settings)
    assert (features.revision, features.periods_written, features.windows_changed) == (2, ("2024-02-03",), 1)
    table_after = inodes(features_path(stored, settings))
    assert {name for name in table_after if table_after[name] != table_before.get(name)} == {"2024-02-03.parquet"}
    assert not is_behind(stored, settings)


def test_nothing_new_changes_nothing(stored: DatasetConfig, settings: Settings) -> None:
    link = settings.raw_dir / "plant"
    before = link.resolve()
    report = ingest(stored, settings)
    assert (report.rows_read, report.rows, report.periods_written) == (0, 192, ())
    assert link.resolve() == before
    assert update_feature_table(stored, settings).revision == 1


def test_rows_that_come_again_change_nothing_but_corrections_win(stored: DatasetConfig, settings: Settings) -> None:
    digest = ingest(stored, settings).sha256
    arrive("again", frame([1, 2], [3, 4], [3.0, 4.0]), settings)
    assert ingest(stored, settings).sha256 == digest
    arrive("correction", frame([1, 1], [3, 3], [50.0, 60.0]), settings)
    report = ingest(stored, settings)
    assert (report.rows, report.quarantined, report.periods_written) == (192, 0, ("2024-01-30",))
    rows = read_raw(stored, settings)
    assert rows.loc[(rows["entity_id"] == 1), "load"].iloc[3] == 60


def test_bad_rows_of_an_increment_join_the_quarantine(stored: DatasetConfig, settings: Settings) -> None:
    for name, load in (("b", 200.0), ("c", 300.0)):
        arrive(name, frame([1, 1], [96, 97], [1.0, load]), settings)
        report = ingest(stored, settings)
    assert report.quarantine_path is not None
    assert pd.read_parquet(report.quarantine_path)["load"].tolist() == ["200.0", "300.0"]
    assert (report.rows, report.quarantined, report.reasons) == (193, 2, {"load: above the maximum 100": 2})


def test_an_increment_with_too_many_bad_rows_changes_nothing(stored: DatasetConfig, settings: Settings) -> None:
    before = open_raw(stored, settings)
    arrive("b", frame([1] * 20, list(range(96, 116)), [200.0] * 20), settings)
    with pytest.raises(DataError, match=r"20 of 212 rows \(9.4%\) are bad"):
        ingest(stored, settings)
    assert open_raw(stored, settings) == before


@pytest.mark.usefixtures("stored")
def test_another_shape_is_refused_and_full_reads_everything_anew(settings: Settings) -> None:
    changed = readings(columns={"load": {"max": 200}})
    with pytest.raises(DataError, match=r"its columns changed .* launch ingest_plant with full: true"):
        ingest(changed, settings)
    report = ingest(changed, settings, full=True)
    assert (report.rows, report.rows_read) == (192, 192)
    assert list(read_raw(changed, settings).columns) == ["entity_id", "event_timestamp", "load"]


def test_a_full_read_of_a_source_that_became_empty_keeps_the_rows(stored: DatasetConfig, settings: Settings) -> None:
    assert settings.data_dir is not None
    for path in (settings.data_dir / "readings").iterdir():
        path.unlink()
    with pytest.raises(DataError):
        ingest(stored, settings, full=True)
    assert len(read_raw(stored, settings)) == 192


def test_rows_are_shown_before_the_commit_and_an_error_leaves_the_table(
    stored: DatasetConfig, settings: Settings
) -> None:
    arrive("b", frame([1, 2], [96, 96], [200.0, 5.0]), settings)
    seen: list[pd.DataFrame] = []

    def refuse(rows: pd.DataFrame) -> None:
        seen.append(rows)
        raise OSError("online store away")

    with pytest.raises(OSError, match="online store away"):
        ingest(stored, settings, on_rows=refuse)
    assert len(read_raw(stored, settings)) == 192
    ingest(stored, settings, on_rows=seen.append)
    assert [rows["entity_id"].tolist() for rows in seen] == [[2], [2]]
    assert len(read_raw(stored, settings)) == 193


@pytest.mark.parametrize("memory_rows", [1, 40, 10_000])
@pytest.mark.parametrize("newest_wins", [False, True])
def test_batches_give_what_the_whole_gives(
    memory_rows: int, newest_wins: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether rows come at once or in batches, in memory or through the disk, decides nothing."""
    monkeypatch.setattr(intake, "MEMORY_ROWS", memory_rows)
    rng = np.random.default_rng(5)
    rows = frame(rng.integers(1, 4, 400).tolist(), rng.integers(0, 80, 400).tolist(), rng.integers(0, 3, 400).tolist())
    results = []
    for batches in (1, 7):
        folder = tmp_path / str(batches)
        folder.mkdir()
        taken = intake.Intake(readings(), folder, raw.Basis(), newest_wins=newest_wins)
        for part in np.array_split(np.arange(400), batches):
            taken.add(rows.iloc[part])
        kept = pd.concat([taken.take(period) for period in taken.periods])
        bad = pd.concat(taken.quarantine) if taken.quarantine else pd.DataFrame({"row": []})
        results.append((kept, sorted(bad["row"].tolist()), taken.tally.quarantined))
    (whole, *counts), (parts, *counts_of_parts) = results
    pd.testing.assert_frame_equal(parts, whole)
    assert counts_of_parts == counts
    assert (counts[1] == 0) == newest_wins


def window_rows(dataset: DatasetConfig, settings: Settings) -> str:
    """The window table as text, because missing values are not equal to themselves."""
    return repr(pq.read_table(windows_path(dataset, settings)).drop_columns("revision").to_pylist())


def random_rows(rng: random.Random, units: list[int], horizon: int) -> pd.DataFrame:
    count = rng.randint(1, 25)
    hours = [rng.randint(0, horizon) if rng.random() < 0.3 else rng.randint(horizon - 6, horizon) for _ in range(count)]
    load = [rng.choice([float("nan"), rng.uniform(0, 9)]) for _ in range(count)]
    modes = [rng.choice(["on", "off", None]) for _ in range(count)]
    return frame([rng.choice(units) for _ in range(count)], hours, load, modes)


@pytest.mark.parametrize("seed", range(4))
def test_a_table_that_grew_equals_one_built_at_once(seed: int, settings: Settings, tmp_path: Path) -> None:
    """Late rows, corrections, gaps over whole days, new entities and earlier beginnings, in any order."""
    rng = random.Random(seed)  # noqa: S311  (test data)
    dataset, horizon = readings(), 30
    for step in range(8):
        horizon += rng.choice([1, 5, 70])
        arrive(f"{step:02d}", random_rows(rng, [1, 2, 3][: 1 + step // 2], horizon), settings)
        ingest(dataset, settings)
        update_feature_table(dataset, settings)
        whole = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / f"whole{step}")})
        write_feature_table(read_raw(dataset, settings), dataset, whole)
        assert pq.read_table(features_path(dataset, settings)).equals(pq.read_table(features_path(dataset, whole)))
        assert window_rows(dataset, settings) == window_rows(dataset, whole)
        pd.testing.assert_frame_equal(entity_ranges(dataset, settings), entity_ranges(dataset, whole))


def test_a_source_that_lost_rows_shortens_the_table(settings: Settings, tmp_path: Path) -> None:
    """A source that is read whole replaces the rows: entities, ends and windows go back with it."""
    dataset = readings(source={"uri": "readings.parquet"})
    assert settings.data_dir is not None
    path = settings.data_dir / "readings.parquet"
    rows = frame([1] * 60 + [2] * 60 + [3] * 60, list(range(60)) * 3, [1.0] * 180)
    rows.to_parquet(path)
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    first = pq.read_schema(windows_path(dataset, settings)).metadata[b"table_id"]
    hours = (rows["time"] - START) // pd.Timedelta(hours=1)
    rows[(rows["unit"] == 1) & (hours < 40) | (rows["unit"] == 3) & (hours > 35)].to_parquet(path)
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    whole = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "whole")})
    write_feature_table(read_raw(dataset, settings), dataset, whole)
    assert pq.read_table(features_path(dataset, settings)).equals(pq.read_table(features_path(dataset, whole)))
    assert window_rows(dataset, settings) == window_rows(dataset, whole)
    assert entity_ranges(dataset, settings)["entity_id"].tolist() == [1, 3]
    ids = [pq.read_schema(windows_path(dataset, settings)).metadata[b"table_id"]]
    update_feature_table(dataset, settings)
    rows.to_parquet(path)
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    ids.append(pq.read_schema(windows_path(dataset, settings)).metadata[b"table_id"])
    assert first not in ids, "what was online must be written anew"
    assert ids[0] == ids[1], "rows that are added keep the table"


def test_a_raw_table_without_rows_makes_no_feature_table(settings: Settings) -> None:
    arrive("bad", frame([1], [0], [200.0]), settings)
    assert ingest(readings(max_bad_fraction=1), settings).rows == 0
    with pytest.raises(FeatureStoreError, match="has no rows; ingest the dataset first"):
        update_feature_table(readings(max_bad_fraction=1), settings)
