"""Frequencies that are left to the data: found at the first ingest, said, kept, and refused where there is none."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ColumnConfig, ConfigError, DatasetConfig, read_found
from mlplatform.data import DataError, ingest
from mlplatform.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "home"))
    return Settings.from_env()


def stored(times: pd.DatetimeIndex, folder: Path, zone: str = "UTC") -> DatasetConfig:
    """Write a file of two shops and return the dataset that it is."""
    folder.mkdir(exist_ok=True)
    rows = pd.DataFrame({"time": times.strftime("%Y-%m-%d %H:%M"), "sold": np.arange(len(times))})
    pd.concat([rows.assign(shop=shop) for shop in ("a", "b")]).to_csv(folder / "shops.csv", index=False)
    source = {"uri": str(folder / "shops.csv")}
    return DatasetConfig.model_validate(
        {"name": "shops", "source": source, "time_column": "time", "entity_column": "shop", "frequency": "auto",
         "timezone": zone, "columns": {"sold": {}}}
    )  # fmt: skip


@pytest.mark.parametrize(("frequency", "zone"), [("MS", "UTC"), ("B", "America/New_York"), ("h", "Europe/Berlin")])
def test_the_first_ingest_finds_the_frequency_and_says_so(
    frequency: str, zone: str, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times = pd.date_range("2000-01-03", periods=200, freq=frequency, tz=zone).delete([17, 90])
    dataset = stored(times, tmp_path / "in", zone)
    with pytest.raises(ConfigError, match="launch ingest_shops first"):
        _ = dataset.calendar
    with caplog.at_level(logging.INFO, logger="mlplatform.data.frequency"):
        report = ingest(dataset, settings)
    assert f"frequency auto is {frequency} (" in caplog.text
    assert report.frequency.startswith(f"{frequency} (")
    assert (report.quarantined, report.gaps) == (0, 4)
    assert dataset.calendar.frequency == frequency
    # It holds from then on, and the YAML may say it.
    again = ingest(dataset, settings)
    said = ingest(dataset.model_copy(update={"frequency": frequency}), settings)
    assert again.sha256 == said.sha256 == report.sha256


def test_other_rows_are_refused_until_the_source_is_read_from_its_beginning(settings: Settings, tmp_path: Path) -> None:
    dataset = stored(pd.date_range("2000-01-01", periods=60, freq="MS"), tmp_path / "in")
    ingest(dataset, settings)
    broken = stored(pd.date_range("2000-01-01", periods=60, freq="D"), tmp_path / "in")
    with pytest.raises(DataError, match=r"time: off the MS grid"):
        ingest(broken, settings)
    # What is stored keeps its step, also where a full read fails after it has found another one.
    with pytest.raises(DataError, match="above the maximum"):
        ingest(broken.model_copy(update={"columns": {"sold": ColumnConfig(max=-1)}}), settings, full=True)
    assert dataset.calendar.frequency == "MS"
    assert ingest(dataset, settings, full=True).frequency == "D (day, UTC)"


def test_times_without_a_common_step_are_refused(settings: Settings, tmp_path: Path) -> None:
    minutes = np.cumsum(np.random.default_rng(0).integers(1, 5_000, 100))
    dataset = stored(pd.Timestamp("2024-01-01") + pd.to_timedelta(minutes, "min"), tmp_path / "in")
    with pytest.raises(DataError, match=r"dataset 'shops': frequency auto finds no step .* Say the frequency instead"):
        ingest(dataset, settings)
    assert read_found("shops", settings) is None
