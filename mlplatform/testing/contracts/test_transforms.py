"""The contract every transform keeps: bounded looks back, state as JSON, and the same bits wherever it is applied."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Column, Transform, TransformParams
from mlplatform.testing.transform_samples import (
    CASES,
    FLOATS,
    INVERTIBLE,
    check_inverse,
    check_past,
    check_window,
    column_for,
    floats,
    make,
    same_bits,
    whole,
)

REGISTRY = TRANSFORMS
SEEDS = range(20)


@pytest.mark.parametrize("name", TRANSFORMS.names())
def test_a_transform_declares_strict_parameters(name: str) -> None:
    plugin = TRANSFORMS.get(name)
    assert isinstance(plugin, type)
    assert issubclass(plugin, Transform)
    assert plugin.accepts in ("float", "category")
    assert issubclass(plugin.Params, TransformParams)
    assert plugin.examples(), "the contract tests need parameters to try the transform with"
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
def test_inverting_gives_the_values_back(name: str, params: dict[str, Any]) -> None:
    for seed in SEEDS:
        drawn = column_for(make(name, params), seed=seed)
        check_inverse(make(name, params), np.array([*drawn, 0.0, 1e6], dtype=np.float32))


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
    assert np.isnan(result).sum() == (0 if transform.fills_missing else np.isnan(column).sum())


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
def test_a_column_with_nothing_in_it_is_filled_or_refused_by_name(name: str, params: dict[str, Any]) -> None:
    transform = make(name, params)
    empty: Column = np.full(5, np.nan, dtype=np.float32)
    if transform.accepts == "category":
        empty = np.full(5, None, dtype=object)
    for column in (empty, empty[:0]):
        try:
            transform.fit(column, "pressure")
        except ValueError as error:
            refused = str(error)
        else:
            assert transform.fills_missing
            assert np.isfinite(transform.apply(column, whole(column))).all()
            continue
        assert re.search(r"column 'pressure' has no observed \w+ in the training rows", refused)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_a_window_with_its_context_gives_the_bits_of_the_whole_series(name: str, params: dict[str, Any]) -> None:
    for seed in SEEDS:
        transform = make(name, params)
        series = column_for(transform, seed=seed)
        transform.fit(series, "x")
        end = int(np.random.default_rng(seed).integers(1, len(series) + 1))
        for length in range(1, end + 1):
            check_window(transform, series, end, length)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_only_the_past_of_the_same_entity_matters(name: str, params: dict[str, Any]) -> None:
    for seed in SEEDS:
        transform = make(name, params)
        column = column_for(transform, rows=24, seed=seed)
        transform.fit(column, "x")
        border = int(np.random.default_rng(seed).integers(1, 24))
        for row in range(24):
            check_past(transform, column, border, row)
