"""Telling the past of stored windows from what they say about the future."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlplatform.datamodule import Panel
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.retrieval.known_future import Known, split_future

HOUR = np.timedelta64(1, "h")
NAN = float("nan")
PLAN = Known(("plan",), ("load",), 1)


def windows(load: list[list[float]], plan: list[list[Any]], dtype: Any = np.float32) -> Panel:
    count, length = len(load), len(load[0])
    times = np.datetime64("2024-01-01", "ns") + np.tile(np.arange(length), count) * HOUR
    return Panel(
        columns={"load": np.array(load, np.float32).reshape(-1), "plan": np.array(plan, dtype).reshape(-1)},
        timestamps=times,
        entity_ids=np.array(["a", "b"][:count], dtype=object),
        offsets=np.arange(count + 1, dtype=np.int64) * length,
    )


def test_every_entity_ends_with_its_own_last_observed_row() -> None:
    panel = windows(
        [[1, 2, 3, NAN, NAN], [1, 2, NAN, 4, 5]],
        [[10, 11, 12, 13, 14], [20, 21, 22, 23, 24]],
    )
    past, ahead = split_future(panel, 2, Known(("plan",), ("load",), 3))
    assert past.columns["load"].tolist() == [2, 3, 4, 5]
    assert past.columns["plan"].tolist() == [11, 12, 23, 24]
    assert ((past.timestamps - np.datetime64("2024-01-01", "ns")) // HOUR).tolist() == [1, 2, 3, 4]
    assert past.offsets.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(ahead["plan"], np.array([[13, 14, NAN], [NAN] * 3], np.float32))
    assert ahead["plan"].dtype == np.float32


def test_a_gap_between_measurements_is_of_the_past() -> None:
    past, ahead = split_future(windows([[1, NAN, NAN, 4, NAN]], [[0, 1, 2, 3, 4]]), 4, Known(("plan",), ("load",), 1))
    np.testing.assert_array_equal(past.columns["load"], np.array([1, NAN, NAN, 4], np.float32))
    assert ahead["plan"].tolist() == [[4]]


def test_categories_that_are_not_known_are_missing() -> None:
    _, ahead = split_future(windows([[1, 2, NAN]], [["x", "y", "z"]], object), 2, Known(("plan",), ("load",), 2))
    assert ahead["plan"].tolist() == [["z", None]]


def test_the_past_ends_with_the_target_whatever_else_was_measured_later() -> None:
    """As where history is split, so that a site or a weather column in rows to come does not count as measured."""
    panel = windows([[1, 2, NAN]], [[7, 8, 9]])
    past, ahead = split_future(panel.with_columns({**panel.columns, "site": np.ones(3, np.float32)}), 2, PLAN)
    assert past.columns["load"].tolist() == [1, 2]
    assert ahead["plan"].tolist() == [[9]]


def test_a_window_in_which_nothing_was_measured_is_left_as_it_is() -> None:
    past, ahead = split_future(windows([[NAN, NAN]], [[1, 2]]), 2, Known(("plan",), ("load",), 1))
    assert past.columns["plan"].tolist() == [1, 2]
    assert np.isnan(ahead["plan"]).all()


def test_a_window_that_is_too_short_for_both_says_what_to_set() -> None:
    with pytest.raises(FeatureStoreError, match=r"'a' has 1 rows before what is known .* 2 are needed; make"):
        split_future(windows([[1, NAN, NAN]], [[1, 2, 3]]), 2, Known(("plan",), ("load",), 1))
