"""Filling missing values of numeric columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from mlplatform.datamodule import Int64
from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Column, Transform, TransformParams, finite


class ImputeParams(TransformParams):
    """`limit` is the number of steps a last known value is carried forward before the constant takes over.

    With the strategy `none` there is no constant: what is further from a known value stays missing.
    """

    strategy: Literal["mean", "median", "constant", "none"] = "median"
    fill_value: float = 0.0
    limit: int = Field(default=0, ge=0)


@TRANSFORMS.register("impute")
class Impute(Transform):
    """Carry the entity's last known value forward for up to `limit` steps, then use a constant fitted on training rows.

    The fill looks at earlier rows only, so it cannot leak the future, and at no more than `limit` of them.
    """

    Params = ImputeParams
    params: ImputeParams

    @property
    def fills_missing(self) -> bool:  # type: ignore[override]
        """All but the strategy `none` do."""
        return self.params.strategy != "none"

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Every kind of parameter once."""
        return [{}, {"strategy": "mean", "limit": 3}, {"strategy": "constant", "fill_value": -1.0, "limit": 1}]

    @property
    def context(self) -> int:
        """A fill may come from up to `limit` rows before the window."""
        return self.params.limit

    @override
    def without_level(self) -> Impute:
        """A constant of all series together is no value of any of them."""
        return Impute(strategy="none", limit=self.params.limit)

    def fit(self, column: Column, name: str) -> Impute:
        """Learn the constant."""
        if self.params.strategy == "none":
            finite(column, name, "carrying values forward")
            self.fill_ = float("nan")
        elif self.params.strategy == "constant":
            self.fill_ = self.params.fill_value
        else:
            values = finite(column, name, f"the {self.params.strategy} for imputation")
            self.fill_ = float(np.mean(values) if self.params.strategy == "mean" else np.median(values))
        return self

    def apply(self, column: Column, offsets: Int64) -> Column:
        """Fill what is missing."""
        values = column.astype(np.float32, copy=True)
        missing = ~np.isfinite(values)
        if not missing.any():
            return values
        if self.params.limit:
            source = _last_observed(missing, offsets)
            rows = np.flatnonzero(missing)
            reachable = rows[(source[rows] >= 0) & (rows - source[rows] <= self.params.limit)]
            values[reachable] = values[source[reachable]]
            missing[reachable] = False
        values[missing] = np.float32(self.fill_)
        return values

    def state(self) -> dict[str, Any]:
        """Return the constant."""
        return {} if self.params.strategy == "none" else {"fill": self.fill_}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the constant."""
        self.fill_ = float(state.get("fill", "nan"))


def _last_observed(missing: np.ndarray[Any, np.dtype[np.bool_]], offsets: Int64) -> Int64:
    """Return for every row the nearest observed row at or before it in the same entity, or -1."""
    rows = np.arange(len(missing), dtype=np.int64)
    last = np.maximum.accumulate(np.where(missing, -1, rows))
    start = np.repeat(offsets[:-1], np.diff(offsets))
    return np.where(last >= start, last, -1)
