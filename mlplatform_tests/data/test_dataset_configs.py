"""The packaged data sets: each YAML is valid, and its data are as it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from mlplatform.config import DatasetConfig, check_source, options
from mlplatform.data.ingest_report import IngestReport
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import read_raw
from mlplatform.settings import PACKAGED_CONF, Settings

DATA_DIR = os.environ.get("MLPLATFORM_DATA_DIR", "")
NAMES = sorted(path.stem for path in (PACKAGED_CONF / "dataset").glob("*.yaml"))


def load(name: str) -> DatasetConfig:
    return DatasetConfig.model_validate(yaml.safe_load((PACKAGED_CONF / "dataset" / f"{name}.yaml").read_text()))


@pytest.fixture
def offline(tmp_path: Path) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_data_set_is_valid_and_named_like_its_file(name: str) -> None:
    dataset = load(name)
    check_source(dataset)
    assert dataset.name == name
    assert dataset.description
    assert all(column.description for column in dataset.columns.values())


def test_the_four_data_sets_are_there(offline: Settings) -> None:
    assert {"breast_cancer", "diabetes", "etth1", "fleet"} <= set(options("dataset", offline))


def test_the_fleet_has_gaps_and_outliers_but_few(offline: Settings) -> None:
    report = ingest(load("fleet"), offline)
    assert report.entities == 6
    assert report.rows > 51_000
    assert 0 < report.quarantined < 0.005 * report.rows
    assert 0 < report.gaps < 0.03 * report.rows
    assert report.ranges["cooling"]["categories"] == 2


@pytest.mark.parametrize("kind", ["cooling_failure", "load_regime"])
def test_the_fleet_limits_leave_room_for_the_strongest_fault(kind: str, offline: Settings) -> None:
    dataset = load("fleet")
    fault = {"kind": kind, "start": "2024-01-01", "severity": 1.0}
    source = dataset.source.model_copy(
        update={"options": dataset.source.options | {"outlier_rate": 0, "faults": [fault]}}
    )
    assert ingest(dataset.model_copy(update={"source": source}), offline).quarantined == 0


@pytest.mark.parametrize(("name", "rows"), [("diabetes", 442), ("breast_cancer", 569)])
def test_the_bundled_data_sets_are_complete(name: str, rows: int, offline: Settings) -> None:
    report: IngestReport = ingest(load(name), offline)
    assert (report.rows, report.quarantined) == (rows, 0)
    assert read_raw(load(name), offline)["entity_id"].tolist() == list(range(rows))


@pytest.mark.skipif(not (Path(DATA_DIR) / "ETTh1.csv").is_file(), reason="MLPLATFORM_DATA_DIR has no ETTh1.csv")
def test_etth1_is_complete_and_clean(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_DATA_DIR": DATA_DIR})
    report = ingest(load("etth1"), settings)
    assert (report.rows, report.quarantined, report.gaps, report.out_of_order_rows) == (17_420, 0, 0, 0)
    assert (report.start.isoformat(), report.end.isoformat()) == (
        "2016-07-01T00:00:00+00:00",
        "2018-06-26T19:00:00+00:00",
    )
    assert report.ranges["OT"]["min"] == pytest.approx(-4.08, abs=0.001)
