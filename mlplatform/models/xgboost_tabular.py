"""XGBoost for tabular regression and classification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples, TabularSamples
from mlplatform.models.base import DEFAULT_OPTIONS, DirectFitModel, FitOptions, FitResult, as_float32
from mlplatform.models.boosting import (
    SEARCH_SPACE,
    BoostingParams,
    load_boosters,
    progress_callbacks,
    quantile_matrix,
    save_boosters,
)
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import xgboost


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
class XGBoostTabular(DirectFitModel):
    """Gradient boosting (Chen and Guestrin, XGBoost, KDD 2016). Missing values are read as they are.

    With quantiles, one booster fits all levels; its answers are sorted, so that they never cross.
    """

    tasks = frozenset({"regression", "classification"})
    Params = XGBoostTabularParams
    has_quantiles = True
    reads_missing = True
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

    def fit(
        self,
        train: Samples,
        validation: Samples | None,
        options: FitOptions = DEFAULT_OPTIONS,
    ) -> FitResult:
        """Fit one booster."""
        import xgboost

        assert isinstance(train, TabularSamples)
        matrix = quantile_matrix(train.cache, train.values, self.params.max_bin)
        matrix.set_label(train.labels)
        params = {**self.params.booster_params(options.seed), **self._objective()}
        budget = options.iterations[0] if options.iterations else self.params.num_boost_round
        if validation is None:
            self.booster_: xgboost.Booster = xgboost.train(params, matrix, budget)
            return FitResult((budget,))
        assert isinstance(validation, TabularSamples)
        held_out = quantile_matrix(validation.cache, validation.values, self.params.max_bin, matrix)
        held_out.set_label(validation.labels)
        scores: dict[str, dict[str, list[float]]] = {}
        booster = xgboost.train(
            params,
            matrix,
            budget,
            evals=[(held_out, "validation")],
            evals_result=scores,
            early_stopping_rounds=None if options.iterations else self.params.patience,
            verbose_eval=False,
            callbacks=progress_callbacks(options.on_progress),
        )
        (history,) = scores["validation"].values()
        best = budget if options.iterations else int(np.argmin(history)) + 1
        self.booster_ = booster[:best]
        return FitResult((best,), tuple(history))

    def predict(self, samples: Samples) -> Float32:
        """Return values, or probabilities."""
        if self.spec.quantiles:
            return as_float32(self.predict_quantiles(samples)[..., self.spec.quantile_position(0.5)])
        assert isinstance(samples, TabularSamples)
        raw = self.booster_.inplace_predict(samples.values)
        if self.spec.task == "classification" and self.spec.classes == 2:
            return as_float32(np.column_stack([1.0 - raw, raw]))
        if self.spec.task == "classification":
            # XGBoost answers no samples with shape (0,).
            return as_float32(raw.reshape(len(samples), self.spec.classes))
        return as_float32(raw)

    def predict_quantiles(self, samples: Samples) -> Float32:
        """Return the sorted quantiles, of shape (samples, quantiles)."""
        if not self.spec.quantiles:
            return super().predict_quantiles(samples)
        assert isinstance(samples, TabularSamples)
        raw = self.booster_.inplace_predict(samples.values)
        return as_float32(np.sort(raw.reshape(len(samples), len(self.spec.quantiles)), axis=1))

    def save(self, folder: Path) -> None:
        """Write the booster."""
        save_boosters([self.booster_], folder)

    def restore(self, folder: Path) -> None:
        """Read the booster."""
        (self.booster_,) = load_boosters(folder)
