"""Split versions: borders, immutability, and what a refresh may change."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import DatasetConfig, SplitConfig
from mlplatform.datamodule.padding import CONTEXT_COLUMN
from mlplatform.datamodule.splits import (
    SplitError,
    SplitIntegrityError,
    SplitManifest,
    read_manifest,
    read_part,
    split_dir,
    write_split,
)
from mlplatform.settings import Settings
from mlplatform.testing.experiments import DATASET, HOURS, pump_frame

START = pd.Timestamp("2024-01-01", tz="UTC")
HOUR = pd.Timedelta(hours=1)
PUMP = DatasetConfig.model_validate(DATASET)
PATIENTS = DatasetConfig.model_validate(
    {
        "name": "patients",
        "kind": "tabular",
        "source": {"uri": "patients.csv"},
        "columns": {"age": {}, "ill": {"type": "category"}},
    }
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})


def time_policy(**changes: Any) -> SplitConfig:
    values = {
        "version": "v1",
        "reference_steps": 24,
        "context_steps": 16,
        "cv": {"name": "expanding", "params": {"validation_steps": 24}},
        "folds": 2,
    }
    return SplitConfig.model_validate(values | changes)


def table_policy(**changes: Any) -> SplitConfig:
    values = {"version": "v1", "reference_fraction": 0.25, "seed": 7, "cv": {"name": "kfold"}, "folds": 2}
    return SplitConfig.model_validate(values | changes)


def patients(rows: int = 40) -> pd.DataFrame:
    """Every fourth patient is ill; one patient per day."""
    return pd.DataFrame(
        {
            "entity_id": np.arange(rows),
            "event_timestamp": START + np.arange(rows) * pd.Timedelta(days=1),
            "age": np.arange(rows, dtype=np.float32),
            "ill": np.where(np.arange(rows) % 4 == 0, "yes", "no").astype(object),
        }
    )


def files(settings: Settings, dataset: str = "pump") -> dict[str, bytes]:
    folder = split_dir(settings, dataset, "v1")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def own_times(settings: Settings, part: str) -> tuple[pd.Timestamp, pd.Timestamp]:
    frame = read_part(settings, "pump", "v1", part)
    times = frame.loc[~frame[CONTEXT_COLUMN], "event_timestamp"]
    return times.min(), times.max()


def test_borders_are_laid_from_the_end_of_the_data(settings: Settings) -> None:
    manifest = write_split(PUMP, time_policy(test_steps={"late": 12}), pump_frame(), settings)
    assert list(manifest.parts) == ["train", "reference", "test_late"]
    assert own_times(settings, "train") == (START, START + 113 * HOUR)
    assert own_times(settings, "reference") == (START + 114 * HOUR, START + 137 * HOUR)
    assert own_times(settings, "test_late") == (START + 138 * HOUR, START + 149 * HOUR)
    assert {name: part.rows for name, part in manifest.parts.items()} == {
        "train": 228,
        "reference": 48,
        "test_late": 24,
    }
    assert manifest.parts["reference"].start == (START + 114 * HOUR).isoformat()
    assert manifest.parts["reference"].end == (START + 137 * HOUR).isoformat()


def test_borders_are_laid_from_the_start_when_the_training_length_is_given(settings: Settings) -> None:
    write_split(PUMP, time_policy(train_steps=60, test_steps={"a": 10, "b": 5}), pump_frame(), settings)
    assert own_times(settings, "train") == (START, START + 59 * HOUR)
    assert own_times(settings, "reference") == (START + 60 * HOUR, START + 83 * HOUR)
    assert own_times(settings, "test_a") == (START + 84 * HOUR, START + 93 * HOUR)
    assert own_times(settings, "test_b") == (START + 94 * HOUR, START + 98 * HOUR)


def test_held_out_parts_bring_the_context_of_their_first_window(settings: Settings) -> None:
    write_split(PUMP, time_policy(), pump_frame(), settings)
    frame = read_part(settings, "pump", "v1", "reference")
    for _, rows in frame.groupby("entity_id"):
        context = rows[rows[CONTEXT_COLUMN]]
        assert len(context) == 16
        assert context["event_timestamp"].max() == START + 125 * HOUR
        assert rows["event_timestamp"].diff().dropna().eq(HOUR).all()
    assert not read_part(settings, "pump", "v1", "train")[CONTEXT_COLUMN].any()


def test_rows_come_back_as_they_were(settings: Settings) -> None:
    history = pump_frame()
    write_split(PUMP, time_policy(), history, settings)
    train = read_part(settings, "pump", "v1", "train").drop(columns=CONTEXT_COLUMN)
    expected = history[history["event_timestamp"] < START + 126 * HOUR].reset_index(drop=True)
    pd.testing.assert_frame_equal(train, expected)


def test_a_second_write_changes_no_byte(settings: Settings) -> None:
    first = write_split(PUMP, time_policy(), pump_frame(), settings)
    before = files(settings)
    assert write_split(PUMP, time_policy(), pump_frame(), settings) == first
    assert files(settings) == before


def test_a_refresh_rebuilds_training_rows_and_nothing_else(settings: Settings) -> None:
    write_split(PUMP, time_policy(), pump_frame(), settings)
    before = files(settings)
    corrected = pump_frame(hours=200)  # the series went on
    corrected.loc[3, "heat"] = 99.0  # and an old value was corrected
    manifest = write_split(PUMP, time_policy(), corrected, settings)
    after = files(settings)
    assert {name for name in before if before[name] != after[name]} == {"train.parquet", "manifest.json"}
    assert own_times(settings, "train") == (START, START + 125 * HOUR)
    assert read_part(settings, "pump", "v1", "train").loc[3, "heat"] == 99.0
    assert read_manifest(settings, "pump", "v1") == manifest


@pytest.mark.parametrize("part", ["reference", "test_late"])
def test_a_changed_held_out_file_is_refused_with_both_hashes(part: str, settings: Settings) -> None:
    policy = time_policy(test_steps={"late": 12})
    recorded = write_split(PUMP, policy, pump_frame(), settings).parts[part].sha256
    path = split_dir(settings, "pump", "v1") / f"{part}.parquet"
    frame = pd.read_parquet(path)
    frame["heat"] += 1
    frame.to_parquet(path, index=False)
    message = rf"{part}\.parquet has SHA-256 (?!{recorded})[0-9a-f]{{64}}, but its manifest records {recorded}"
    with pytest.raises(SplitIntegrityError, match=message):
        write_split(PUMP, policy, pump_frame(), settings)
    with pytest.raises(SplitIntegrityError, match=r"dvc checkout"):
        read_part(settings, "pump", "v1", part)


def test_a_missing_held_out_file_is_refused_by_name(settings: Settings) -> None:
    write_split(PUMP, time_policy(), pump_frame(), settings)
    (split_dir(settings, "pump", "v1") / "reference.parquet").unlink()
    for attempt in (
        lambda: write_split(PUMP, time_policy(), pump_frame(), settings),
        lambda: read_part(settings, "pump", "v1", "reference"),
    ):
        with pytest.raises(SplitIntegrityError, match=r"reference\.parquet is missing; restore it with `dvc checkout`"):
            attempt()


def test_a_missing_training_file_is_made_again(settings: Settings) -> None:
    write_split(PUMP, time_policy(), pump_frame(), settings)
    before = files(settings)
    (split_dir(settings, "pump", "v1") / "train.parquet").unlink()
    write_split(PUMP, time_policy(), pump_frame(), settings)
    assert files(settings) == before


def test_another_policy_under_the_same_version_is_refused(settings: Settings) -> None:
    write_split(PUMP, time_policy(), pump_frame(), settings)
    changed = time_policy(reference_steps=30, context_steps=20)
    with pytest.raises(SplitError, match=r"'v1' .* written with other values of context_steps, reference_steps; .*new"):
        write_split(PUMP, changed, pump_frame(), settings)


def test_cross_validation_is_no_part_of_the_version(settings: Settings) -> None:
    first = write_split(PUMP, time_policy(), pump_frame(), settings)
    other = time_policy(folds=1, cv={"name": "expanding", "params": {"validation_steps": 6}})
    assert write_split(PUMP, other, pump_frame(), settings) == first


def test_a_cut_off_is_a_version_of_its_own(settings: Settings) -> None:
    cut_off = START + 99 * HOUR
    policy = time_policy(as_of=cut_off.to_pydatetime())
    assert policy.version_id == "v1@20240105T0300"
    write_split(PUMP, time_policy(), pump_frame(), settings)
    manifest = write_split(PUMP, policy, pump_frame(), settings)
    assert manifest.version_id == "v1@20240105T0300"
    assert manifest.parts["reference"].end == cut_off.isoformat()
    assert read_part(settings, "pump", manifest.version_id, "reference")["event_timestamp"].max() == cut_off
    assert read_manifest(settings, "pump", "v1").parts["reference"].end == (START + 149 * HOUR).isoformat()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference_steps": 150}, r"'v1' needs 151 steps, but dataset 'pump' has 150 from 2024-01-01"),
        ({"reference_steps": 100, "test_steps": {"late": 60}}, r"needs 161 steps, but dataset 'pump' has 150"),
        ({"train_steps": 140}, r"needs 164 steps, but dataset 'pump' has 150"),
        ({"as_of": dt.datetime(2023, 1, 1, tzinfo=dt.UTC)}, r"has no rows up to 2023-01-01.*; nothing can be split"),
    ],
)
def test_data_too_short_for_the_policy_is_refused(changes: dict[str, Any], message: str, settings: Settings) -> None:
    with pytest.raises(SplitError, match=message):
        write_split(PUMP, time_policy(**changes), pump_frame(), settings)
    assert not settings.splits_dir.exists()


def test_what_was_never_written_is_named(settings: Settings) -> None:
    with pytest.raises(SplitError, match="'v1' of 'pump' does not exist; materialise pump/splits first"):
        read_part(settings, "pump", "v1", "train")
    write_split(PUMP, time_policy(), pump_frame(), settings)
    with pytest.raises(SplitError, match="has no part 'test_late'; known: train, reference"):
        read_part(settings, "pump", "v1", "test_late")


def test_the_manifest_is_plain_json(settings: Settings) -> None:
    manifest = write_split(PUMP, time_policy(), pump_frame(), settings)
    document = json.loads((split_dir(settings, "pump", "v1") / "manifest.json").read_text())
    assert document["policy"]["reference_steps"] == 24
    assert set(document["policy"]) & {"cv", "folds"} == set()
    assert read_manifest(settings, "pump", "v1") == manifest
    assert isinstance(manifest, SplitManifest)


def test_statistics_are_of_the_rows_that_are_scored_not_of_their_context(settings: Settings) -> None:
    history = pump_frame()
    history.loc[history.index[-1], "heat"] = np.nan
    part = write_split(PUMP, time_policy(), history, settings).parts["reference"]
    own = history[history["event_timestamp"] >= START + 126 * HOUR]
    assert (part.rows, part.entities) == (len(own), 2)
    heat = own["heat"].astype(float)
    assert part.columns["heat"]["missing"] == 1
    for name, expected in (("min", heat.min()), ("mean", heat.mean()), ("max", heat.max()), ("std", heat.std(ddof=0))):
        assert part.columns["heat"][name] == pytest.approx(expected)
    flat = part.statistics(["heat"])
    assert {key for key in flat if key.startswith("heat.")} == {f"heat.{key}" for key in part.columns["heat"]}
    assert (flat["rows"], flat["entities"], flat["sha256"]) == (part.rows, 2, part.sha256)
    assert read_manifest(settings, "pump", "v1").parts["reference"] == part


def test_a_column_without_values_has_no_mean(settings: Settings) -> None:
    empty = write_split(PUMP, time_policy(), pump_frame().assign(heat=np.float32("nan")), settings)
    assert empty.parts["reference"].columns["heat"] == {"missing": 48}


# Tabular


def test_categories_are_counted(settings: Settings) -> None:
    manifest = write_split(PATIENTS, table_policy(stratify_column="ill"), patients(), settings)
    counts = [manifest.parts[part].columns["ill"]["values"] for part in ("train", "reference")]
    assert {key: sum(count[key] for count in counts) for key in ("no", "yes")} == {"no": 30, "yes": 10}


def test_a_table_is_divided_by_rows(settings: Settings) -> None:
    manifest = write_split(PATIENTS, table_policy(), patients(), settings)
    train, reference = (read_part(settings, "patients", "v1", part) for part in ("train", "reference"))
    assert manifest.parts["train"].rows + manifest.parts["reference"].rows == 40
    together = pd.concat([train, reference]).sort_values("entity_id", ignore_index=True)
    pd.testing.assert_frame_equal(together, patients())
    assert train["entity_id"].is_monotonic_increasing


def test_a_stratified_table_has_about_the_class_shares_on_both_sides(settings: Settings) -> None:
    manifest = write_split(PATIENTS, table_policy(stratify_column="ill"), patients(4000), settings)
    reference = manifest.parts["reference"].columns["ill"]["values"]
    assert reference["no"] == pytest.approx(750, abs=60)
    assert reference["yes"] == pytest.approx(250, abs=40)


def test_a_class_without_a_row_on_one_side_is_refused_by_name(settings: Settings) -> None:
    frame = patients()
    frame["ill"] = np.where(np.arange(40) == 3, "rare", "no").astype(object)
    message = r"'v1' cannot be made: its part '(train|reference)' would have no row with 'ill' rare .*use another seed"
    with pytest.raises(SplitError, match=message):
        write_split(PATIENTS, table_policy(stratify_column="ill"), frame, settings)
    assert not settings.splits_dir.exists()


def test_another_seed_divides_otherwise(settings: Settings) -> None:
    write_split(PATIENTS, table_policy(), patients(), settings)
    write_split(PATIENTS, table_policy(version="v2", seed=8), patients(), settings)
    first, second = (read_part(settings, "patients", version, "reference") for version in ("v1", "v2"))
    assert set(first["entity_id"]) != set(second["entity_id"])


def test_new_rows_of_a_table_join_the_training_part_if_later_versions_do_not_hold_them_out(settings: Settings) -> None:
    write_split(PATIENTS, table_policy(), patients(), settings)
    before = files(settings, "patients")
    write_split(PATIENTS, table_policy(), patients(400), settings)
    after = files(settings, "patients")
    assert after["reference.parquet"] == before["reference.parquet"]
    train = set(read_part(settings, "patients", "v1", "train")["entity_id"])
    assert len(train) == pytest.approx(300, abs=40)
    write_split(PATIENTS, table_policy(version="v2"), patients(400), settings)
    assert set(read_part(settings, "patients", "v2", "reference")["entity_id"]) == set(range(400)) - train


def test_a_cut_off_holds_for_later_refreshes_of_a_table(settings: Settings) -> None:
    cut_off = START + pd.Timedelta(days=39)
    policy = table_policy(as_of=cut_off.to_pydatetime())
    first = write_split(PATIENTS, policy, patients(60), settings)
    assert first.parts["train"].rows + first.parts["reference"].rows == 40
    assert write_split(PATIENTS, policy, patients(60), settings) == first


def test_a_table_too_small_to_divide_is_refused(settings: Settings) -> None:
    with pytest.raises(SplitError, match="split version 'v1' cannot be made: "):
        write_split(PATIENTS, table_policy(stratify_column="ill"), patients(3), settings)


def with_future(hours: int = 6) -> pd.DataFrame:
    """Rows of which the last hours are known beforehand: the flow is planned, the heat is not there yet."""
    frame = pump_frame()
    frame.loc[frame["event_timestamp"] > START + (HOURS - 1 - hours) * HOUR, ["heat", "state"]] = np.nan
    return frame


def test_history_ends_with_the_last_observed_target(settings: Settings) -> None:
    write_split(PUMP, time_policy(), with_future(), settings, targets=["heat"])
    assert own_times(settings, "reference") == (START + 120 * HOUR, START + 143 * HOUR)
    assert own_times(settings, "train")[1] == START + 119 * HOUR


def test_an_entity_that_is_observed_later_holds_the_history_open(settings: Settings) -> None:
    frame = with_future()
    frame.loc[(frame["entity_id"] == 2) & (frame["event_timestamp"] == START + 146 * HOUR), "heat"] = 20.0
    write_split(PUMP, time_policy(), frame, settings, targets=["heat"])
    assert own_times(settings, "reference") == (START + 123 * HOUR, START + 146 * HOUR)


def test_the_end_is_where_any_of_several_targets_was_observed(settings: Settings) -> None:
    write_split(PUMP, time_policy(), with_future(), settings, targets=["heat", "flow"])
    assert own_times(settings, "reference") == (START + 126 * HOUR, START + 149 * HOUR)


def test_a_part_that_is_hardly_observed_is_refused_before_anything_is_written(settings: Settings) -> None:
    """One row at a wrong time in the far future would otherwise be the reference set for ever."""
    frame = pump_frame()
    first = frame["entity_id"] == 1
    glitch = frame[first].assign(event_timestamp=lambda rows: rows["event_timestamp"] + 150 * HOUR)
    glitch.loc[glitch.index[:-1], ["flow", "heat", "state"]] = np.nan
    history = pd.concat([frame[first], glitch, frame[~first]], ignore_index=True)
    with pytest.raises(SplitError, match=r"part 'reference' .* observed in 4\.2% of its 24 rows .* 50%; nothing was"):
        write_split(PUMP, time_policy(), history, settings, targets=["heat"])
    assert not split_dir(settings, "pump", "v1").exists()
    write_split(PUMP, time_policy(min_observed_share=0.04), history, settings, targets=["heat"])
    # It says when a version may be written, not what it is: another share later is no other version.
    write_split(PUMP, time_policy(), history, settings, targets=["heat"])
