"""Parsing of cells: each means the same alone as in any company and in any order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings

from mlplatform.calendars import zone_of
from mlplatform.config import TIMESTAMP, DatasetConfig
from mlplatform.data.parsing import parse_local_times, parse_numbers, parse_times
from mlplatform.data.sources.messages import rows_from_messages
from mlplatform.data.validation import validate
from mlplatform.settings import Settings
from mlplatform.testing import read_source
from mlplatform_tests.data.conftest import hourly_dataset

EAST = dt.timezone(dt.timedelta(hours=2))
NUMBER = st.one_of(
    st.none(), st.floats(width=32), st.integers(-(2**70), 2**70), st.booleans(), st.sampled_from(["1.5", "x", "", "7"])
)
TIME = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "2024-01-01T02:00:00+02:00",
            "2024-01-01 02:00:00.5 -11:30",
            "20240101T05-03",
            "2024-01-01T00:00:00Z",
            "2024-01-01T00:00:00",
            " 2024-01-01 00:00 ",
            "2024-06-01T12",
            "20240101T0000",
            "2024-01-01",
            "2024-01",
            "2024-01-01T25:00",
            "now",
            "",
            1704067200,
            dt.date(2024, 1, 1),
        ]
    ),
    st.datetimes(dt.datetime(1800, 1, 1), dt.datetime(2200, 1, 1)),
    st.datetimes(dt.datetime(1800, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(EAST)),
)


def column(cells: list[Any]) -> pd.Series:
    return pd.Series(cells, dtype=object)


@settings(max_examples=200, deadline=None)
@given(st.lists(TIME, min_size=1, max_size=8), st.sampled_from([None, "s", "ms"]))
def test_a_time_means_the_same_alone_as_in_any_company(cells: list[Any], unit: Any) -> None:
    together, bad = parse_times(column(cells), unit)
    alone = [parse_times(column([cell]), unit) for cell in cells]
    np.testing.assert_array_equal(together, np.concatenate([times for times, _ in alone]))
    np.testing.assert_array_equal(bad, np.concatenate([is_bad for _, is_bad in alone]))


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBER, min_size=1, max_size=8))
def test_a_number_means_the_same_alone_as_in_any_company(cells: list[Any]) -> None:
    together, bad = parse_numbers(column(cells))
    alone = [parse_numbers(column([cell])) for cell in cells]
    np.testing.assert_array_equal(together, np.concatenate([values for values, _ in alone]))
    np.testing.assert_array_equal(bad, np.concatenate([is_bad for _, is_bad in alone]))


def test_a_time_without_a_zone_is_utc_below_one_that_has_a_zone() -> None:
    times, _ = parse_times(column(["2024-01-01T02:00:00+02:00", "2024-01-01T00:00:00", "2024-01-01 00:00"]))
    assert set(times) == {np.datetime64("2024-01-01T00:00", "ns")}


def csv_rows(rows: pd.DataFrame, folder: Path) -> tuple[str, Path]:
    path = folder / "pump.csv"
    rows.to_csv(path, index=False)
    return "pump.csv", path


def parquet_rows(rows: pd.DataFrame, folder: Path) -> tuple[str, Path]:
    path = folder / "pump.parquet"
    rows.to_parquet(path)
    return "pump.parquet", path


@pytest.mark.parametrize("write", [csv_rows, parquet_rows])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0]])
def test_files_with_and_without_zones_are_read_row_by_row(
    write: Callable[[pd.DataFrame, Path], tuple[str, Path]], order: list[int], settings: Settings
) -> None:
    assert settings.data_dir is not None
    rows = zoned_rows().iloc[order]
    uri, _ = write(rows, settings.data_dir)
    check_zoned(read_source(zoned_dataset(uri), settings), zoned_dataset(uri))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0]])
def test_messages_with_and_without_zones_are_read_one_by_one(order: list[int]) -> None:
    dataset = zoned_dataset("kafka://localhost/readings")
    messages = [orjson.dumps(row) for row in zoned_rows().iloc[order].to_dict("records")]
    check_zoned(rows_from_messages(messages, dataset, is_first=True), dataset)


def zoned_dataset(uri: str) -> DatasetConfig:
    return hourly_dataset(source={"uri": uri}, entity_column="line", columns={"load": {}})


def zoned_rows() -> pd.DataFrame:
    """Two sites, of which one writes local time with its offset and the other UTC without one."""
    times = ["2024-01-01T02:00:00+02:00", "2024-01-01T00:00:00", "2024-01-01T03:00:00+02:00", "2024-01-01T01:00:00"]
    return pd.DataFrame({"time": times, "line": ["A", "B", "A", "B"], "load": [1.0, 1.0, 2.0, 2.0]})


def check_zoned(frame: pd.DataFrame, dataset: DatasetConfig) -> None:
    result = validate(frame, dataset)
    assert result.quarantine.empty
    assert [moment.isoformat() for moment in result.rows[TIMESTAMP]] == [
        "2024-01-01T00:00:00+00:00",
        "2024-01-01T01:00:00+00:00",
    ] * 2
    assert result.rows["load"].tolist() == [1, 2, 1, 2]


MOMENT = pd.Timestamp("2024-03-31T01:30:00.25", tz="UTC")
COUNTS = {"s": Decimal("1711848600.25"), "ms": 1711848600250, "us": 1711848600250000, "ns": 1711848600250000000}


@pytest.mark.parametrize("unit", COUNTS)
def test_numbers_are_times_where_it_is_known_what_they_count(unit: Any) -> None:
    count = COUNTS[unit]
    cells = [
        count,
        str(count),
        f" {count} ",
        Decimal(count),
        MOMENT.isoformat(),
        None,
        True,
        "x",
        float("inf"),
        "1e400",
    ]
    times, bad = parse_times(column(cells), unit)
    assert (times[:5] == MOMENT.tz_localize(None).to_datetime64()).all()
    assert bad.tolist() == [False] * 6 + [True] * 4
    assert np.isnat(times[5:]).all()
    # In UTC, whatever the zone is of times that tell none.
    local = parse_local_times(column([count, "2024-03-31T03:30:00.25"]), None, zone_of("Europe/Berlin"), unit=unit)
    assert (local.times == MOMENT.tz_localize(None).to_datetime64()).all()
    if unit != "s":
        for kind in ("int64", "Int64", "int64[pyarrow]"):
            (time,), (is_bad,) = parse_times(pd.Series([count], dtype=kind), unit)
            assert (time, is_bad) == (times[0], False)
    # A float that stands for several numbers tells no moment.
    assert parse_times(pd.Series([float(count)]), unit)[1].tolist() == [unit == "ns"]
    assert parse_times(pd.Series([count, -(10**30)], dtype=object), unit)[1].tolist() == [False, True]


def test_a_number_is_no_time_where_that_is_not_known() -> None:
    assert parse_times(column([1711848600]))[1].tolist() == [True]
