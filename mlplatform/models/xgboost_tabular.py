"""XGBoost for tabular regression and classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import TabularSamples
from mlplatform.models.base import FitOptions
from mlplatform.models.boosted import Boosted
from mlplatform.models.boosted_tabular import BoostedTabular
from mlplatform.models.boosting import (
    SEARCH_SPACE,
    BoostingParams,
    fit_booster,
    load_boosters,
    quantile_matrix,
    save_boosters,
)
from mlplatform.plugins import MODELS


class XGBoostTabularParams(BoostingParams):
    """Boosting parameters for tables, which are often small and noisy: shallow trees on parts of the data."""

    num_boost_round: int = Field(default=600, ge=1)
    patience: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=0.05, gt=0, le=1)
    max_depth: int = Field(default=3, ge=1, le=16)
    min_child_weight: float = Field(default=3.0, ge=0)
    subsample: float = Field(default=0.6, gt=0, le=1)
    colsample_bytree: float = Field(default=0.5, gt=0, le=1)
    reg_lambda: float = Field(default=5.0, ge=0)


@MODELS.register("xgboost_tabular")
class XGBoostTabular(BoostedTabular):
    """Gradient boosting (Chen and Guestrin, XGBoost, KDD 2016)."""

    Params = XGBoostTabularParams
    params: XGBoostTabularParams

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the boosting parameters, down to the single splits and small samples that small noisy tables want."""
        del task
        return {
            **SEARCH_SPACE,
            "learning_rate": SearchDimension(type="float", low=0.03, high=0.3, log=True),
            "max_depth": SearchDimension(type="int", low=1, high=6),
            "subsample": SearchDimension(type="float", low=0.4, high=1.0),
        }

    def _objective(self) -> dict[str, Any]:
        if self.spec.quantiles:
            return {"objective": "reg:quantileerror", "quantile_alpha": list(self.spec.quantiles)}
        if self.spec.task == "regression":
            return {"objective": "reg:squarederror"}
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
            {**self.params.booster_params(options.seed), **self._objective()},
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

    def save(self, folder: Path) -> None:
        """Write the booster."""
        save_boosters([self.booster_], folder)

    def restore(self, folder: Path) -> None:
        """Read the booster."""
        (self.booster_,) = load_boosters(folder)
