"""What expanding and sliding windows share: validation blocks at the end of the rows, and the purge before each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from pydantic import Field

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.folds import Fold, SampleIndex, Splitter, SplitterParams
from mlplatform.plugins import PluginUse


class BlockParams(SplitterParams):
    """`validation_steps` is the length of each validation block; `gap` adds steps between training and validation.

    With `overlap`, forecasts that begin in a block and end behind it validate, too: of blocks that are hardly longer
    than the horizon that is most of them.
    """

    validation_steps: int = Field(ge=1)
    gap: int = Field(default=0, ge=0)
    overlap: bool = False


class BlockSplitter(Splitter):
    """Validate on consecutive blocks at the end of the training rows, each time training on all that is before."""

    tasks = frozenset({"forecast"})
    separates = "time"
    Params: ClassVar[type[BlockParams]] = BlockParams
    params: BlockParams

    @classmethod
    def check(cls, use: PluginUse, params: BlockParams, config: ExperimentConfig) -> Iterator[str]:
        """Yield also a block that is too short for one forecast."""
        yield from super().check(use, params, config)
        if config.horizon > params.validation_steps:
            yield (
                f"horizon {config.horizon} is longer than {use.params_key}.validation_steps {params.validation_steps}; "
                f"allowed: 1 to {params.validation_steps}"
            )

    def outer(self) -> Splitter:
        """Outer folds always expand: they train on all that is known, whatever windows inner folds choose from it."""
        block = BlockParams(validation_steps=self.params.validation_steps, gap=self.params.gap)
        return BlockSplitter(block, self.folds, self.seed)

    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds, earliest first."""
        return block_folds(index, self.folds, self.params, None)


def block_folds(index: SampleIndex, folds: int, params: BlockParams, train_steps: int | None) -> tuple[Fold, ...]:
    """Return one fold per validation block, earliest first; each trains on rows before its block.

    A sample belongs to the side on which its whole horizon of targets lies, or with `overlap` to the block that its
    horizon begins in: what lies behind a block is later than all that the fold trains on. No training target reaches
    the validation block, which purges the horizon - 1 origins whose targets would straddle the border (López de Prado,
    Advances in Financial Machine Learning, 2018, chapter 7). Windows may look back beyond the start of their side: that
    history is known at forecast time.

    Parameters:
        train_steps: number of steps before the cut-off that may be trained on, of which the origin of every training
            sample is one; `None` for all.

    Raises:
        ValueError: if a fold has no training or no validation sample.
    """
    newest = index.timestamps.max(keepdims=True)
    origin_times = index.timestamps[index.samples]
    first_target = index.ahead(origin_times, 1)
    after_last_target = index.ahead(origin_times, 1 + index.horizon)
    block = params.validation_steps
    result = []
    for k in range(folds):
        end = 1 - (folds - 1 - k) * block  # in steps from the newest row
        validation_end, validation_start = index.ahead(newest, end), index.ahead(newest, end - block)
        cutoff = index.ahead(newest, end - block - params.gap)
        start = index.ahead(newest, end - block - params.gap - train_steps) if train_steps else index.timestamps.min()
        is_whole = (first_target < validation_end) if params.overlap else (after_last_target <= validation_end)
        fold = Fold(
            fit_rows=np.flatnonzero((index.timestamps >= start) & (index.timestamps < cutoff)),
            train=index.samples[(origin_times >= start) & (after_last_target <= cutoff)],
            validation=index.samples[(first_target >= validation_start) & is_whole],
        )
        if not len(fold.train) or not len(fold.validation):
            raise ValueError(
                f"fold {k} of {folds} has {len(fold.train)} training and {len(fold.validation)} validation "
                f"samples; the training rows span {len(np.unique(index.timestamps))} steps: use fewer folds, a "
                f"shorter validation_steps than {params.validation_steps}, or a shorter lookback or horizon"
                + ("" if train_steps is None else f", or more training steps than {train_steps}")
            )
        result.append(fold)
    return tuple(result)
