"""Expanding-window cross-validation for time series."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mlplatform.datamodule.folds import Fold, SampleIndex
from mlplatform.datamodule.splitters.time_blocks import BlockParams, BlockSplitter, block_folds
from mlplatform.plugins import SPLITTERS


class ExpandingParams(BlockParams):
    """As `BlockParams`; `max_train_steps` is where training windows stop growing, by dropping their oldest steps."""

    max_train_steps: int | None = Field(default=None, ge=1)


@SPLITTERS.register("expanding")
class ExpandingSplitter(BlockSplitter):
    """Validate on consecutive blocks at the end of the training rows, each time training on everything before."""

    Params = ExpandingParams
    params: ExpandingParams

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Blocks of half a day, with a gap."""
        return {"validation_steps": 12, "gap": 2}

    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds, earliest first."""
        return block_folds(index, self.folds, self.params, self.params.max_train_steps)
