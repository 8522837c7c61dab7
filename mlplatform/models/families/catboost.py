"""Forecasting with CatBoost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from typing_extensions import override

from mlplatform.config import ExperimentConfig, SearchDimension
from mlplatform.datamodule import Float32, Samples, WindowSamples
from mlplatform.models.base import as_float32
from mlplatform.models.explanation import Float64
from mlplatform.models.forecasting import StrategyParams, Table
from mlplatform.models.trees import (
    Boosted,
    BoostedForecast,
    LossParams,
    ObliviousTrees,
    Task,
    fit_catboost,
    fit_counts,
    load_catboost,
    raw_answers,
    regression_loss,
    save_catboost,
    shares_of_catboost,
    unchanging,
)
from mlplatform.plugins import MODELS

# What CatBoost takes of a family's parameters, beside the number of trees.
OWN = {"learning_rate", "depth", "l2_leaf_reg", "random_strength", "rsm", "border_count"}


class CatBoostForecastParams(StrategyParams, LossParams):
    """CatBoost's hyperparameters under their own names; `patience` is the number of trees early stopping waits."""

    iterations: int = Field(default=120, ge=1)
    patience: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    depth: int = Field(default=4, ge=1, le=16)
    l2_leaf_reg: float = Field(default=3.0, ge=0)
    random_strength: float = Field(default=1.0, ge=0)
    rsm: float = Field(default=1.0, gt=0, le=1)
    border_count: int = Field(default=64, ge=1, le=255)

    @property
    @override
    def learns_levels(self) -> bool:
        """Counts are learnt as they are."""
        return self.is_of_counts


@MODELS.register("catboost")
class CatBoostForecast(BoostedForecast):
    """Boosting of oblivious trees (Prokhorenkova et al., CatBoost, NeurIPS 2018), one thread per model.

    With quantiles, every model fits all levels; the answers are sorted, so that they never cross.
    """

    Params = CatBoostForecastParams
    params: CatBoostForecastParams
    is_exact = True
    # Beyond it the memory of a walk through all trees at once leaves the caches.
    most_merged_rows = 128

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"iterations": 4, "patience": 2, "depth": 2, "target_lags": [1, 3, 11, 12]}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the learning rate, the depth, the share of features per level and the two regularisers."""
        return {
            "learning_rate": SearchDimension(type="float", low=0.03, high=0.3, log=True),
            "depth": SearchDimension(type="int", low=2, high=6),
            "l2_leaf_reg": SearchDimension(type="float", low=0.5, high=30.0, log=True),
            "random_strength": SearchDimension(type="float", low=0.1, high=10.0, log=True),
            "rsm": SearchDimension(type="float", low=0.3, high=1.0),
        }

    @classmethod
    @override
    def alternatives(cls, params: CatBoostForecastParams, config: ExperimentConfig) -> tuple[dict[str, Any], ...]:
        """Try it on a linear model: where a trend goes on, and where samples are few."""
        return cls.on_linear_alternatives(params, config, {"on_linear": True})

    @override
    def refusals(self, train: Samples | None, validation: Samples | None = None) -> Iterator[str]:
        """Yield what keeps the model from being fitted."""
        yield from super().refusals(train, validation)
        if isinstance(train, WindowSamples):
            yield from unchanging(self.table(train).features, train.channels)

    @override
    def workspaces(
        self, table: Table, held_out: Table | None, samples: list[WindowSamples], count: int
    ) -> list[tuple[Float32, Float32 | None]]:
        """Return the features: CatBoost copies them for every model."""
        return [(table.features, None if held_out is None else held_out.features)] * count

    def fit_one(self, workspace: tuple[Float32, Float32 | None], task: Task) -> Boosted:
        """Fit one model."""
        features, held_out_features = workspace
        held_out = None
        if held_out_features is not None and task.held_out_labels is not None:
            held_out = held_out_features, task.held_out_labels
        # Rows are drawn by their gradients, of which a constant target has none.
        sampling = {} if np.ptp(task.labels) else {"bootstrap_type": "No"}
        settings = {
            **self.params.model_dump(include=OWN),
            **sampling,
            **regression_loss(self.spec.quantiles, self.params),
        }
        fit = fit_counts if self.params.is_of_counts else fit_catboost
        return fit(
            {**settings, "random_seed": task.seed},
            (features, task.labels),
            held_out,
            iterations=task.iterations or self.params.iterations,
            patience=None if task.iterations else self.params.patience,
            report=task.report,
        )

    def separate_changes(self, features: Float32) -> Float32:
        """Return the answers of all models, asked one by one."""
        # CatBoost refuses a table without rows.
        if not len(features):
            return np.zeros((0, self.models, max(1, len(self.spec.quantiles))), dtype=np.float32)
        return self._answers(raw_answers(self.parts_, features))

    def merge(self) -> Callable[[Float32], Float32]:
        """Return the answers of the trees of all models as arrays."""
        trees = ObliviousTrees.of(self.parts_)

        def answers(features: Float32) -> Float32:
            return self._answers(trees.answers(features))

        return answers

    def _answers(self, raw: Float64) -> Float32:
        return as_float32(np.exp(raw) if self.params.is_of_counts else raw)

    def shares(self, features: Float32) -> Float64:
        """Return the shares of the features in the answers of the models."""
        return shares_of_catboost(self.parts_, features)

    def save(self, folder: Path) -> None:
        """Write one file per model, in CatBoost's binary format."""
        for position, model in enumerate(self.parts_):
            save_catboost(model, folder / f"{position:04d}.cbm")

    def restore(self, folder: Path) -> None:
        """Read the models."""
        self.parts_ = [load_catboost(path) for path in sorted(folder.glob("*.cbm"))]
        self.merge_when_asked()
