"""K-fold and stratified K-fold cross-validation for tabular data."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlplatform.datamodule.folds import Fold, SampleIndex, Splitter, SplitterParams
from mlplatform.plugins import SPLITTERS


@SPLITTERS.register("kfold")
class KFoldSplitter(Splitter):
    """Shuffled K-fold."""

    tasks = frozenset({"regression", "classification"})
    Params = SplitterParams
    min_folds = 2

    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds."""
        from sklearn.model_selection import KFold

        _check_size(self, index)
        return _folds(KFold(self.folds, shuffle=True, random_state=self.seed), index)


@SPLITTERS.register("stratified_kfold")
class StratifiedKFoldSplitter(Splitter):
    """Shuffled K-fold that keeps the share of every class."""

    tasks = frozenset({"classification"})
    Params = SplitterParams
    min_folds = 2

    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds."""
        from sklearn.model_selection import StratifiedKFold

        _check_size(self, index)
        if index.labels is None:
            raise ValueError("stratified_kfold needs class labels, but the samples have none")
        smallest = int(np.unique(index.labels[index.samples].astype(str), return_counts=True)[1].min())
        if smallest < self.folds:
            raise ValueError(
                f"the rarest class has {smallest} samples, fewer than the {self.folds} folds; use fewer folds"
            )
        return _folds(StratifiedKFold(self.folds, shuffle=True, random_state=self.seed), index)


def _check_size(splitter: Splitter, index: SampleIndex) -> None:
    if not splitter.min_folds <= splitter.folds <= len(index.samples):
        raise ValueError(
            f"{splitter.folds} folds of {len(index.samples)} samples are impossible; allowed: {splitter.min_folds} to "
            "the number of samples"
        )


def _folds(scheme: Any, index: SampleIndex) -> tuple[Fold, ...]:
    labels = None if index.labels is None else index.labels[index.samples].astype(str)
    return tuple(
        Fold(fit_rows=index.samples[train], train=index.samples[train], validation=index.samples[validation])
        for train, validation in scheme.split(index.samples, labels)
    )
