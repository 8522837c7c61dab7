"""The raw table: what is stored and reported, and that a failure changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mlplatform import snapshots, storage
from mlplatform.config import DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import read_raw
from mlplatform.settings import Settings
from mlplatform.snapshots import Update
from mlplatform_tests.data.conftest import hourly_dataset, hourly_frame


def provide(frame: pd.DataFrame, settings: Settings) -> None:
    assert settings.data_dir is not None
    frame.to_csv(settings.data_dir / "pump.csv", index=False)


def broken_frame() -> pd.DataFrame:
    frame = hourly_frame(8).astype(object)
    frame.loc[2, "flow"] = "wet"
    frame.loc[5, "flow"] = 900
    return frame


def stored(settings: Settings) -> dict[str, bytes]:
    folder = settings.raw_dir / "pump"
    files = (path for path in folder.resolve().rglob("*") if path.is_file())
    return {str(path.relative_to(folder.resolve())): path.read_bytes() for path in files}


def leftovers(settings: Settings) -> int:
    return len(list(settings.raw_dir.glob(".pump.*"))) - 1


def test_what_is_stored_is_what_is_read(settings: Settings) -> None:
    provide(hourly_frame(), settings)
    dataset = hourly_dataset()
    ingest(dataset, settings)
    frame = read_raw(dataset, settings)
    assert frame.dtypes.astype(str).tolist() == ["int64", "datetime64[ns, UTC]", "float32", "float32", "object"]
    assert frame["flow"].tolist() == [0, 1, 2, 3, 4, 5]


def test_columns_that_are_all_missing_keep_their_type(settings: Settings) -> None:
    provide(hourly_frame().assign(flow=None, state=None), settings)
    report = ingest(hourly_dataset(), settings)
    types = {field.name: str(field.type) for field in pq.read_schema(report.path / "2024-01.parquet")}
    assert (types["flow"], types["state"]) == ("float", "string")
    assert read_raw(hourly_dataset(), settings)["state"].tolist() == [None] * 6


def test_the_report_says_what_happened(settings: Settings) -> None:
    provide(broken_frame().iloc[[0, 1, 2, 3, 5, 4, 7]], settings)
    report = ingest(hourly_dataset(), settings)
    assert (report.rows, report.quarantined) == (5, 2)
    assert report.reasons == {"flow: not a number": 1, "flow: above the maximum 100": 1}
    assert (report.gaps, report.out_of_order_rows, report.entities) == (3, 0, 1)
    assert (report.start.hour, report.end.hour) == (0, 7)
    assert report.ranges["flow"] == {"min": 0.0, "mean": 3.0, "max": 7.0, "nulls": 0}
    assert report.ranges["state"] == {"categories": 1, "nulls": 0}
    assert report.quarantine_path is not None
    assert pd.read_parquet(report.quarantine_path)["flow"].tolist() == ["wet", "900"]


def test_equal_input_gives_equal_bytes(settings: Settings) -> None:
    provide(hourly_frame(), settings)
    assert ingest(hourly_dataset(), settings).sha256 == ingest(hourly_dataset(), settings).sha256


def test_a_clean_ingest_takes_the_old_quarantine_away(settings: Settings) -> None:
    provide(broken_frame(), settings)
    ingest(hourly_dataset(), settings)
    provide(hourly_frame(), settings)
    assert ingest(hourly_dataset(), settings).quarantine_path is None
    assert sorted(stored(settings)) == ["entities.parquet", "rows/2024-01.parquet", "state.json"]


@pytest.fixture
def first(settings: Settings) -> dict[str, bytes]:
    """The files of a good ingest with a quarantine; other data lie ready for the next one."""
    provide(broken_frame(), settings)
    ingest(hourly_dataset(), settings)
    provide(hourly_frame(4), settings)
    return stored(settings)


def test_a_source_that_turned_bad_changes_nothing(settings: Settings, first: dict[str, bytes]) -> None:
    provide(hourly_frame().assign(flow="wet"), settings)
    with pytest.raises(DataError):
        ingest(hourly_dataset(), settings)
    assert stored(settings) == first


def test_a_crash_between_two_files_changes_nothing(
    settings: Settings, first: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(broken_frame().iloc[:6], settings)
    real = Update.write_file

    def fail_on_quarantine(update: Update, name: str | Path, table: object) -> Path:
        if str(name).startswith("quarantine"):
            raise OSError("disk full")
        return real(update, name, table)

    monkeypatch.setattr(Update, "write_file", fail_on_quarantine)
    with pytest.raises(OSError, match="disk full"):
        ingest(hourly_dataset(), settings)
    assert stored(settings) == first
    assert leftovers(settings) == 0


def test_a_crash_before_the_rename_changes_nothing(
    settings: Settings, first: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ingest(hourly_dataset(), settings)
    assert stored(settings) == first
    assert leftovers(settings) == 0
    assert ingest(hourly_dataset(), settings).rows == 4


def test_a_killed_process_changes_nothing_and_is_cleaned_up_later(
    settings: Settings, first: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"""
        import os, signal
        from mlplatform.data.raw import ingest
        from mlplatform.settings import Settings
        from mlplatform_tests.data.conftest import hourly_dataset
        settings = Settings.from_env({{"MLPLATFORM_HOME": {str(settings.home)!r},
                                      "MLPLATFORM_DATA_DIR": {str(settings.data_dir)!r}}})
        os.replace = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
        ingest(hourly_dataset(), settings)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert stored(settings) == first
    assert leftovers(settings) > 0
    monkeypatch.setattr(snapshots, "KEEP_PREVIOUS_S", -1)
    assert ingest(hourly_dataset(), settings).rows == 4
    assert leftovers(settings) == 0


def test_what_is_not_a_link_is_not_replaced(settings: Settings) -> None:
    (settings.raw_dir / "pump").mkdir(parents=True)
    provide(hourly_frame(), settings)
    with pytest.raises(storage.StorageError, match="should be a link made by an earlier run"):
        ingest(hourly_dataset(), settings)


def test_reading_before_the_first_ingest_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(DataError, match="materialise pump/raw first"):
        read_raw(hourly_dataset(), settings)


@pytest.mark.usefixtures("first")
def test_reading_with_other_columns_than_stored_says_what_to_do(settings: Settings) -> None:
    dataset: DatasetConfig = hourly_dataset(columns={"flow": {}})
    with pytest.raises(DataError, match="configuration now asks for flow \\(float\\) by month; materialise"):
        read_raw(dataset, settings)


@pytest.mark.parametrize("name", ["row", "reason", "__removed__", "first", "last", "since", "index"])
def test_a_column_may_be_called_as_our_bookkeeping_is(name: str, settings: Settings) -> None:
    assert settings.data_dir is not None
    dataset = hourly_dataset(columns={name: {}, "flow": {}})
    rows = pd.DataFrame({"time": [f"2024-01-01T0{hour}:00" for hour in range(4)], name: [7, 8, "x", 9], "flow": 1.0})
    rows.to_csv(settings.data_dir / "pump.csv", index=False)
    report = ingest(dataset, settings)
    assert read_raw(dataset, settings)[name].tolist() == [7, 8, 9]
    assert (report.quarantined, report.removed) == (1, 0)
