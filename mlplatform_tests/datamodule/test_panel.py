"""Panels: rows of several entities, stacked, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.datamodule.panel import Panel, column_array, to_utc_ns

START = pd.Timestamp("2024-01-01", tz="UTC")


def frame(lengths: dict[object, int]) -> pd.DataFrame:
    """Rows of entities with the given numbers of hourly rows; `value` counts all rows."""
    pieces = [
        pd.DataFrame({"entity_id": [entity] * rows, "event_timestamp": pd.date_range(START, periods=rows, freq="1h")})
        for entity, rows in lengths.items()
    ]
    stacked = pd.concat(pieces, ignore_index=True)
    count = len(stacked)
    names = np.array(["a", None, "b"], dtype=object)[np.arange(count) % 3]
    return stacked.assign(value=np.arange(count, dtype=np.float32), name=names)


def test_entities_are_stacked_with_their_offsets() -> None:
    panel = Panel.from_frame(frame({"x": 2, "w": 3}), ["value", "name"])
    assert panel.entity_ids.tolist() == ["x", "w"]
    assert panel.offsets.tolist() == [0, 2, 5]
    assert panel.row_entities.tolist() == ["x", "x", "w", "w", "w"]
    assert panel.columns["value"].dtype == np.float32
    assert panel.columns["name"].tolist() == ["a", None, "b", "a", None]
    assert panel.timestamps.dtype == np.dtype("datetime64[ns]")
    assert panel.timestamps[2] == np.datetime64("2024-01-01T00", "ns")


def test_an_empty_frame_is_an_empty_panel() -> None:
    panel = Panel.from_frame(frame({1: 2}).iloc[:0], ["value"])
    assert (panel.rows, len(panel.entity_ids), panel.offsets.tolist()) == (0, 0, [0])
    assert panel.take(np.zeros(0, dtype=bool)).rows == 0


def test_rows_of_an_entity_must_be_adjacent() -> None:
    mixed = frame({1: 2, 2: 2}).iloc[[0, 2, 1, 3]]
    with pytest.raises(ValueError, match="rows of an entity are not adjacent; sort by entity_id and event_timestamp"):
        Panel.from_frame(mixed, ["value"])


@pytest.mark.parametrize("order", [[0, 2, 1], [0, 1, 1]], ids=["out of order", "twice the same time"])
def test_times_must_increase_within_an_entity(order: list[int]) -> None:
    with pytest.raises(ValueError, match="not in strictly increasing time order"):
        Panel.from_frame(frame({1: 3}).iloc[order], ["value"])


def test_time_may_jump_back_between_entities() -> None:
    assert Panel.from_frame(frame({2: 3, 1: 3}), ["value"]).rows == 6


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_take_keeps_the_chosen_rows_and_drops_empty_entities(lengths: list[int], data: st.DataObject) -> None:
    source = frame(dict(enumerate(lengths)))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(source), max_size=len(source))))
    taken = Panel.from_frame(source, ["value", "name"]).take(mask)
    expected = Panel.from_frame(source[mask], ["value", "name"])
    assert taken.entity_ids.tolist() == expected.entity_ids.tolist()
    assert taken.offsets.tolist() == expected.offsets.tolist()
    assert taken.timestamps.tolist() == expected.timestamps.tolist()
    for name in ("value", "name"):
        assert taken.columns[name].tolist() == expected.columns[name].tolist()


def test_a_matrix_has_the_columns_in_the_order_asked_for() -> None:
    panel = Panel.from_frame(frame({1: 3}).assign(other=7), ["value", "other"])
    matrix = panel.matrix(["other", "value"])
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert matrix.tolist() == [[7, 0], [7, 1], [7, 2]]


def test_other_columns_leave_the_rows_as_they_are() -> None:
    panel = Panel.from_frame(frame({1: 3}), ["value"])
    changed = panel.with_columns({"new": np.zeros(3, dtype=np.float32)})
    assert list(changed.columns) == ["new"]
    assert list(panel.columns) == ["value"]
    assert changed.offsets is panel.offsets


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.Series([1, None], dtype="Int64"), [1.0, np.nan]),
        (pd.Series([True, False]), [1.0, 0.0]),
        (pd.Series([1.5, np.nan], dtype="float64"), [1.5, np.nan]),
    ],
)
def test_numbers_of_any_kind_become_float32(values: pd.Series, expected: list[float]) -> None:
    array = column_array(values)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array(expected, dtype=np.float32))


@pytest.mark.parametrize("dtype", ["object", "string", "category"])
def test_text_of_any_kind_becomes_objects_with_none(dtype: str) -> None:
    array = column_array(pd.Series(["a", None], dtype=dtype))
    assert array.dtype == object
    assert array.tolist() == ["a", None]


def test_times_are_read_as_utc_whatever_their_zone_and_unit() -> None:
    paris = pd.Series(pd.to_datetime(["2024-06-01 02:00"]).tz_localize("Europe/Paris"))
    naive = pd.Series(pd.to_datetime(["2024-06-01 00:00"])).astype("datetime64[s]")
    assert to_utc_ns(paris)[0] == to_utc_ns(naive)[0] == np.datetime64("2024-06-01T00", "ns")
