"""The contract every transform keeps, over the registry, and what each one promises beyond it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlplatform.datamodule.panel import Float32
from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Column, Transform, TransformParams

# A new transform adds the parameters it is tried with here.
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "clip": [{"lower": 0.1, "upper": 0.9}],
    "impute": [{}, {"strategy": "mean", "limit": 3}, {"strategy": "constant", "fill_value": -1.0, "limit": 1}],
    "label_encoding": [{}],
    "log": [{}, {"shift": 0.5}],
    "scale": [{"method": "standard"}, {"method": "robust"}, {"method": "minmax"}],
}
CASES = [(name, params) for name in sorted(EXAMPLES) for params in EXAMPLES[name]]
INVERTIBLE = [(name, params) for name, params in CASES if name in ("log", "scale")]
FLOATS = [(name, params) for name, params in CASES if name != "label_encoding"]
ONE = np.array([0, 6], dtype=np.int64)

numbers = st.floats(0, 1e6, width=32)
columns = st.lists(st.one_of(numbers, st.just(float("nan"))), min_size=1, max_size=30)


def make(name: str, params: dict[str, Any]) -> Transform:
    transform: Transform = TRANSFORMS.get(name)(**params)
    return transform


def column_for(transform: Transform, rows: int = 30, seed: int = 0) -> Column:
    """Return a training column with some values missing, of the type the transform accepts."""
    noise = np.random.default_rng(seed)
    missing = noise.random(rows) < 0.3
    missing[0] = False
    if transform.accepts == "category":
        column = noise.choice(np.array(["b", "a", "c"], dtype=object), rows)
        column[missing] = None
        return column
    return np.where(missing, np.nan, noise.uniform(0, 100, rows)).astype(np.float32)


def same_bits(first: Column, second: Column) -> bool:
    return first.dtype == second.dtype and first.tobytes() == second.tobytes()


def whole(column: Column) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([0, len(column)], dtype=np.int64)


def floats(column: Column) -> Float32:
    return np.asarray(column, dtype=np.float32)


def test_every_transform_is_tried() -> None:
    assert set(EXAMPLES) == set(TRANSFORMS.names()), "add parameters for every registered transform to EXAMPLES"


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_a_transform_declares_strict_parameters(name: str) -> None:
    plugin = TRANSFORMS.get(name)
    assert issubclass(plugin, Transform)
    assert plugin.accepts in ("float", "category")
    assert issubclass(plugin.Params, TransformParams)
    with pytest.raises(ValidationError, match="nonsense"):
        plugin(nonsense=1)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_applying_gives_float32_and_leaves_the_input_alone(name: str, params: dict[str, Any]) -> None:
    transform = make(name, params)
    column = column_for(transform)
    before = column.copy()
    result = transform.fit(column, "x").apply(column, whole(column))
    assert result.dtype == np.float32
    assert result.shape == column.shape
    np.testing.assert_array_equal(column, before)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_state_is_json_and_restores_every_bit(name: str, params: dict[str, Any]) -> None:
    transform = make(name, params)
    column, other = column_for(transform), column_for(transform, seed=1)
    transform.fit(column, "x")
    restored = make(name, json.loads(json.dumps(transform.params.model_dump())))
    restored.restore(json.loads(json.dumps(transform.state())))
    assert restored.state() == transform.state()
    assert same_bits(restored.apply(other, whole(other)), transform.apply(other, whole(other)))


@pytest.mark.parametrize(("name", "params"), INVERTIBLE)
@given(values=columns)
def test_inverting_gives_the_values_back(name: str, params: dict[str, Any], values: list[float]) -> None:
    column = np.array([*values, 0.0, 1e6], dtype=np.float32)
    transform = make(name, params).fit(column, "x")
    back = transform.invert(floats(transform.apply(column, whole(column))))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, column, rtol=2e-5, atol=0.5)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(column))


@pytest.mark.parametrize(("name", "params"), CASES)
def test_inverting_keeps_any_shape(name: str, params: dict[str, Any]) -> None:
    transform = make(name, params)
    transform.fit(column_for(transform), "x")
    assert transform.invert(np.ones((2, 3), dtype=np.float32)).shape == (2, 3)


@pytest.mark.parametrize(("name", "params"), FLOATS)
def test_what_is_missing_is_imputed_or_stays_missing(name: str, params: dict[str, Any]) -> None:
    transform = make(name, params)
    column = column_for(transform)
    result = transform.fit(column, "x").apply(column, whole(column))
    assert np.isfinite(result[np.isfinite(column)]).all()
    assert np.isnan(result).sum() == (0 if name == "impute" else np.isnan(column).sum())


@pytest.mark.parametrize(("name", "params"), FLOATS)
def test_a_constant_column_stays_finite_also_where_it_moves_later(name: str, params: dict[str, Any]) -> None:
    column = np.full(1001, 0.1, dtype=np.float32)
    transform = make(name, params).fit(column, "x")
    later = np.array([0.1, 0.3], dtype=np.float32)
    for values in (column, later):
        result = transform.apply(values, whole(values))
        assert np.isfinite(result).all()
        assert np.abs(result).max() < 10
    assert transform.invert(floats(transform.apply(column, whole(column))))[0] == pytest.approx(0.1)


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
    length = data.draw(st.integers(1, end))
    start = max(0, end - length - transform.context)
    expected = transform.apply(series, whole(series))[end - length : end]
    window = series[start:end]
    assert same_bits(transform.apply(window, whole(window))[-length:], expected)


@pytest.mark.parametrize(("name", "params"), CASES)
@given(data=st.data())
def test_only_the_past_of_the_same_entity_matters(name: str, params: dict[str, Any], data: st.DataObject) -> None:
    transform = make(name, params)
    column = column_for(transform, rows=24, seed=data.draw(st.integers(0, 5)))
    transform.fit(column, "x")
    border = data.draw(st.integers(1, 23))
    row = data.draw(st.integers(0, 23))
    offsets = np.array([0, border, 24], dtype=np.int64)
    own = slice(0, row + 1) if row < border else slice(border, row + 1)
    alone = transform.apply(column[own], whole(column[own]))
    assert same_bits(alone[-1:], transform.apply(column, offsets)[row : row + 1])


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
