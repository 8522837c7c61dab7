"""XGBoost for tabular regression and classification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples, TabularSamples
from mlplatform.models.base import DirectFitModel, FitResult, Iterations, ProgressCallback, as_float32
from mlplatform.models.boosting import SEARCH_SPACE, BoostingParams, load_boosters, quantile_matrix, save_boosters
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import xgboost


class XGBoostTabularParams(BoostingParams):
    """Boosting parameters, with more rounds and more patience: tabular sets are small."""

    num_boost_round: int = Field(default=400, ge=1)
    patience: int = Field(default=30, ge=1)


@MODELS.register("xgboost_tabular")
class XGBoostTabular(DirectFitModel):
    """Gradient boosting (Chen and Guestrin, XGBoost, KDD 2016). Missing values are read as they are."""

    tasks = frozenset({"regression", "classification"})
    Params = XGBoostTabularParams
    params: XGBoostTabularParams

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the boosting parameters."""
        del task
        return dict(SEARCH_SPACE)

    def _objective(self) -> dict[str, Any]:
        if self.spec.task == "regression":
            return {"objective": "reg:squarederror"}
        if self.spec.classes == 2:
            return {"objective": "binary:logistic", "eval_metric": "logloss"}
        return {"objective": "multi:softprob", "num_class": self.spec.classes, "eval_metric": "mlogloss"}

    def fit(
        self,
        train: Samples,
        validation: Samples | None,
        *,
        iterations: Iterations | None = None,
        seed: int = 0,
        on_progress: ProgressCallback | None = None,
    ) -> FitResult:
        """Fit one booster."""
        import xgboost

        del on_progress
        assert isinstance(train, TabularSamples)
        matrix = quantile_matrix(train.cache, train.values, self.params.max_bin)
        matrix.set_label(train.labels)
        params = {**self.params.booster_params(seed), **self._objective()}
        budget = iterations[0] if iterations else self.params.num_boost_round
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
            early_stopping_rounds=None if iterations else self.params.patience,
            verbose_eval=False,
        )
        (history,) = scores["validation"].values()
        best = budget if iterations else int(np.argmin(history)) + 1
        self.booster_ = booster[:best]
        return FitResult((best,), tuple(history))

    def predict(self, samples: Samples) -> Float32:
        """Return values, or probabilities."""
        assert isinstance(samples, TabularSamples)
        raw = self.booster_.inplace_predict(samples.values)
        if self.spec.task == "classification" and self.spec.classes == 2:
            return as_float32(np.column_stack([1.0 - raw, raw]))
        if self.spec.task == "classification":
            # XGBoost answers no samples with shape (0,).
            return as_float32(raw.reshape(len(samples), self.spec.classes))
        return as_float32(raw)

    def save(self, folder: Path) -> None:
        """Write the booster."""
        save_boosters([self.booster_], folder)

    def restore(self, folder: Path) -> None:
        """Read the booster."""
        (self.booster_,) = load_boosters(folder)
