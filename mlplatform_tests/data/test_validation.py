"""Validation: every reason for quarantine, what is repaired instead, and what is refused as a whole."""

from __future__ import annotations

import datetime as dt
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.validation import Tally, Validated, validate
from mlplatform_tests.data.conftest import hourly_dataset, hourly_frame

FLEET = {"entity_column": "unit", "columns": {"flow": {"min": 0, "max": 100}}}


def fleet_frame(units: list[Any], hours: list[int], flow: list[Any]) -> pd.DataFrame:
    times = [f"2024-01-01T{hour:02d}:00:00" for hour in hours]
    return pd.DataFrame({"unit": units, "time": times, "flow": flow})


def judge(frame: pd.DataFrame, dataset: DatasetConfig) -> None:
    """Validate a frame as a whole source."""
    tally = Tally()
    tally.add(validate(frame, dataset))
    tally.refuse_bad_source(dataset)


def reasons_by_row(result: Validated) -> dict[int, str]:
    return dict(zip(result.quarantine["row"], result.quarantine["reason"], strict=True))


def test_good_rows_come_out_in_canonical_form() -> None:
    rows = validate(hourly_frame(3), hourly_dataset()).rows
    assert list(rows.columns) == [ENTITY, TIMESTAMP, "flow", "pressure", "state"]
    assert rows[ENTITY].tolist() == [1, 1, 1]
    assert rows.dtypes.astype(str).tolist() == ["int64", "datetime64[ns, UTC]", "float32", "float32", "object"]
    assert rows[TIMESTAMP][1] == pd.Timestamp("2024-01-01T01:00Z")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("time", "yesterday", "time: not an ISO 8601 time of the years 1678 to 2261"),
        ("time", "now", "time: not an ISO 8601 time of the years 1678 to 2261"),
        ("time", None, "time: missing"),
        ("time", "2024-01-01 03:10:00", "time: off the 1h grid"),
        ("flow", "n.a.", "flow: not a number"),
        ("flow", -0.5, "flow: below the minimum 0"),
        ("flow", 100.5, "flow: above the maximum 100"),
        ("flow", np.inf, "flow: not a finite 32-bit number; flow: above the maximum 100"),
        ("pressure", -np.inf, "pressure: not a finite 32-bit number"),
        ("pressure", 1e300, "pressure: not a finite 32-bit number"),
        ("pressure", None, "pressure: missing, but the column is not nullable"),
        ("pressure", "high", "pressure: not a number"),
    ],
)
def test_a_bad_cell_sends_its_row_to_quarantine(column: str, value: Any, reason: str) -> None:
    frame = hourly_frame().astype(object)
    frame.loc[3, column] = value
    result = validate(frame, hourly_dataset())
    assert reasons_by_row(result) == {3: reason}
    assert result.quarantine[column][0] == (None if value is None else str(value))
    assert len(result.rows) == 5


def test_a_row_with_several_faults_lists_all_of_them() -> None:
    frame = hourly_frame().astype(object)
    frame.loc[2, ["flow", "pressure"]] = ["x", None]
    result = validate(frame, hourly_dataset())
    assert reasons_by_row(result) == {2: "flow: not a number; pressure: missing, but the column is not nullable"}
    assert len(result.quarantine) == 1
    assert sum(result.reasons.values()) == 2


def test_missing_values_of_nullable_columns_stay() -> None:
    frame = hourly_frame().astype(object)
    frame.loc[2, ["flow", "state"]] = None
    rows = validate(frame, hourly_dataset()).rows
    assert np.isnan(rows["flow"][2])
    assert rows["state"][2] is None


def test_exact_copies_keep_the_first_row() -> None:
    frame = pd.concat([hourly_frame(), hourly_frame().iloc[[2, 2]]])
    result = validate(frame, hourly_dataset())
    assert reasons_by_row(result) == {6: "duplicate row", 7: "duplicate row"}
    pd.testing.assert_frame_equal(result.rows, validate(hourly_frame(), hourly_dataset()).rows)


