"""The trees of a merged booster as arrays, for the one row of a request.

XGBoost walks tree by tree, and for a single row waits for memory in every node; NumPy takes all trees a level down at a
time. From a few rows on XGBoost is faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SummedTrees:
    """Trees whose leaves add up to several outputs.

    Attributes:
        roots: the first node of every tree, of shape (trees,).
        children: where a row goes from a node, of shape (2 * nodes,): to the first of two where its feature is below
            the threshold, else to the second. A leaf leads to itself.
        features, values: what a node compares, of shape (nodes,); the value of a leaf is its answer.
        missing_first: whether a missing value goes to the first child, of shape (nodes,).
        depth: number of levels to go down.
        terms: the trees of every output in their order, of shape (outputs, most trees of one); where an output has
            fewer, the number of trees stands for a zero.
        base_scores: of shape (outputs,), what the sums begin with.
    """

    roots: Ints
    children: Ints
    features: Ints
    values: Float32
    missing_first: npt.NDArray[np.bool_]
    depth: int
    terms: Ints
    base_scores: Float32

    @classmethod
    def of(cls, trees: Sequence[Mapping[str, Any]], outputs: Sequence[int], base_scores: Float32) -> SummedTrees:
        """Copy trees of XGBoost's JSON form.

        Parameters:
            outputs: of every tree, the output that it adds to.
        """
        sizes = [len(tree["left_children"]) for tree in trees]
        roots = np.cumsum([0, *sizes])[:-1]
        first_nodes = np.repeat(roots, sizes)

        def all_of(key: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
            return np.concatenate([np.asarray(tree[key], dtype) for tree in trees])

        is_leaf, own = all_of("left_children", np.int64) < 0, np.arange(sum(sizes))
        sides = [all_of(key, np.int64) + first_nodes for key in ("left_children", "right_children")]
        children = np.column_stack([np.where(is_leaf, own, side) for side in sides])
        of_output = [np.flatnonzero(np.asarray(outputs) == output) for output in range(len(base_scores))]
        terms = np.full((len(of_output), max(map(len, of_output))), len(trees), dtype=np.int64)
        for output, own_trees in enumerate(of_output):
            terms[output, : len(own_trees)] = own_trees
        return cls(
            roots=roots,
            children=children.reshape(-1),
            features=np.where(is_leaf, 0, all_of("split_indices", np.int64)),
            values=all_of("split_conditions", np.float32),
            missing_first=all_of("default_left", np.int64).astype(bool),
            depth=_depth(roots, children),
            terms=terms,
            base_scores=base_scores,
        )

    def answers(self, row: Float32) -> Float32:
        """Return the outputs for one row of shape (features,), of shape (outputs,)."""
        nodes, is_missing = self.roots, np.isnan(row)
        has_missing = bool(is_missing.any())
        for _ in range(self.depth):
            read = self.features[nodes]
            goes_first = row[read] < self.values[nodes]
            if has_missing:
                goes_first = np.where(is_missing[read], self.missing_first[nodes], goes_first)
            nodes = self.children[2 * nodes + ~goes_first]
        summands = np.empty((len(self.terms), 1 + self.terms.shape[1]), dtype=np.float32)
        summands[:, 0] = self.base_scores
        summands[:, 1:] = np.append(self.values[nodes], np.float32(0))[self.terms]
        # Tree by tree, as XGBoost adds: a sum along an axis would have an order of its own.
        sums: Float32 = np.add.accumulate(summands, axis=1)[:, -1]
        return sums


def _depth(roots: Ints, children: Ints) -> int:
    depth, nodes = 0, roots
    while len(inner := nodes[children[nodes, 0] != nodes]):
        nodes = children[inner].reshape(-1)
        depth += 1
    return depth
