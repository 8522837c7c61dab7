"""Expanding-window cross-validation for time series."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from mlplatform.datamodule.folds import Fold, SampleIndex, Splitter, SplitterParams
from mlplatform.plugins import SPLITTERS


class ExpandingParams(SplitterParams):
    """`validation_steps` is the length of each validation block; `gap` adds steps between training and validation."""

    validation_steps: int = Field(ge=1)
    gap: int = Field(default=0, ge=0)


@SPLITTERS.register("expanding")
class ExpandingSplitter(Splitter):
    """Validate on consecutive blocks at the end of the training rows, each time training on everything before.

    A sample belongs to the side on which its whole horizon of targets lies. No training target reaches the validation
    block, which purges the horizon - 1 origins whose targets would straddle the border (López de Prado, Advances in
    Financial Machine Learning, 2018, chapter 7). Validation windows may look back into training rows: at forecast time
    that history is known.
    """

    tasks = frozenset({"forecast"})
    Params = ExpandingParams
    params: ExpandingParams

    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds, earliest first."""
        end = index.timestamps.max() + index.step
        origin_times = index.timestamps[index.samples]
        block = self.params.validation_steps * index.step
        folds = []
        for k in range(self.folds):
            validation_end = end - (self.folds - 1 - k) * block
            validation_start = validation_end - block
            cutoff = validation_start - self.params.gap * index.step
            first_target = origin_times + index.step
            after_last_target = first_target + index.horizon * index.step
            fold = Fold(
                fit_rows=np.flatnonzero(index.timestamps < cutoff),
                train=index.samples[after_last_target <= cutoff],
                validation=index.samples[(first_target >= validation_start) & (after_last_target <= validation_end)],
            )
            if not len(fold.train) or not len(fold.validation):
                raise ValueError(
                    f"fold {k} of {self.folds} has {len(fold.train)} training and {len(fold.validation)} validation "
                    f"samples; the training rows span {len(np.unique(index.timestamps))} steps: use fewer folds, a "
                    f"shorter validation_steps than {self.params.validation_steps}, or a shorter lookback or horizon"
                )
            folds.append(fold)
        return tuple(folds)
