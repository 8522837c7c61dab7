"""Forecasting with a random forest, stored as arrays and predicted without scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples, WindowSamples
from mlplatform.models.base import DEFAULT_OPTIONS, FitOptions, FitResult, as_float32
from mlplatform.models.forecast_strategies import StrategyForecast, StrategyParams
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor

# Rows per block of a prediction: bounds the memory of rows x trees.
BLOCK = 4096


class RandomForestForecastParams(StrategyParams):
    """scikit-learn's hyperparameters under their own names; `max_samples` is the share of rows a tree draws."""

    n_estimators: int = Field(default=100, ge=1)
    max_depth: int | None = Field(default=None, ge=1)
    min_samples_leaf: int = Field(default=10, ge=1)
    max_features: float = Field(default=0.3, gt=0, le=1)
    max_samples: float = Field(default=0.5, gt=0, le=1)


@MODELS.register("random_forest")
class RandomForestForecast(StrategyForecast):
    """One forest (Breiman, Random Forests, 2001) whose leaves answer all models of the strategy at once."""

    Params = RandomForestForecastParams
    params: RandomForestForecastParams

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the size of the leaves and the randomness of the trees."""
        del task
        return {
            "min_samples_leaf": SearchDimension(type="int", low=2, high=50, log=True),
            "max_features": SearchDimension(type="float", low=0.1, high=1.0),
            "max_samples": SearchDimension(type="float", low=0.2, high=1.0),
        }

    def fit(
        self,
        train: Samples,
        validation: Samples | None,
        options: FitOptions = DEFAULT_OPTIONS,
    ) -> FitResult:
        """Fit the forest, with `options.workers` trees at a time; a forest needs no early stopping."""
        from sklearn.ensemble import RandomForestRegressor

        del validation
        assert isinstance(train, WindowSamples)
        table = self.table(train)
        names = {"n_estimators", "max_depth", "min_samples_leaf", "max_features", "max_samples"}
        forest = RandomForestRegressor(
            **self.params.model_dump(include=names), n_jobs=options.workers, random_state=options.seed
        )
        forest.fit(table.features, table.labels if self.models > 1 else table.labels[:, 0])
        self.forest_ = ForestArrays.from_sklearn(forest)
        return FitResult()

    def changes(self, features: Float32) -> Float32:
        """Return the mean answers of the trees."""
        return self.forest_.predict(features)[..., None]

    def save(self, folder: Path) -> None:
        """Write the arrays of the forest."""
        self.forest_.save(folder)

    def restore(self, folder: Path) -> None:
        """Read the arrays of the forest."""
        self.forest_ = ForestArrays.load(folder)


class ForestArrays:
    """The nodes of all trees in flat arrays.

    Attributes:
        roots: first node of every tree, of shape (trees,).
        features: the column a node looks at, of shape (nodes,); 0 at a leaf.
        thresholds: values up to it go left, of shape (nodes,).
        children: nodes to the left and to the right, of shape (2, nodes); a leaf is its own child.
        leaves: row of `values` of every leaf, of shape (nodes,); 0 elsewhere.
        values: answers of the leaves, of shape (leaves, outputs).
        depth: of the deepest tree.
    """

    NAMES = ("roots", "features", "thresholds", "children", "leaves", "values", "depth")

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.arrays = arrays

    @classmethod
    def from_sklearn(cls, forest: RandomForestRegressor) -> ForestArrays:
        """Copy a fitted forest."""
        trees = [estimator.tree_ for estimator in forest.estimators_]
        counts = np.array([tree.node_count for tree in trees])
        roots = np.concatenate([[0], np.cumsum(counts)[:-1]])
        own = np.arange(counts.sum())
        shift = np.repeat(roots, counts)
        children = np.stack([np.concatenate([getattr(tree, name) for tree in trees]) for name in CHILDREN])
        is_leaf = children[0] < 0
        values = np.concatenate([tree.value[tree.children_left < 0, :, 0] for tree in trees])
        return cls(
            {
                "roots": roots.astype(np.int32),
                "features": np.where(is_leaf, 0, np.concatenate([tree.feature for tree in trees])).astype(np.int32),
                "thresholds": np.concatenate([tree.threshold for tree in trees]),
                "children": np.where(is_leaf, own, children + shift).astype(np.int32),
                "leaves": np.where(is_leaf, np.cumsum(is_leaf) - 1, 0).astype(np.int32),
                "values": as_float32(values),
                "depth": np.array(max(tree.max_depth for tree in trees), dtype=np.int32),
            }
        )

    def predict(self, features: Float32) -> Float32:
        """Return the mean over the trees, of shape (rows, outputs)."""
        out = np.empty((len(features), self.arrays["values"].shape[1]), dtype=np.float32)
        for start in range(0, len(features), BLOCK):
            out[start : start + BLOCK] = self._predict(features[start : start + BLOCK])
        return out

    def _predict(self, features: Float32) -> Float32:
        arrays = self.arrays
        left, right = arrays["children"]
        rows = np.arange(len(features))[:, None]
        nodes = np.repeat(arrays["roots"][None, :], len(features), axis=0)
        for _ in range(int(arrays["depth"])):
            goes_left = features[rows, arrays["features"][nodes]] <= arrays["thresholds"][nodes]
            nodes = np.where(goes_left, left[nodes], right[nodes])
        chosen = arrays["leaves"][nodes]
        total = np.zeros((len(features), arrays["values"].shape[1]), dtype=np.float64)
        # Tree by tree: a sum along an axis may add in an order that depends on the number of rows.
        for tree in range(chosen.shape[1]):
            total += arrays["values"][chosen[:, tree]]
        return as_float32(total / chosen.shape[1])

    def save(self, folder: Path) -> None:
        """Write one file per array."""
        for name in self.NAMES:
            np.save(folder / f"{name}.npy", self.arrays[name], allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> ForestArrays:
        """Read what `save` wrote."""
        return cls({name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in cls.NAMES})


CHILDREN = ("children_left", "children_right")
