"""CatBoost for tabular regression and classification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples, TabularSamples
from mlplatform.models.base import (
    DEFAULT_OPTIONS,
    DirectFitModel,
    FitOptions,
    FitResult,
    ModelParams,
    as_float32,
)
from mlplatform.models.catboosting import fit_catboost, load_catboost, regression_loss, save_catboost
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import catboost

MODEL_FILE = "model.cbm"


class CatBoostTabularParams(ModelParams):
    """CatBoost's hyperparameters under their own names; `patience` is the number of trees early stopping waits."""

    iterations: int = Field(default=800, ge=1)
    patience: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=0.05, gt=0, le=1)
    depth: int = Field(default=3, ge=1, le=16)
    l2_leaf_reg: float = Field(default=3.0, ge=0)
    random_strength: float = Field(default=1.0, ge=0)
    subsample: float = Field(default=0.6, gt=0, le=1)
    rsm: float = Field(default=0.5, gt=0, le=1)

    def booster_params(self) -> dict[str, Any]:
        """Return what CatBoost takes, without the loss and the number of trees."""
        own = self.model_dump(exclude={"iterations", "patience"})
        # Bernoulli sampling draws the share it is given; CatBoost's default scheme weights rows by their gradients.
        return {**own, "bootstrap_type": "Bernoulli"}


@MODELS.register("catboost_tabular")
class CatBoostTabular(DirectFitModel):
    """Boosting of oblivious trees (Prokhorenkova et al., CatBoost, NeurIPS 2018), on one thread.

    Missing values are read as they are. With quantiles, one model fits all levels; its answers are sorted, so that
    they never cross.
    """

    tasks = frozenset({"regression", "classification"})
    Params = CatBoostTabularParams
    has_quantiles = True
    reads_missing = True
    params: CatBoostTabularParams

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search from single splits, which small noisy tables want, to deep trees, and all regularisers."""
        del task
        return {
            "learning_rate": SearchDimension(type="float", low=0.03, high=0.3, log=True),
            "depth": SearchDimension(type="int", low=1, high=6),
            "l2_leaf_reg": SearchDimension(type="float", low=0.5, high=30.0, log=True),
            "random_strength": SearchDimension(type="float", low=0.1, high=10.0, log=True),
            "subsample": SearchDimension(type="float", low=0.4, high=1.0),
            "rsm": SearchDimension(type="float", low=0.2, high=1.0),
        }

    def _loss(self) -> dict[str, Any]:
        if self.spec.task == "classification":
            if self.spec.classes == 2:
                return {"loss_function": "Logloss"}
            return {"loss_function": "MultiClass", "classes_count": self.spec.classes}
        return regression_loss(self.spec.quantiles)

    def fit(
        self,
        train: Samples,
        validation: Samples | None,
        options: FitOptions = DEFAULT_OPTIONS,
    ) -> FitResult:
        """Fit one model, cut to its best number of trees unless `options.iterations` fixes it."""
        assert isinstance(train, TabularSamples)
        assert validation is None or isinstance(validation, TabularSamples)
        fitted = fit_catboost(
            {**self.params.booster_params(), **self._loss(), "random_seed": options.seed},
            (train.values, train.labels),
            None if validation is None else (validation.values, validation.labels),
            iterations=options.iterations[0] if options.iterations else self.params.iterations,
            patience=None if options.iterations else self.params.patience,
            report=options.on_progress,
        )
        self.model_: catboost.CatBoost = fitted.model
        return FitResult((fitted.iterations,), fitted.history)

    def predict(self, samples: Samples) -> Float32:
        """Return values, or probabilities."""
        if self.spec.quantiles:
            return as_float32(self.predict_quantiles(samples)[..., self.spec.quantile_position(0.5)])
        assert isinstance(samples, TabularSamples)
        if self.spec.task == "regression":
            return as_float32(self._raw(samples, "RawFormulaVal", ()))
        return as_float32(self._raw(samples, "Probability", (self.spec.classes,)))

    def predict_quantiles(self, samples: Samples) -> Float32:
        """Return the sorted quantiles, of shape (samples, quantiles)."""
        if not self.spec.quantiles:
            return super().predict_quantiles(samples)
        assert isinstance(samples, TabularSamples)
        return as_float32(np.sort(self._raw(samples, "RawFormulaVal", (len(self.spec.quantiles),)), axis=1))

    def _raw(self, samples: TabularSamples, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        # CatBoost refuses a table without rows.
        if len(samples) == 0:
            return np.zeros((0, *shape), dtype=np.float32)
        answer = self.model_.predict(samples.values, prediction_type=kind, thread_count=1)
        return np.asarray(answer).reshape(len(samples), *shape)

    def save(self, folder: Path) -> None:
        """Write the model in CatBoost's binary format."""
        save_catboost(self.model_, folder / MODEL_FILE)

    def restore(self, folder: Path) -> None:
        """Read the model."""
        self.model_ = load_catboost(folder / MODEL_FILE)
