"""K-fold and stratified K-fold cross-validation for tabular data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule.folds import Fold, SampleIndex, Splitter, SplitterParams
from mlplatform.plugins import SPLITTERS


@SPLITTERS.register("kfold")
class KFoldSplitter(Splitter):
    """Shuffled K-fold."""

    tasks = frozenset({"regression", "classification"})
    separates = "rows"
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
    separates = "rows"
    Params = SplitterParams
    min_folds = 2

    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds."""
        from sklearn.model_selection import StratifiedKFold

        _check_size(self, index)
        if index.labels is None:
            raise ValueError("stratified_kfold needs class labels, but the samples have none")
        check_classes(index.labels[index.samples], self.folds)
        return _folds(StratifiedKFold(self.folds, shuffle=True, random_state=self.seed), index)


def check_classes(labels: npt.NDArray[np.generic], folds: int) -> None:
    """Refuse to stratify a class that cannot be in every fold.

    Raises:
        ValueError: with the size of the rarest class.
    """
    smallest = int(np.unique(labels.astype(str), return_counts=True)[1].min())
    if smallest < folds:
        raise ValueError(f"the rarest class has {smallest} samples, fewer than the {folds} folds; use fewer folds")


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
