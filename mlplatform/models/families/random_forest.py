"""Random forests for forecasting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.base import FitOptions, FitResult
from mlplatform.models.forecasting import StrategyForecast, StrategyParams
from mlplatform.models.trees import Forest, ForestParams
from mlplatform.plugins import MODELS


class RandomForestForecastParams(StrategyParams, ForestParams):
    """The strategy and the forest, with coarser trees than a table wants: windows overlap, and there are many."""

    n_estimators: int = Field(default=100, ge=1)
    min_samples_leaf: int = Field(default=10, ge=1)
    max_features: float = Field(default=0.3, gt=0, le=1)
    max_samples: float = Field(default=0.5, gt=0, le=1)


@MODELS.register("random_forest")
class RandomForestForecast(StrategyForecast):
    """One forest (Breiman, Random Forests, 2001) whose leaves answer all models of the strategy at once."""

    Params = RandomForestForecastParams
    params: RandomForestForecastParams
    is_exact = True

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"n_estimators": 3, "max_depth": 3, "target_lags": [1, 3, 11, 12]}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the size of the leaves and the randomness of the trees."""
        return {
            "min_samples_leaf": SearchDimension(type="int", low=2, high=50, log=True),
            "max_features": SearchDimension(type="float", low=0.1, high=1.0),
            "max_samples": SearchDimension(type="float", low=0.2, high=1.0),
        }

    @override
    def _fit(self, train: WindowSamples, validation: WindowSamples | None, options: FitOptions) -> FitResult:
        """Fit the forest, with `options.workers` trees at a time; a forest needs no early stopping."""
        from sklearn.ensemble import RandomForestRegressor

        table = self.table(train)
        forest = RandomForestRegressor(**self.params.forest_params(options))
        forest.fit(table.features, table.labels if self.models > 1 else table.labels[:, 0])
        self.forest_ = Forest.of(forest.estimators_)
        return FitResult()

    def changes(self, features: Float32) -> Float32:
        """Return the mean answers of the trees."""
        return self.forest_.predict(features)[..., None]

    def save(self, folder: Path) -> None:
        """Write the arrays of the forest."""
        self.forest_.save(folder)

    def restore(self, folder: Path) -> None:
        """Read the arrays of the forest."""
        self.forest_ = Forest.load(folder)
