"""The contract every transform keeps.

A transform handles one column. It is fitted on training rows only, its state is plain JSON, and applying it is either
elementwise or looks back a bounded number of rows (`context`). That bound is what lets an online window of
`lookback + context` rows give the same bits as the whole history does offline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import Int64
from mlplatform.plugins import PluginUse

Column = npt.NDArray[np.generic]


class TransformParams(BaseModel):
    """Base of a transform's parameters: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Transform(ABC):
    """One column's transform.

    Class attributes:
        accepts: the column type it can be applied to.
        Params: its parameters.
        is_invertible: whether `invert` gives back the values that were given, and not only their units.
        fills_missing: whether no value is missing in what it returns.
    """

    accepts: ClassVar[Literal["float", "category"]] = "float"
    Params: ClassVar[type[TransformParams]] = TransformParams
    is_invertible: ClassVar[bool] = False
    fills_missing: ClassVar[bool] = False

    def __init__(self, **params: Any) -> None:
        self.params = self.Params.model_validate(params)

    @classmethod
    def examples(cls) -> list[dict[str, Any]]:
        """Return parameters to try the transform with; the contract tests take them one after another."""
        return [{}]

    @classmethod
    def check(cls, use: PluginUse, params: Any, config: ExperimentConfig) -> Iterator[str]:  # noqa: ARG003 (for subclasses)
        """Yield what keeps the transform from being applied to a step's columns.

        A transform with further demands yields them after these.
        """
        for name in use.columns:
            column = config.dataset.columns.get(name)
            # Categories become numbers on the way, but numbers never become categories.
            if cls.accepts == "category" and column is not None and column.type == "float":
                yield (
                    f"{use.owner}.columns names {name!r} of type float, but {use.name!r} applies to categories; "
                    f"allowed: {', '.join(config.dataset.category_columns) or 'none'}"
                )

    def without_level(self) -> Transform | None:
        """Return what to apply to a column whose windows are scaled one by one; None for nothing.

        A transform that learns a level or a width from the rows of all series together must not return itself.
        """
        return self

    @property
    def floor(self) -> float:
        """What numbers have to lie above: at or below it they become missing. Most transforms have none."""
        return float("-inf")

    @property
    def context(self) -> int:
        """Rows before a window that its first row depends on; 0 for elementwise transforms."""
        return 0

    @abstractmethod
    def fit(self, column: Column, name: str) -> Transform:
        """Learn from a training column of shape (rows,) and return self.

        Raises:
            ValueError: if nothing can be learnt from the column; the message names it.
        """

    @abstractmethod
    def apply(self, column: Column, offsets: Int64) -> Column:
        """Return the transformed column; `offsets` bound the rows of each entity."""

    def invert(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map values of any shape back to the units `apply` received. The default suits transforms that keep units."""
        return values

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the fitted state as JSON values."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the fitted state that `state` returned."""


def finite(column: Column, name: str, purpose: str) -> npt.NDArray[np.float64]:
    """Return the finite values of a column in double precision.

    Raises:
        ValueError: if there are none.
    """
    values = column.astype(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError(f"column {name!r} has no observed value in the training rows, so {purpose} cannot be fitted")
    return values
