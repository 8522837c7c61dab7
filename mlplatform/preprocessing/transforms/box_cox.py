"""The Box-Cox power transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from typing_extensions import override

from mlplatform.datamodule import Int64
from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Column, Transform, TransformParams, finite

# Powers that are tried: from the logarithm to no change but a shift.
POWERS = np.linspace(0.0, 1.0, 21)


class BoxCoxParams(TransformParams):
    """`shift` is added first; `power` is between 0 (the logarithm) and 1, `null` chooses it on the training rows."""

    shift: float = Field(default=1.0, gt=0)
    power: float | None = Field(default=None, ge=0, le=1)


@TRANSFORMS.register("box_cox")
class BoxCox(Transform):
    """((x + shift)^power - 1) / power (Box and Cox, An analysis of transformations, JRSS B, 1964).

    The power is the one of greatest likelihood among twenty-one, over the training rows. Values at or below -shift
    become missing; what is inverted from below the range of the transform is -shift.
    """

    Params = BoxCoxParams
    params: BoxCoxParams
    is_invertible = True

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Every kind of parameter once."""
        return [{}, {"power": 0.5}, {"power": 0.0, "shift": 0.5}]

    @property
    @override
    def floor(self) -> float:
        """Where the power ends."""
        return -self.params.shift

    def fit(self, column: Column, name: str) -> BoxCox:
        """Choose the power.

        Raises:
            ValueError: if training values reach down to -shift.
        """
        values = finite(column, name, "the Box-Cox transform") + self.params.shift
        if values.min() <= 0:
            raise ValueError(
                f"column {name!r} goes down to {values.min() - self.params.shift:g}, which has no power with shift "
                f"{self.params.shift:g}; use a shift above {self.params.shift - values.min():g} or another transform"
            )
        self.power_ = self.params.power if self.params.power is not None else _likeliest(values)
        return self

    @override
    def apply(self, column: Column, offsets: Int64) -> Column:
        """Return the transformed column."""
        shifted = column.astype(np.float64) + self.params.shift
        shifted = np.where(shifted > 0, shifted, np.nan)
        return np.asarray(_transformed(shifted, self.power_), dtype=np.float32)

    def invert(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the values whose transforms these are."""
        wide = values.astype(np.float64)
        power = self.power_
        restored = np.exp(wide) if power == 0 else np.maximum(power * wide + 1, 0) ** (1 / power)
        return np.asarray(restored - self.params.shift, dtype=np.float32)

    def state(self) -> dict[str, Any]:
        """Return the power."""
        return {"power": self.power_}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the power."""
        self.power_ = float(state["power"])


def _transformed(shifted: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    return np.log(shifted) if power == 0 else (shifted**power - 1) / power


def _likeliest(shifted: npt.NDArray[np.float64]) -> float:
    """Return the power with which values above 0 are likeliest to be normal; 1 for a constant."""
    if np.ptp(shifted) == 0:
        return 1.0
    logs = np.log(shifted).mean()
    spreads = [np.var(_transformed(shifted, float(power))) for power in POWERS]
    likelihoods = (POWERS - 1) * logs - np.log(spreads) / 2
    return float(POWERS[int(np.argmax(likelihoods))])