def test_copies_with_the_same_missing_values_are_exact() -> None:
    frame = hourly_frame().astype(object)
    frame.loc[2, ["flow", "state"]] = None
    result = validate(pd.concat([frame, frame.iloc[[2]]]), hourly_dataset())
    assert reasons_by_row(result) == {6: "duplicate row"}


def told(frame: pd.DataFrame) -> Tally:
    tally = Tally()
    tally.add(validate(frame, hourly_dataset()))
    return tally


def test_the_same_row_twice_counts_as_one_and_only_contradictions_stop_a_source() -> None:
    """A file that was exported twice is whole; one whose rows say two things is not."""
    rows = hourly_frame()
    twice = told(pd.concat([rows, rows, rows]))
    twice.refuse_bad_source(hourly_dataset(max_bad_fraction=0.0))
    assert (twice.rows_read, twice.quarantined, twice.copies, twice.bad) == (18, 12, 12, 0)
    assert twice.reasons == {"duplicate row": 12}
    # Copies neither are bad nor make the share of what is bad smaller.
    other = told(pd.concat([rows, rows, rows, rows.iloc[[1]].assign(flow=50.0)]))
    message = r"1 of 7 rows \(14.3%\) are bad.* Reasons: conflicting duplicate \(1\)\. First bad rows:\n  row 18: conf"
    with pytest.raises(DataError, match=message):
        other.refuse_bad_source(hourly_dataset(max_bad_fraction=0.1))


