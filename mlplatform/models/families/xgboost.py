"""Forecasting with XGBoost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from typing_extensions import override

from mlplatform.config import ExperimentConfig, SearchDimension
from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.explanation import Float64
from mlplatform.models.forecasting import StrategyParams, Table
from mlplatform.models.trees import (
    BOOSTING_SEARCH_SPACE,
    Boosted,
    BoostedForecast,
    BoostingParams,
    Task,
    answers_of,
    fit_booster,
    load_boosters,
    merge_boosters,
    quantile_matrix,
    save_boosters,
    shares_of_boosters,
)
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import xgboost

    Workspace = tuple[xgboost.QuantileDMatrix, xgboost.QuantileDMatrix | None]

# What a linear model leaves is noise for the most part: small trees, and few of their features. Its least squares are
# drawn to what is far off, which the median is not.
ON_LINEAR: dict[str, Any] = {
    "on_linear": True,
    "loss": "absolute_error",
    "num_boost_round": 60,
    "learning_rate": 0.1,
    "max_depth": 3,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
}


class XGBoostForecastParams(StrategyParams, BoostingParams):
    """Boosting parameters, the strategy and its features."""

    num_boost_round: int = Field(default=80, ge=1)
    max_bin: int = Field(default=64, ge=2)

    @property
    @override
    def learns_levels(self) -> bool:
        """Counts are learnt as they are."""
        return self.is_of_counts


@MODELS.register("xgboost")
class XGBoostForecast(BoostedForecast):
    """Gradient boosting (Chen and Guestrin, XGBoost, KDD 2016); all boosters read the same quantised matrix.

    With quantiles, every booster fits all levels; the answers are sorted, so that they never cross.
    """

    Params = XGBoostForecastParams
    params: XGBoostForecastParams
    is_exact = True

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"num_boost_round": 4, "patience": 2, "max_depth": 2, "subsample": 0.8, "target_lags": [1, 3, 11, 12]}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the boosting parameters."""
        return dict(BOOSTING_SEARCH_SPACE)

    @classmethod
    @override
    def alternatives(cls, params: XGBoostForecastParams, config: ExperimentConfig) -> tuple[dict[str, Any], ...]:
        """Try small trees on a linear model: where a trend goes on, and where samples are few."""
        return cls.on_linear_alternatives(params, config, ON_LINEAR)

    def _objective(self, labels: Float32) -> dict[str, Any]:
        if self.spec.quantiles:
            return {"objective": "reg:quantileerror", "quantile_alpha": list(self.spec.quantiles)}
        # Changes start from none, and counts from their mean.
        return {"base_score": 0.0, **self.params.objective(labels)}

    @property
    def boosters_(self) -> list[xgboost.Booster]:
        """The fitted boosters, target by target, step by step."""
        return self.parts_

    def workspaces(
        self, table: Table, held_out: Table | None, samples: list[WindowSamples], count: int
    ) -> list[Workspace]:
        """Return the quantised matrices that one booster at a time puts its labels on."""
        bins = self.params.max_bin
        made: list[Workspace] = []
        for slot in range(count):
            matrix = quantile_matrix(samples[0].cache, table.features, bins, slot=slot)
            if held_out is None:
                made.append((matrix, None))
            else:
                made.append((matrix, quantile_matrix(samples[1].cache, held_out.features, bins, matrix, slot)))
        return made

    def fit_one(self, workspace: Workspace, task: Task) -> Boosted:
        """Fit one booster."""
        matrix, held_out = workspace
        matrix.set_label(task.labels)
        if held_out is not None:
            held_out.set_label(task.held_out_labels)
        return fit_booster(
            {**self.params.booster_params(task.seed), **self._objective(task.labels)},
            matrix,
            held_out,
            rounds=task.iterations or self.params.num_boost_round,
            patience=None if task.iterations else self.params.patience,
            report=task.report,
        )

    def separate_changes(self, features: Float32) -> Float32:
        """Return the answers of all boosters, asked one by one."""
        if not len(features):
            return np.zeros((0, self.models, max(1, len(self.spec.quantiles))), dtype=np.float32)
        return answers_of(self.boosters_, features).reshape(len(features), self.models, -1)

    def merge(self) -> Callable[[Float32], Float32]:
        """Return the answers of one booster with the trees of all."""
        merged = merge_boosters(self.boosters_)

        def answers(features: Float32) -> Float32:
            return merged.answers(features).reshape(len(features), self.models, -1)

        return answers

    def shares(self, features: Float32) -> Float64:
        """Return the shares of the features in the answers of the boosters."""
        return shares_of_boosters(self.boosters_, features)

    def save(self, folder: Path) -> None:
        """Write the boosters."""
        save_boosters(self.boosters_, folder)

    def restore(self, folder: Path) -> None:
        """Read the boosters."""
        self.parts_ = load_boosters(folder)
        self.merge_when_asked()
