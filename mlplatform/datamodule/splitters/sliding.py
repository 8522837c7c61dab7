"""Sliding-window cross-validation for time series."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mlplatform.datamodule.folds import Fold, SampleIndex
from mlplatform.datamodule.splitters.time_blocks import BlockParams, BlockSplitter, block_folds
from mlplatform.plugins import SPLITTERS


class SlidingParams(BlockParams):
    """As `BlockParams`; `train_steps` is the length of every training window."""

    train_steps: int = Field(ge=1)


@SPLITTERS.register("sliding")
class SlidingSplitter(BlockSplitter):
    """Validate on consecutive blocks at the end of the training rows, each time training on as many steps before.

    For series whose old behaviour says little about the present, and where folds must not differ in training size.
    """

    Params = SlidingParams
    params: SlidingParams

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Blocks of half a day, with a gap."""
        return {"train_steps": 30, "validation_steps": 12, "gap": 2}

    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds, earliest first.

        Raises:
            ValueError: if the first training window would start before the rows do, or a fold lacks samples.
        """
        params = self.params
        needed = params.train_steps + params.gap + self.folds * params.validation_steps
        available = index.span
        if needed > available:
            raise ValueError(
                f"{self.folds} folds need {needed} steps ({params.train_steps} of training, {params.gap} of gap and "
                f"{params.validation_steps} of validation per fold), but the training rows span {available} steps: use "
                "fewer folds, or a shorter train_steps or validation_steps"
            )
        return block_folds(index, self.folds, params, params.train_steps)
