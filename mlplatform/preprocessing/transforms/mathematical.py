"""Logarithm and clipping of numeric columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from typing_extensions import override

from mlplatform.datamodule import Int64
from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Column, Transform, TransformParams, finite


class LogParams(TransformParams):
    """`shift` is added before the logarithm."""

    shift: float = Field(default=1.0, gt=0)


@TRANSFORMS.register("log")
class Log(Transform):
    """log(x + shift); values at or below -shift become missing, because they have no logarithm."""

    Params = LogParams
    params: LogParams
    is_invertible = True

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Every kind of parameter once."""
        return [{}, {"shift": 0.5}]

    @property
    @override
    def floor(self) -> float:
        """Where the logarithm ends."""
        return -self.params.shift

    def fit(self, column: Column, name: str) -> Log:
        """Check that the training rows have logarithms."""
        smallest = finite(column, name, "the logarithm").min()
        if smallest <= -self.params.shift:
            raise ValueError(
                f"column {name!r} goes down to {smallest:g}, which has no logarithm with shift {self.params.shift:g}; "
                f"use a shift above {-smallest:g} or another transform"
            )
        return self

    @override
    def apply(self, column: Column, offsets: Int64) -> Column:
        """Return log(column + shift)."""
        shifted = column.astype(np.float32, copy=False) + np.float32(self.params.shift)
        return np.asarray(np.log(np.where(shifted > 0, shifted, np.float32(np.nan))), dtype=np.float32)

    def invert(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return exp(values) - shift."""
        return np.asarray(np.exp(values) - np.float32(self.params.shift), dtype=np.float32)

    def state(self) -> dict[str, Any]:
        """A logarithm learns nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """A logarithm learns nothing."""


class ClipParams(TransformParams):
    """Quantiles of the training rows beyond which values are clipped."""

    lower: float = Field(default=0.001, ge=0, lt=1)
    upper: float = Field(default=0.999, gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> ClipParams:
        if self.lower >= self.upper:
            raise ValueError(f"lower must be below upper, but lower={self.lower} and upper={self.upper}")
        return self


@TRANSFORMS.register("clip")
class Clip(Transform):
    """Clip to quantiles of the training rows, which tames outliers. Units stay, so there is nothing to invert."""

    Params = ClipParams
    params: ClipParams

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Every kind of parameter once."""
        return [{"lower": 0.1, "upper": 0.9}]

    @override
    def without_level(self) -> None:
        """Quantiles of all series together would cut the tops of the large ones."""

    def fit(self, column: Column, name: str) -> Clip:
        """Learn the limits."""
        low, high = np.quantile(finite(column, name, "clipping"), [self.params.lower, self.params.upper])
        self.low_, self.high_ = float(low), float(high)
        return self

    @override
    def apply(self, column: Column, offsets: Int64) -> Column:
        """Return the clipped column; missing values stay missing."""
        values = column.astype(np.float32, copy=False)
        return np.clip(values, np.float32(self.low_), np.float32(self.high_))

    def state(self) -> dict[str, Any]:
        """Return the limits."""
        return {"low": self.low_, "high": self.high_}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the limits."""
        self.low_, self.high_ = float(state["low"]), float(state["high"])
