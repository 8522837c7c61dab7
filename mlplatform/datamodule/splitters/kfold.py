"""K-fold and stratified K-fold cross-validation for tabular data.

A row's fold depends on what the row is, not on where it stands, and copies of a row are in one fold. Rows without an
identity are shuffled by position.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule.folds import Fold, SampleIndex, Splitter, SplitterParams
from mlplatform.datamodule.identity import Digests, deal, stable_numbers, text_digests
from mlplatform.datamodule.panel import Int64
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
        digests = _digests(index)
        if digests is not None:
            return _dealt(index, deal(digests, self.folds, self.seed), self.folds)
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
        labels, digests = index.labels[index.samples].astype(str), _digests(index)
        check_classes(labels, self.folds, digests)
        if digests is not None:
            return _dealt(index, self._deal(labels, digests), self.folds)
        return _folds(StratifiedKFold(self.folds, shuffle=True, random_state=self.seed), index)

    def _deal(self, labels: npt.NDArray[np.str_], digests: Digests) -> Int64:
        """Return the fold of every sample: each class is dealt on its own."""
        fold_of = np.empty(len(labels), dtype=np.int64)
        for label in np.unique(labels):
            members = labels == label
            # Classes start at different folds, so that what is left over of them does not pile up in one.
            start = int(stable_numbers(text_digests([label]), self.seed, "classes")[0] * self.folds)
            fold_of[members] = (deal(digests[members], self.folds, self.seed) + start) % self.folds
        return fold_of


def check_classes(labels: npt.NDArray[np.generic], folds: int, digests: Digests | None = None) -> None:
    """Refuse to stratify a class that cannot be in every fold; copies, which have equal digests, count as one sample.

    Raises:
        ValueError: with the size of the rarest class.
    """
    texts = labels.astype(str)
    if digests is not None:
        texts = texts[np.unique(digests, return_index=True)[1]]
    smallest = int(np.unique(texts, return_counts=True)[1].min())
    if smallest < folds:
        raise ValueError(f"the rarest class has {smallest} samples, fewer than the {folds} folds; use fewer folds")


def _check_size(splitter: Splitter, index: SampleIndex) -> None:
    digests = _digests(index)
    found = len(index.samples) if digests is None else len(np.unique(digests))
    if not splitter.min_folds <= splitter.folds <= found:
        raise ValueError(
            f"{splitter.folds} folds of {found} samples are impossible; allowed: {splitter.min_folds} to "
            "the number of samples"
        )


def _digests(index: SampleIndex) -> Digests | None:
    """Return the digest of every sample, of shape (samples,)."""
    return None if index.identities is None else index.identities[index.samples]


def _dealt(index: SampleIndex, fold_of: Int64, folds: int) -> tuple[Fold, ...]:
    pairs = ((index.samples[fold_of != k], index.samples[fold_of == k]) for k in range(folds))
    return tuple(Fold(fit_rows=train, train=train, validation=validation) for train, validation in pairs)


def _folds(scheme: Any, index: SampleIndex) -> tuple[Fold, ...]:
    labels = None if index.labels is None else index.labels[index.samples].astype(str)
    return tuple(
        Fold(fit_rows=index.samples[train], train=index.samples[train], validation=index.samples[validation])
        for train, validation in scheme.split(index.samples, labels)
    )
