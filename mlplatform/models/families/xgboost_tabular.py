"""XGBoost for tabular regression and classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32, TabularSamples
from mlplatform.models.base import FitOptions
from mlplatform.models.explanation import Float64
from mlplatform.models.trees import (
    Boosted,
    BoostedTabular,
    BoostingParams,
    fit_booster,
    load_boosters,
    quantile_matrix,
    save_boosters,
    shares_of_boosters,
)
from mlplatform.plugins import MODELS


class XGBoostTabularParams(BoostingParams):
    """Boosting parameters for tables, which are often small and noisy: many shallow trees, each on half of the data.

    Every round adds the mean of `num_parallel_tree` trees, each with a sample of rows and columns of its own.
    """

    num_boost_round: int = Field(default=1500, ge=1)
    patience: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=0.05, gt=0, le=1)
    max_depth: int = Field(default=2, ge=1, le=16)
    subsample: float = Field(default=0.5, gt=0, le=1)
    colsample_bytree: float = Field(default=0.5, gt=0, le=1)
    num_parallel_tree: int = Field(default=1, ge=1)

    def booster_params(self, seed: int) -> dict[str, Any]:
        """Return what `xgboost.train` takes, without the objective."""
        return {**super().booster_params(seed), "num_parallel_tree": self.num_parallel_tree}


@MODELS.register("xgboost_tabular")
class XGBoostTabular(BoostedTabular):
    """Gradient boosting (Chen and Guestrin, XGBoost, KDD 2016)."""

    Params = XGBoostTabularParams
    params: XGBoostTabularParams
    is_exact = True

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"num_boost_round": 6, "patience": 2, "max_depth": 2, "subsample": 0.8}

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search from single splits on small samples, which small noisy tables want, to deep trees.

        The learning rate stays as configured: early stopping finds the number of rounds that goes with it, and the loss
        of a fast, uneven fit at its best round flatters it.
        """
        # The weight of a row is 1 in a regression and p(1 - p) in a classification, which nears 0 as the model gets
        # sure: a bound of a few rows would end the fit there.
        lightest, heaviest = (0.01, 10.0) if task == "classification" else (1.0, 30.0)
        return {
            "max_depth": SearchDimension(type="int", low=1, high=6),
            "min_child_weight": SearchDimension(type="float", low=lightest, high=heaviest, log=True),
            "subsample": SearchDimension(type="float", low=0.3, high=1.0),
            "colsample_bytree": SearchDimension(type="float", low=0.2, high=1.0),
            "reg_lambda": SearchDimension(type="float", low=0.1, high=30.0, log=True),
        }

    def _objective(self, labels: Float32) -> dict[str, Any]:
        if self.spec.quantiles:
            return {"objective": "reg:quantileerror", "quantile_alpha": list(self.spec.quantiles)}
        if self.spec.task == "regression":
            return self.params.objective(labels)
        if self.spec.classes == 2:
            return {"objective": "binary:logistic", "eval_metric": "logloss"}
        return {"objective": "multi:softprob", "num_class": self.spec.classes, "eval_metric": "mlogloss"}

    def boost(self, train: TabularSamples, validation: TabularSamples | None, options: FitOptions) -> Boosted:
        """Fit one booster."""
        matrix = quantile_matrix(train.cache, train.values, self.params.max_bin)
        matrix.set_label(train.labels)
        held_out = None
        if validation is not None:
            held_out = quantile_matrix(validation.cache, validation.values, self.params.max_bin, matrix)
            held_out.set_label(validation.labels)
        return fit_booster(
            {**self.params.booster_params(options.seed), **self._objective(train.labels)},
            matrix,
            held_out,
            rounds=options.iterations[0] if options.iterations else self.params.num_boost_round,
            patience=None if options.iterations else self.params.patience,
            report=options.on_progress,
        )

    def answers(self, samples: TabularSamples) -> Float32:
        """Return the booster's answers."""
        raw: Float32 = self.booster_.inplace_predict(samples.values).reshape(len(samples), -1)
        is_binary = self.spec.task == "classification" and self.spec.classes == 2
        return np.hstack([1.0 - raw, raw]) if is_binary else raw

    def shares(self, features: Float32) -> Float64:
        """Return the shares of the features in the answers of the booster."""
        return shares_of_boosters([self.booster_], features)

    def save(self, folder: Path) -> None:
        """Write the booster."""
        save_boosters([self.booster_], folder)

    def restore(self, folder: Path) -> None:
        """Read the booster."""
        (self.booster_,) = load_boosters(folder)
