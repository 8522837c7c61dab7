"""Scaling of numeric columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from mlplatform.datamodule import Int64
from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Column, Transform, TransformParams, finite


class ScaleParams(TransformParams):
    """`standard`: mean 0, deviation 1. `robust`: median 0, interquartile range 1. `minmax`: range 0 to 1."""

    method: Literal["standard", "robust", "minmax"] = "standard"


@TRANSFORMS.register("scale")
class Scale(Transform):
    """Subtract a centre and divide by a width, both fitted on training rows. A constant column is only centred."""

    Params = ScaleParams
    params: ScaleParams
    is_invertible = True

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Every kind of parameter once."""
        return [{"method": "standard"}, {"method": "robust"}, {"method": "minmax"}]

    @override
    def without_level(self) -> None:
        """Windows that are scaled one by one need no other scale."""

    def fit(self, column: Column, name: str) -> Scale:
        """Learn centre and width."""
        values = finite(column, name, f"{self.params.method} scaling")
        if self.params.method == "standard":
            centre, width = np.mean(values), np.std(values)
        elif self.params.method == "robust":
            low, centre, high = np.percentile(values, [25, 50, 75])
            width = high - low
        else:
            centre, width = np.min(values), np.ptp(values)
        self.centre_ = float(centre)
        # A width that single precision cannot tell from zero beside the values would blow them up beyond its range.
        single = np.finfo(np.float32)
        smallest = max(float(single.tiny), float(single.eps) * float(np.abs(values).max()))
        self.width_ = float(width) if width > smallest else 1.0
        return self

    @override
    def apply(self, column: Column, offsets: Int64) -> Column:
        """Return (column - centre) / width in single precision."""
        values = column.astype(np.float32, copy=False)
        return np.asarray((values - np.float32(self.centre_)) / np.float32(self.width_))

    def invert(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return values * width + centre."""
        return np.asarray(values * np.float32(self.width_) + np.float32(self.centre_), dtype=np.float32)

    def state(self) -> dict[str, Any]:
        """Return centre and width."""
        return {"centre": self.centre_, "width": self.width_}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set centre and width."""
        self.centre_, self.width_ = float(state["centre"]), float(state["width"])