def test_conflicting_duplicates_name_the_row_that_is_kept() -> None:
    other = hourly_frame().iloc[[1, 4]].assign(flow=[50.0, 60.0])
    result = validate(pd.concat([hourly_frame(), other]), hourly_dataset())
    assert reasons_by_row(result) == {6: "conflicting duplicate of row 1", 7: "conflicting duplicate of row 4"}
    assert result.reasons == {"conflicting duplicate": 2}
    assert result.rows["flow"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_bad_first_row_does_not_displace_its_good_copy() -> None:
    frame = pd.concat([hourly_frame(), hourly_frame().iloc[[1]]], ignore_index=True).astype(object)
    frame.loc[1, "flow"] = "broken"
    result = validate(frame, hourly_dataset())
    assert reasons_by_row(result) == {1: "flow: not a number"}
    assert result.rows["flow"].tolist() == [0, 1, 2, 3, 4, 5]


def test_equal_times_of_different_entities_are_no_duplicates() -> None:
    result = validate(fleet_frame([1, 2], [0, 0], [5, 5]), hourly_dataset(**FLEET))
    assert result.rows[ENTITY].tolist() == [1, 2]


def test_rows_out_of_order_are_sorted_and_counted() -> None:
    frame = hourly_frame().iloc[[0, 3, 1, 2, 5, 4]]
    result = validate(frame, hourly_dataset())
    assert result.rows["flow"].tolist() == [0, 1, 2, 3, 4, 5]
    assert result.out_of_order_rows == 3
    assert result.quarantine.empty


def test_interleaved_entities_are_in_order() -> None:
    result = validate(fleet_frame([2, 1, 2, 1], [0, 0, 1, 1], [1, 2, 3, 4]), hourly_dataset(**FLEET))
    assert result.out_of_order_rows == 0
    assert result.rows["flow"].tolist() == [2, 4, 1, 3]


def test_the_grid_is_the_phase_most_rows_have() -> None:
    frame = hourly_frame(start="1969-12-31 20:30:00")
    frame.loc[3, "time"] = "1970-01-01 00:00:00"
    assert reasons_by_row(validate(frame, hourly_dataset())) == {3: "time: off the 1h grid"}


def test_times_of_another_zone_are_converted_and_naive_ones_are_utc() -> None:
    frame = hourly_frame(2)
    frame["time"] = ["2024-01-01T00:00:00", "2024-01-01T03:00:00+02:00"]
    times = validate(frame, hourly_dataset()).rows[TIMESTAMP]
    assert times.tolist() == [pd.Timestamp("2024-01-01T00:00Z"), pd.Timestamp("2024-01-01T01:00Z")]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetime_columns_of_any_unit_are_read(unit: str) -> None:
    frame = hourly_frame(3).assign(time=pd.date_range("2024-01-01", periods=3, freq="1h", unit=unit))
    assert str(validate(frame, hourly_dataset()).rows[TIMESTAMP].dtype) == "datetime64[ns, UTC]"


@pytest.mark.parametrize("year", ["0001", "9999"])
def test_a_year_that_nanoseconds_cannot_hold_is_bad_not_wrapped(year: str) -> None:
    times = np.array(["2024-01-01T00", "2024-01-01T01", f"{year}-01-01T00"], dtype="datetime64[s]")
    result = validate(hourly_frame(3).assign(time=times), hourly_dataset())
    assert reasons_by_row(result) == {2: "time: not an ISO 8601 time of the years 1678 to 2261"}


def test_numbers_are_not_times() -> None:
    with pytest.raises(DataError, match="not an ISO 8601 time of the years 1678 to 2261"):
        judge(hourly_frame(3).assign(time=[1, 2, 3]), hourly_dataset())


def test_dates_are_not_numbers() -> None:
    frame = hourly_frame(3).astype(object)
    frame.loc[1, "flow"] = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    assert reasons_by_row(validate(frame, hourly_dataset())) == {1: "flow: not a number"}


def test_one_stray_text_does_not_turn_all_entity_ids_into_text() -> None:
    result = validate(fleet_frame(["1", "??", "1"], [0, 1, 2], [1, 1, 1]), hourly_dataset(**FLEET))
    assert result.rows[ENTITY].tolist() == [1, 1]
    assert reasons_by_row(result) == {1: "unit: not a whole number, as the other entities are"}


def test_entity_ids_that_are_names_are_text() -> None:
    result = validate(fleet_frame(["b", "a", None], [0, 0, 1], [1, 2, 3]), hourly_dataset(**FLEET))
    assert result.rows[ENTITY].tolist() == ["a", "b"]
    assert reasons_by_row(result) == {2: "unit: missing"}


def test_whole_numbers_in_a_category_have_no_decimal_point() -> None:
    frame = hourly_frame(3).assign(state=[1.0, None, 2.0])
    assert validate(frame, hourly_dataset()).rows["state"].tolist() == ["1", None, "2"]


def test_too_many_bad_rows_are_refused_with_counts_and_examples() -> None:
    frame = hourly_frame().astype(object)
    frame.loc[[1, 4], "flow"] = ["wet", 900]
    with pytest.raises(DataError) as error:
        judge(frame, hourly_dataset(max_bad_fraction=0.3))
    text = str(error.value)
    assert "2 of 6 rows (33.3%)" in text
    assert "max_bad_fraction allows 30.0%" in text
    assert "flow: not a number (1), flow: above the maximum 100 (1)" in text
    assert "row 1: flow: not a number" in text
    assert "'wet'" in text


def test_the_allowed_fraction_itself_is_allowed() -> None:
    frame = hourly_frame(10)
    frame.loc[0, "flow"] = -1
    judge(frame, hourly_dataset(max_bad_fraction=0.1))


def test_all_rows_bad_is_refused_whatever_the_fraction() -> None:
    with pytest.raises(DataError, match="one row at least must be good"):
        judge(hourly_frame().assign(flow=-1.0), hourly_dataset(max_bad_fraction=1))


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        judge(hourly_frame().iloc[:0], hourly_dataset())


def test_a_missing_column_is_named_with_the_columns_found() -> None:
    with pytest.raises(DataError, match=r"lacks the data column 'flow'; columns found: time, pressure, state"):
        validate(hourly_frame().drop(columns="flow"), hourly_dataset())


def test_source_columns_called_row_and_reason_survive_in_quarantine() -> None:
    dataset = hourly_dataset(columns={"row": {"max": 3}, "reason": {"type": "category"}})
    frame = hourly_frame().drop(columns=["flow", "pressure", "state"]).assign(row=[0, 1, 2, 9, 3, 3], reason="why")
    quarantine = validate(frame, dataset).quarantine
    assert list(quarantine.columns) == ["row", "reason", "time", "row_original", "reason_original"]
    assert quarantine["row_original"].tolist() == ["9"]


def test_tabular_rows_get_their_number_and_a_constant_time() -> None:
    dataset = DatasetConfig.model_validate(
        {"name": "plants", "kind": "tabular", "source": {"uri": "p.csv"}, "columns": {"x": {}}, "max_bad_fraction": 0.5}
    )
    result = validate(pd.DataFrame({"x": [7, "?", 7]}), dataset)
    assert result.rows[ENTITY].tolist() == [0, 2]
    assert set(result.rows[TIMESTAMP]) == {pd.Timestamp("2000-01-01T00:00Z")}
    later = validate(pd.DataFrame({"x": [1.0]}), dataset, result.basis, first_row=3)
    assert later.rows[ENTITY].tolist() == [3]


def test_an_increment_is_judged_with_everything_stored_before_it() -> None:
    frame = hourly_frame(10)
    frame.loc[[0, 1], "flow"] = -1
    dataset = hourly_dataset(max_bad_fraction=0.015)
    tally = Tally()
    tally.add(validate(frame, dataset))
    tally.refuse_bad_increment(dataset, stored_rows=124)
    with pytest.raises(DataError, match=r"2 of 133 rows \(1\.5%\) are bad"):
        tally.refuse_bad_increment(dataset, stored_rows=123)


def test_the_first_batch_settles_the_kind_of_ids_and_the_grid_of_all() -> None:
    dataset = hourly_dataset(**FLEET)
    basis = validate(fleet_frame([1, 2], [0, 1], [5, 5]), dataset).basis
    assert (basis.text_ids, basis.phase_ns) == (False, 0)
    later = validate(
        fleet_frame(["b", "c"], [0, 1], [5, 5]).assign(time=["2024-01-01T02:30:00"] * 2), dataset, basis, first_row=2
    )
    assert reasons_by_row(later) == dict.fromkeys(
        (2, 3), "time: off the 1h grid; unit: not a whole number, as the other entities are"
    )


def test_the_newest_of_repeated_rows_can_win() -> None:
    frame = pd.concat([hourly_frame(3), hourly_frame(1).assign(flow=9.0)])
    result = validate(frame, hourly_dataset(), newest_wins=True)
    assert result.rows["flow"].tolist() == [9, 1, 2]
    assert result.numbers.tolist() == [3, 1, 2]
    assert result.quarantine.empty


CELL = st.one_of(
    st.none(),
    st.sampled_from(["text", "inf", "1.5", "", "nan", "2024-01-01T00:00:00", "now"]),
    st.floats(),
    st.integers(-(10**20), 10**20),
    st.booleans(),
    st.datetimes(),
)
TIME = st.one_of(st.integers(0, 6).map(lambda hour: f"2024-01-01T{hour:02d}:00:00"), CELL)
UNIT = st.one_of(st.integers(1, 3), CELL)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(UNIT, TIME, CELL, CELL), min_size=1, max_size=12))
def test_no_row_is_ever_lost(cells: list[tuple[Any, ...]]) -> None:
    dataset = hourly_dataset(
        max_bad_fraction=1, entity_column="unit", columns={"flow": {"min": 0}, "state": {"type": "category"}}
    )
    frame = pd.DataFrame(cells, columns=["unit", "time", "flow", "state"], dtype=object)
    result = validate(frame, dataset)
    assert len(result.rows) + len(result.quarantine) == len(frame)
    assert result.quarantine["row"].is_unique
    assert (result.quarantine["reason"].str.len() > 0).all()
    assert not result.rows.duplicated([ENTITY, TIMESTAMP]).any()
    pd.testing.assert_frame_equal(result.rows, result.rows.sort_values([ENTITY, TIMESTAMP], ignore_index=True))
    assert np.isfinite(result.rows["flow"].dropna()).all()
