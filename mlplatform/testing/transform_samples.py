"""What transforms are tried with and on: their example parameters, small columns, and the checks of single columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlplatform.datamodule.panel import Float32, Int64
from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Column, Transform

CASES = [(name, params) for name, plugin in TRANSFORMS for params in plugin.examples()]
INVERTIBLE = [(name, params) for name, params in CASES if TRANSFORMS.get(name)(**params).is_invertible]
FLOATS = [(name, params) for name, params in CASES if TRANSFORMS.get(name).accepts == "float"]


def make(name: str, params: dict[str, Any]) -> Transform:
    """Return the unfitted transform."""
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
    """Return whether two columns agree in type and in every bit."""
    return first.dtype == second.dtype and first.tobytes() == second.tobytes()


def whole(column: Column) -> Int64:
    """Return the offsets of a column of one entity."""
    return np.array([0, len(column)], dtype=np.int64)


def floats(column: Column) -> Float32:
    """Return a transformed column as the numbers that it holds."""
    return np.asarray(column, dtype=np.float32)


def check_inverse(transform: Transform, column: Column) -> None:
    """Check that the values of a column come back."""
    transform.fit(column, "x")
    back = transform.invert(floats(transform.apply(column, whole(column))))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, floats(column), rtol=2e-5, atol=0.5)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(floats(column)))


def check_window(transform: Transform, series: Column, end: int, length: int) -> None:
    """Check that a window with its context gives the bits that the fitted transform gives on the whole series."""
    start = max(0, end - length - transform.context)
    expected = transform.apply(series, whole(series))[end - length : end]
    window = series[start:end]
    assert same_bits(transform.apply(window, whole(window))[-length:], expected)


def check_past(transform: Transform, column: Column, border: int, row: int) -> None:
    """Check that a row of two entities depends on earlier rows of its own entity only."""
    offsets = np.array([0, border, len(column)], dtype=np.int64)
    own = slice(0, row + 1) if row < border else slice(border, row + 1)
    alone = transform.apply(column[own], whole(column[own]))
    assert same_bits(alone[-1:], transform.apply(column, offsets)[row : row + 1])
