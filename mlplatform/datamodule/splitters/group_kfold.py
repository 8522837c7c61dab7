"""K-fold cross-validation that never has a group on both sides: whole patients, sites or machines are held out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.folds import Fold, GroupParams, SampleIndex, Splitter
from mlplatform.datamodule.identity import stable_numbers, text_digests
from mlplatform.datamodule.panel import Int64
from mlplatform.datamodule.splitters.kfold import check_classes
from mlplatform.plugins import SPLITTERS, PluginUse


class GroupSplitter(Splitter):
    """A scheme by groups: the values of a column, or entities."""

    separates = "groups"
    Params = GroupParams
    min_folds = 2

    @classmethod
    def group_column(cls, params: GroupParams) -> str | None:
        """The column that the parameters name."""
        return params.column

    @classmethod
    def check(cls, use: PluginUse, params: GroupParams, config: ExperimentConfig) -> Iterator[str]:
        """Yield also a column that cannot group the rows."""
        yield from super().check(use, params, config)
        groups = [name for name in config.dataset.columns if name not in config.targets]
        if params.column is not None and params.column not in groups:
            yield (
                f"{use.params_key}.column names {params.column!r}, which cannot group the rows of dataset "
                f"{config.dataset.name!r}; allowed: {', '.join(groups)}, or null for the entity"
            )


@SPLITTERS.register("group_kfold")
class GroupKFoldSplitter(GroupSplitter):
    """Shuffled K-fold over groups, with about as many samples in every fold.

    Of forecasts it holds out whole entities, over all time: it measures how a model does on entities it has not met.
    """

    tasks = frozenset({"forecast", "regression", "classification"})

    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds."""
        groups = sample_groups(self, index)
        names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        if index.identities is None:
            shuffled = np.random.default_rng(self.seed).permutation(len(sizes))
        else:
            shuffled = np.argsort(stable_numbers(text_digests(names), self.seed, "groups"), kind="stable")
        return group_folds(index, groups, self._balance(sizes, shuffled)[codes], self.folds)

    def _balance(self, sizes: Int64, shuffled: Int64) -> Int64:
        """Return the fold of every group: the largest first, each to the fold with the fewest samples so far."""
        filled = np.zeros(self.folds, dtype=np.int64)
        fold_of = np.empty(len(sizes), dtype=np.int64)
        # Stable, so that the shuffle decides among groups of one size.
        for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            fold_of[group] = int(np.argmin(filled))
            filled[fold_of[group]] += sizes[group]
        return fold_of


@SPLITTERS.register("stratified_group_kfold")
class StratifiedGroupKFoldSplitter(GroupSplitter):
    """Shuffled K-fold over groups that keeps the share of every class as nearly as whole groups allow."""

    tasks = frozenset({"classification"})

    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds."""
        from sklearn.model_selection import StratifiedGroupKFold

        groups = sample_groups(self, index)
        if index.labels is None:
            raise ValueError("stratified_group_kfold needs class labels, but the samples have none")
        check_classes(index.labels[index.samples], self.folds)
        scheme = StratifiedGroupKFold(self.folds, shuffle=True, random_state=self.seed)
        fold_of = np.empty(len(index.samples), dtype=np.int64)
        labels = index.labels[index.samples].astype(str)
        # In an order of its own, because the scheme numbers classes as it meets them.
        order = np.arange(len(labels)) if index.identities is None else np.lexsort((labels, groups))
        for fold, (_, validation) in enumerate(scheme.split(order, labels[order], groups[order])):
            fold_of[order[validation]] = fold
        return group_folds(index, groups, fold_of, self.folds)


def sample_groups(splitter: Splitter, index: SampleIndex) -> npt.NDArray[np.str_]:
    """Return the group of every sample, as text, of shape (samples,).

    Raises:
        ValueError: if there are fewer groups than folds.
    """
    if index.groups is None:
        raise ValueError("a splitter by groups needs the group of every row, but the samples have none")
    groups: npt.NDArray[np.str_] = index.groups[index.samples].astype(str)
    found = len(np.unique(groups))
    if not splitter.min_folds <= splitter.folds <= found:
        raise ValueError(
            f"{splitter.folds} folds of {found} groups are impossible; allowed: {splitter.min_folds} to the number of "
            "groups"
        )
    return groups


def group_folds(index: SampleIndex, groups: npt.NDArray[np.str_], fold_of: Int64, folds: int) -> tuple[Fold, ...]:
    """Return the folds of an assignment of samples to folds.

    Of forecasts, preprocessing is fitted on all rows of the training groups, not only on the origins among them.
    """
    assert index.groups is not None
    result = []
    for k in range(folds):
        train, validation = index.samples[fold_of != k], index.samples[fold_of == k]
        if not len(train) or not len(validation):
            raise ValueError(
                f"fold {k} of {folds} has {len(train)} training and {len(validation)} validation samples of "
                f"{len(np.unique(groups))} groups; use fewer folds"
            )
        fit_rows = train
        if index.horizon:
            fit_rows = np.flatnonzero(np.isin(index.groups.astype(str), np.unique(groups[fold_of != k])))
        result.append(Fold(fit_rows=fit_rows, train=train, validation=validation))
    return tuple(result)
