"""What the random-forest families share: parameters, and a fitted forest as plain arrays.

scikit-learn grows the trees; afterwards only their arrays are kept. They are stored without pickle, and a walk written
in numpy answers from them, so an answer is the same bits before and after loading, and alone as in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32
from mlplatform.models.base import FitOptions, ModelParams, as_float32

if TYPE_CHECKING:
    from sklearn.tree import BaseDecisionTree

# Samples that walk at a time: bounds memory, whatever the number of samples.
BLOCK = 4096
# Samples up to which all sums of all trees are kept, which is faster than a step per tree.
FEW = 4


class ForestParams(ModelParams):
    """scikit-learn's hyperparameters under their own names.

    `max_features` and `max_samples` are the shares of features tried per split and of samples drawn per tree.
    """

    n_estimators: int = Field(default=300, ge=1)
    max_depth: int | None = Field(default=None, ge=1)
    min_samples_leaf: int = Field(default=2, ge=1)
    max_features: float = Field(default=0.33, gt=0, le=1)
    max_samples: float = Field(default=1.0, gt=0, le=1)

    def forest_params(self, options: FitOptions) -> dict[str, Any]:
        """Return the arguments of scikit-learn's forests; their trees do not depend on the number of workers."""
        own = self.model_dump(include=set(ForestParams.model_fields) - set(ModelParams.model_fields))
        return {**own, "random_state": options.seed, "n_jobs": options.workers}


FOREST_SEARCH_SPACE = {
    "min_samples_leaf": SearchDimension(type="int", low=1, high=30, log=True),
    "max_features": SearchDimension(type="float", low=0.1, high=1.0),
    "max_samples": SearchDimension(type="float", low=0.4, high=1.0),
}


@dataclass(frozen=True)
class Forest:
    """The nodes of all trees, one tree after another.

    Attributes:
        roots: the first node of every tree, of shape (trees,).
        children: where a sample goes from a node, of shape (nodes, 2): the first where its feature is at most the
            threshold, else the second. A leaf leads to itself.
        features, thresholds: what a node compares, of shape (nodes,).
        missing_first: whether a missing value goes to the first child, of shape (nodes,).
        leaves: the answers of the leaves, in the order of their nodes, of shape (leaves, outputs).
    """

    roots: npt.NDArray[np.int32]
    children: npt.NDArray[np.int32]
    features: npt.NDArray[np.int32]
    thresholds: npt.NDArray[np.float64]
    missing_first: npt.NDArray[np.bool_]
    leaves: Float32

    @classmethod
    def of(cls, trees: Sequence[BaseDecisionTree]) -> Forest:
        """Copy fitted trees of scikit-learn, whose outputs are targets or, for a classifier, probabilities."""
        grown = [tree.tree_ for tree in trees]
        starts = np.cumsum([0, *(tree.node_count for tree in grown)])[:-1]
        own = np.arange(sum(tree.node_count for tree in grown))
        is_leaf = np.concatenate([tree.children_left < 0 for tree in grown])
        sides = (
            np.concatenate([getattr(tree, side) + start for tree, start in zip(grown, starts, strict=True)])
            for side in ("children_left", "children_right")
        )
        answers = np.concatenate([tree.value.reshape(tree.node_count, -1) for tree in grown])
        return cls(
            roots=starts.astype(np.int32),
            children=np.column_stack([np.where(is_leaf, own, side) for side in sides]).astype(np.int32),
            # A leaf's own feature is -2; any column will do, since both its children are itself.
            features=np.concatenate([np.maximum(tree.feature, 0) for tree in grown]).astype(np.int32),
            thresholds=np.concatenate([tree.threshold for tree in grown]),
            missing_first=np.concatenate([tree.missing_go_to_left for tree in grown]).astype(bool),
            leaves=as_float32(answers[is_leaf]),
        )

    def predict(self, values: Float32) -> Float32:
        """Return the mean of the trees' answers, of shape (samples, outputs).

        Parameters:
            values: of shape (samples, features); missing values are NaN.
        """
        answers = np.zeros((len(values), self.leaves.shape[1]))
        for start in range(0, len(values), BLOCK):
            reached = self._leaf_rows[self._walk(values[start : start + BLOCK])]
            # Tree by tree, because the order in which numpy adds along an axis depends on the shape.
            if len(reached) <= FEW:
                answers[start : start + BLOCK] += np.add.accumulate(self.leaves[reached], axis=1, dtype=np.float64)[
                    :, -1
                ]
                continue
            for tree in range(len(self.roots)):
                answers[start : start + BLOCK] += self.leaves[reached[:, tree]]
        return as_float32(answers / len(self.roots))

    @cached_property
    def _leaf_rows(self) -> npt.NDArray[np.intp]:
        """Row of `leaves` of every node that is a leaf, of shape (nodes,)."""
        is_leaf = self.children[:, 0] == np.arange(len(self.children))
        rows: npt.NDArray[np.intp] = np.cumsum(is_leaf) - 1
        return rows

    def _walk(self, values: Float32) -> npt.NDArray[np.int32]:
        """Return the leaf node that every sample reaches in every tree, of shape (samples, trees)."""
        rows = np.arange(len(values))[:, None]
        nodes = np.broadcast_to(self.roots, (len(values), len(self.roots)))
        while True:
            found = values[rows, self.features[nodes]]
            goes_first = np.where(np.isnan(found), self.missing_first[nodes], found <= self.thresholds[nodes])
            further: npt.NDArray[np.int32] = self.children[nodes, 1 - goes_first]
            if np.array_equal(further, nodes):
                return further
            nodes = further

    def save(self, folder: Path) -> None:
        """Write one array per attribute."""
        for attribute in fields(self):
            np.save(folder / f"{attribute.name}.npy", getattr(self, attribute.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Forest:
        """Read what `save` wrote."""
        return cls(**{item.name: np.load(folder / f"{item.name}.npy", allow_pickle=False) for item in fields(cls)})
