"""The feature table lies on the full grid, and the window table holds each entity's newest steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mlplatform.config import DatasetConfig
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.tables.feature_table import (
    entity_ranges,
    features_path,
    windows_path,
)
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table
from mlplatform_tests.features.conftest import STEPS, tabular, tabular_frame


def contents(dataset: DatasetConfig, settings: Settings) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(features_path(dataset, settings).glob("*.parquet"))}


def test_gaps_become_rows_without_values(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> None:
    report = write_feature_table(raw, dataset, settings)
    assert (report.rows, report.entities, report.gap_rows) == (45, 2, 3)
    assert (report.start, report.end) == (pd.Timestamp("2024-03-01", tz="UTC"), pd.Timestamp("2024-03-02T15:00Z"))
    table = pd.read_parquet(report.path)
    for _, rows in table.groupby("entity_id"):
        assert (rows["event_timestamp"].diff().dropna() == pd.Timedelta(hours=1)).all()
    merged = table.merge(raw, on=["entity_id", "event_timestamp"], how="left", suffixes=("", "_raw"), indicator=True)
    for name in ("load", "oil", "mode"):
        assert merged[name].fillna("missing").tolist() == merged[f"{name}_raw"].fillna("missing").tolist()
    assert (merged["_merge"] == "left_only").sum() == 3
    assert report.schema["load"] == "float"
    assert report.schema["mode"] == "string"
    assert report.schema["event_timestamp"] == "timestamp[us, tz=UTC]"


def test_row_order_and_column_types_of_the_raw_frame_do_not_matter(
    raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings
) -> None:
    expected = pq.read_table(write_feature_table(raw, dataset, settings).path)
    shuffled = raw.sample(frac=1, random_state=1).astype({"load": "float64"})
    assert pq.read_table(write_feature_table(shuffled, dataset, settings).path).equals(expected)


def test_empty_text_counts_as_missing(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> None:
    raw.loc[0, "mode"] = ""
    write_feature_table(raw, dataset, settings)
    assert pd.read_parquet(features_path(dataset, settings))["mode"].iloc[0] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.drop(columns="oil"), r"lacks \['oil'\]"),
        (lambda raw: raw.iloc[:0], "has no rows"),
        (lambda raw: pd.concat([raw, raw.tail(1)]), "several rows for one entity and time"),
        (
            lambda raw: raw.assign(
                event_timestamp=raw["event_timestamp"] + pd.to_timedelta([0] * 41 + [7], unit="min")
            ),
            "entity 2 has a row at 2024-03-02T13:07:00.* off its grid of 1h",
        ),
    ],
)
def test_a_raw_frame_off_the_contract_is_refused_and_leaves_the_table(
    change: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
    raw: pd.DataFrame,
    dataset: DatasetConfig,
    settings: Settings,
) -> None:
    write_feature_table(raw, dataset, settings)
    before = contents(dataset, settings)
    with pytest.raises(FeatureStoreError, match=message):
        write_feature_table(change(raw), dataset, settings)
    assert contents(dataset, settings) == before


def test_windows_hold_the_last_steps_padded_on_the_left(
    raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings
) -> None:
    report = write_feature_table(raw, dataset, settings)
    assert report.windows_changed == 2
    windows = pd.read_parquet(windows_path(dataset, settings))
    table = pd.read_parquet(features_path(dataset, settings))
    for _, row in windows.iterrows():
        rows = table[table["entity_id"] == row["entity_id"]].tail(STEPS)
        padding = STEPS - len(rows)
        assert row["event_timestamp"] == rows["event_timestamp"].iloc[-1]
        assert row["end_ns"] == rows["event_timestamp"].iloc[-1].value
        for name in ("load", "oil"):
            expected = np.concatenate([np.full(padding, np.nan, np.float32), rows[name].to_numpy()])
            assert row[f"window_{name}"].dtype == np.float32
            np.testing.assert_array_equal(row[f"window_{name}"], expected)
        assert list(row["window_mode"]) == [""] * padding + [text or "" for text in rows["mode"]]


def test_tabular_rows_are_stored_as_they_are(settings: Settings) -> None:
    report = write_feature_table(tabular_frame().iloc[::-1], tabular(), settings)
    assert (report.rows, report.entities, report.gap_rows) == (3, 3, 0)
    stored = pd.read_parquet(report.path)
    pd.testing.assert_frame_equal(stored, tabular_frame(), check_dtype=False)
    assert stored["age"].dtype == np.float32
    assert not windows_path(tabular(), settings).exists()


def test_entity_ranges_span_first_to_last_row(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> None:
    with pytest.raises(FeatureStoreError, match="does not exist; materialise plant/feature_table first"):
        entity_ranges(dataset, settings)
    write_feature_table(raw, dataset, settings)
    expected = raw.groupby("entity_id")["event_timestamp"].agg(["min", "max"])
    ranges = entity_ranges(dataset, settings)
    assert ranges["start"].tolist() == expected["min"].tolist()
    assert ranges["end"].tolist() == expected["max"].tolist()
