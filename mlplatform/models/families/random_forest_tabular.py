"""Random forests for tabular regression and classification."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32, TabularSamples
from mlplatform.models.base import DirectFitModel, FitOptions, FitResult
from mlplatform.models.trees import FOREST_SEARCH_SPACE, Forest, ForestParams
from mlplatform.plugins import MODELS


@MODELS.register("random_forest_tabular")
class RandomForestTabular(DirectFitModel[TabularSamples]):
    """Random forest (Breiman, Random Forests, Machine Learning 2001), grown by scikit-learn.

    Missing values are read as they are. A forest has no iterations to stop early: more trees do not overfit.
    """

    tasks = frozenset({"regression", "classification"})
    Params = ForestParams
    reads_missing = True
    params: ForestParams
    is_exact = True

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"n_estimators": 7}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the size of leaves and the shares of features and samples."""
        return dict(FOREST_SEARCH_SPACE)

    @override
    def _fit(self, train: TabularSamples, validation: TabularSamples | None, options: FitOptions) -> FitResult:
        """Grow the trees; the result does not depend on the number of workers."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        params = self.params.forest_params(options)
        if self.spec.task == "regression":
            regressor = RandomForestRegressor(**params).fit(train.values, train.labels)
            self.forest_ = Forest.of(regressor.estimators_)
            return FitResult()
        classifier = RandomForestClassifier(**params).fit(train.values, train.labels.astype(np.int64))
        forest = Forest.of(classifier.estimators_)
        # A class that the training rows lack has probability zero.
        leaves = np.zeros((len(forest.leaves), self.spec.classes), dtype=np.float32)
        leaves[:, classifier.classes_] = forest.leaves
        self.forest_ = replace(forest, leaves=leaves)
        return FitResult()

    def predict(self, samples: TabularSamples) -> Float32:
        """Return values, or probabilities."""
        answers = self.forest_.predict(samples.values)
        return answers[:, 0] if self.spec.task == "regression" else answers

    def save(self, folder: Path) -> None:
        """Write the arrays of the trees."""
        self.forest_.save(folder)

    def restore(self, folder: Path) -> None:
        """Read the arrays of the trees."""
        self.forest_ = Forest.load(folder)
