"""Times without a zone, in local time: both changes of the clocks, in files, batches and streams."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from mlplatform.calendars import zone_of
from mlplatform.config import DatasetConfig
from mlplatform.data.local_times import localise
from mlplatform.data.validation import Basis, validate

BERLIN = zone_of("Europe/Berlin")


def dataset(frequency: str = "1h", zone: str = "Europe/Berlin") -> DatasetConfig:
    source = {"uri": "unused.csv"}
    return DatasetConfig.model_validate(
        {"name": "plant", "source": source, "time_column": "time", "entity_column": "line", "frequency": frequency,
         "timezone": zone, "columns": {"load": {}}}
    )  # fmt: skip


def local_rows(moments: pd.DatetimeIndex, lines: int = 2) -> pd.DataFrame:
    """Rows in order of time, of each time one per line, with local times without a zone."""
    texts = moments.strftime("%Y-%m-%d %H:%M").repeat(lines)
    line = np.tile(np.arange(lines), len(moments))
    return pd.DataFrame({"time": texts, "line": line, "load": np.arange(len(texts), dtype=float)})


@pytest.mark.parametrize("frequency", ["1h", "15min"])
@pytest.mark.parametrize("day", ["2025-10-26", "2025-03-30"])
@pytest.mark.parametrize("order", ["forward", "backward", "by line"])
def test_local_hours_around_a_change_of_clocks_are_whole(frequency: str, day: str, order: str) -> None:
    moments = pd.date_range(day, periods=40, freq=frequency, tz="Europe/Berlin")
    rows = local_rows(moments)
    if order == "backward":
        rows = rows.iloc[::-1]
    elif order == "by line":
        rows = rows.sort_values("line", kind="stable")
    found = validate(rows.reset_index(drop=True), dataset(frequency))
    assert found.reasons == {}
    for line in (0, 1):
        own = found.rows[found.rows["entity_id"] == line]
        assert own["event_timestamp"].tolist() == moments.tz_convert("UTC").tolist()
        expected = rows[rows["line"] == line].sort_index()["load"]
        assert own["load"].tolist() == expected.tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("frequency", ["1h", "30min", "15min"])
@pytest.mark.parametrize("lines", [1, 2])
def test_an_hour_that_comes_twice_may_lie_in_several_batches(size: int, frequency: str, lines: int) -> None:
    moments = pd.date_range("2025-10-25 23:00", "2025-10-26 05:00", freq=frequency, tz="Europe/Berlin")
    rows, basis, taken = local_rows(moments, lines), Basis(), []
    for start, end in pairwise([*range(0, len(rows), size), len(rows)]):
        batch = validate(rows.iloc[start:end], dataset(frequency), basis, first_row=start, newest_wins=True)
        assert batch.reasons == {}
        basis = batch.basis
        taken.append(batch.rows)
    own = pd.concat(taken)
    assert sorted(own.loc[own["entity_id"] == lines - 1, "event_timestamp"]) == moments.tz_convert("UTC").tolist()


def test_a_night_is_forgotten_when_the_source_has_left_it() -> None:
    hours = local_rows(pd.date_range("2025-10-26", periods=4, freq="h", tz="Europe/Berlin"))
    basis = validate(hours, dataset()).basis
    assert len(basis.seen) == 4
    after = local_rows(pd.date_range("2025-10-28", periods=4, freq="h", tz="Europe/Berlin"))
    assert validate(after, dataset(), basis).basis.seen == ()


def test_rows_that_come_once_are_later_when_the_clock_went_back() -> None:
    wall = pd.to_datetime(["2025-10-26 01:45", "2025-10-26 02:30", "2025-10-26 02:45", "2025-10-26 02:15"])
    found = localise(wall.as_unit("ns").asi8, np.zeros(4, dtype=int), BERLIN)
    hours = pd.to_datetime(found.moments).strftime("%H:%M").tolist()
    assert hours == ["23:45", "00:30", "00:45", "01:15"]


def test_a_time_that_clocks_skipped_is_moved_and_gives_way_to_a_real_row() -> None:
    times = ["2025-03-30 01:00", "2025-03-30 02:00", "2025-03-30 03:00"]
    rows = pd.DataFrame({"time": times, "line": 1, "load": [1.0, 2.0, 3.0]})
    found = validate(rows, dataset())
    assert found.reasons == {"time: a time that the clocks of Europe/Berlin skipped": 1}
    assert found.rows["load"].tolist() == [1.0, 3.0]
    alone = validate(rows.iloc[:2], dataset())
    assert alone.rows["event_timestamp"].tolist() == [pd.Timestamp(f"2025-03-30 0{hour}:00Z") for hour in (0, 1)]


def test_times_with_a_zone_mean_what_they_say() -> None:
    times = ["2025-06-01 12:00", "2025-06-01T13:00:00Z", "2025-06-01T13:00:00+02:00"]
    rows = pd.DataFrame({"time": times, "line": [1, 2, 3], "load": 1.0})
    found = validate(rows, dataset()).rows["event_timestamp"].dt.strftime("%H:%M").tolist()
    assert found == ["10:00", "13:00", "11:00"]


@pytest.mark.parametrize("frequency", ["D", "B", "MS", "W-MON"])
def test_local_midnights_are_on_the_grid(frequency: str) -> None:
    moments = pd.date_range("2024-01-01", periods=30, freq=frequency, tz="Europe/Berlin")
    found = validate(local_rows(moments, 1), dataset(frequency))
    assert found.reasons == {}
    assert found.rows["event_timestamp"].tolist() == moments.tz_convert("UTC").tolist()


def test_a_time_off_the_calendar_goes_to_quarantine() -> None:
    moments = pd.date_range("2024-01-01", periods=30, freq="MS")
    rows = local_rows(moments, 1)
    rows.loc[3, "time"] = "2024-04-02"
    assert validate(rows, dataset("MS", "UTC")).reasons == {"time: off the MS grid": 1}
