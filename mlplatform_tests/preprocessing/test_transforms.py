"""The contract of transforms on columns that hypothesis draws, and what each transform promises beyond it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Column
from mlplatform.testing.transform_samples import (
    CASES,
    INVERTIBLE,
    check_inverse,
    check_past,
    check_window,
    column_for,
    floats,
    make,
    whole,
)

ONE = np.array([0, 6], dtype=np.int64)

numbers = st.floats(0, 1e6, width=32)
columns = st.lists(st.one_of(numbers, st.just(float("nan"))), min_size=1, max_size=30)


@pytest.mark.parametrize(("name", "params"), INVERTIBLE)
@given(values=columns)
def test_inverting_gives_the_values_back(name: str, params: dict[str, Any], values: list[float]) -> None:
    check_inverse(make(name, params), np.array([*values, 0.0, 1e6], dtype=np.float32))


@pytest.mark.parametrize(("name", "params"), CASES)
def test_a_column_with_nothing_in_it_is_refused_by_name(name: str, params: dict[str, Any]) -> None:
    transform = make(name, params)
    empty: Column = np.full(5, np.nan, dtype=np.float32)
    if transform.accepts == "category":
        empty = np.full(5, None, dtype=object)
    if params.get("strategy") == "constant":
        assert transform.fit(empty, "pressure").apply(empty, whole(empty)).tolist() == [-1.0] * 5
        return
    for column in (empty, empty[:0]):
        with pytest.raises(ValueError, match=r"column 'pressure' has no observed \w+ in the training rows"):
            transform.fit(column, "pressure")


@pytest.mark.parametrize(("name", "params"), CASES)
@given(data=st.data())
def test_a_window_with_its_context_gives_the_bits_of_the_whole_series(
    name: str, params: dict[str, Any], data: st.DataObject
) -> None:
    transform = make(name, params)
    if transform.accepts == "category":
        drawn = data.draw(st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=30))
        series: Column = np.array([*drawn, "a"], dtype=object)
    else:
        series = np.array([*data.draw(columns), 1.0], dtype=np.float32)
    transform.fit(series, "x")
    end = data.draw(st.integers(1, len(series)))
    check_window(transform, series, end, data.draw(st.integers(1, end)))


@pytest.mark.parametrize(("name", "params"), CASES)
@given(data=st.data())
def test_only_the_past_of_the_same_entity_matters(name: str, params: dict[str, Any], data: st.DataObject) -> None:
    transform = make(name, params)
    column = column_for(transform, rows=24, seed=data.draw(st.integers(0, 5)))
    transform.fit(column, "x")
    check_past(transform, column, border=data.draw(st.integers(1, 23)), row=data.draw(st.integers(0, 23)))


def test_a_gap_is_bridged_for_as_long_as_allowed() -> None:
    column = np.array([1, np.nan, np.nan, np.nan, 5, np.nan], dtype=np.float32)
    transform = make("impute", {"strategy": "median", "limit": 2}).fit(column, "x")
    assert transform.context == 2
    assert transform.apply(column, ONE).tolist() == [1, 1, 1, 3, 5, 5]
    assert transform.apply(column, np.array([0, 2, 6])).tolist() == [1, 1, 3, 3, 5, 5]


@pytest.mark.parametrize(("strategy", "fill"), [("mean", 4.0), ("median", 3.0), ("constant", 9.0)])
def test_the_fill_is_learnt_from_what_was_observed(strategy: str, fill: float) -> None:
    column = np.array([1, 3, 8, np.nan, np.inf], dtype=np.float32)
    transform = make("impute", {"strategy": strategy, "fill_value": 9.0}).fit(column, "x")
    assert transform.apply(column, whole(column)).tolist() == [1, 3, 8, fill, fill]


def test_scaling_by_each_method() -> None:
    column = np.array([0, 1, 2, 3, 4], dtype=np.float32)
    standard, robust, minmax = (
        floats(make("scale", {"method": method}).fit(column, "x").apply(column, whole(column)))
        for method in ("standard", "robust", "minmax")
    )
    np.testing.assert_allclose(standard, (column - 2) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(robust, (column - 2) / 2)
    np.testing.assert_allclose(minmax, column / 4)


def test_a_width_lost_beside_the_values_does_not_blow_them_up() -> None:
    column = np.array([0, 0, 0, 1e-33, 1e6], dtype=np.float32)
    transform = make("scale", {"method": "robust"}).fit(column, "x")
    np.testing.assert_array_equal(transform.invert(floats(transform.apply(column, whole(column)))), column)


def test_clipping_at_training_quantiles() -> None:
    column = np.arange(101, dtype=np.float32)
    transform = make("clip", {"lower": 0.1, "upper": 0.9}).fit(column, "x")
    beyond = np.array([-1000, 50, 1000, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(transform.apply(beyond, whole(beyond)), [10, 50, 90, np.nan])


def test_logarithms_of_values_that_have_none() -> None:
    with pytest.raises(ValueError, match=r"column 'x' goes down to -2, .*shift 1; use a shift above 2 or another"):
        make("log", {}).fit(np.array([-2, 5], dtype=np.float32), "x")
    transform = make("log", {}).fit(np.array([0, 5], dtype=np.float32), "x")
    later = np.array([0, -1, -3], dtype=np.float32)
    np.testing.assert_array_equal(transform.apply(later, whole(later)), [0, np.nan, np.nan])


def test_categories_are_coded_in_sorted_order_and_strangers_are_minus_one() -> None:
    transform = make("label_encoding", {}).fit(np.array(["fan", "air", None, "fan"], dtype=object), "cooling")
    later = np.array(["air", "fan", "water", None], dtype=object)
    assert transform.apply(later, whole(later)).tolist() == [0, 1, -1, -1]
    assert transform.state() == {"classes": ["air", "fan"]}


def test_without_a_level_values_are_carried_and_nothing_else_is_filled() -> None:
    transform = make("impute", {"strategy": "median", "limit": 2})
    column = np.array([np.nan, 5, np.nan, np.nan, np.nan, 7], dtype=np.float32)
    carried = transform.without_level()
    assert carried is not None
    restored = make("impute", json.loads(json.dumps(carried.params.model_dump())))
    restored.restore(json.loads(json.dumps(carried.fit(column, "x").state())))
    np.testing.assert_array_equal(restored.apply(column, whole(column)), [np.nan, 5, 5, 5, np.nan, 7])
    assert (restored.context, restored.fills_missing) == (2, False)
    for name in ("scale", "clip"):
        assert make(name, {}).without_level() is None


def test_the_power_of_a_lognormal_column_is_near_the_logarithm_and_of_a_normal_one_near_one() -> None:
    noise = np.random.default_rng(0).normal(size=4000)
    powers = {
        name: make("box_cox", {"shift": 1e-3}).fit(values.astype(np.float32), "x").state()["power"]
        for name, values in (("lognormal", np.exp(noise)), ("normal", 50 + 10 * noise), ("constant", np.full(9, 3.0)))
    }
    assert powers["lognormal"] <= 0.05
    assert powers["normal"] >= 0.7
    assert powers["constant"] == 1.0


def test_a_column_without_a_power_is_refused_by_name_with_a_shift_that_would_do() -> None:
    with pytest.raises(ValueError, match=r"column 'flow' goes down to -3, .* use a shift above 3 or another transform"):
        make("box_cox", {}).fit(np.array([-3, 5], dtype=np.float32), "flow")


def test_what_lies_below_the_range_of_the_transform_is_its_least_value() -> None:
    transform = make("box_cox", {"power": 0.5, "shift": 2.0}).fit(np.array([0, 5], dtype=np.float32), "x")
    np.testing.assert_allclose(transform.invert(np.array([-50, -2, 0], dtype=np.float32)), [-2, -2, -1])


@pytest.mark.parametrize("name", ["log", "box_cox"])
def test_numbers_become_missing_at_the_floor_and_not_above_it(name: str) -> None:
    transform = TRANSFORMS.get(name)(shift=0.5).fit(np.array([1.0, 2.0, 4.0]), "load")
    assert transform.floor == -0.5
    above = np.nextafter(np.float32(-0.5), np.float32(0))
    column = np.array([-0.5, -2.0, above], dtype=np.float32)
    assert np.isnan(transform.apply(column, np.array([0, 3]))).tolist() == [True, True, False]
    assert TRANSFORMS.get("scale")().floor == -np.inf
