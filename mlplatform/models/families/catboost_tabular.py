"""CatBoost for tabular regression and classification."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32, Samples, TabularSamples
from mlplatform.models.base import FitOptions, as_float32
from mlplatform.models.explanation import Float64
from mlplatform.models.trees import (
    Boosted,
    BoostedTabular,
    LossParams,
    fit_catboost,
    fit_counts,
    load_catboost,
    regression_loss,
    save_catboost,
    shares_of_catboost,
    unchanging,
)
from mlplatform.plugins import MODELS

MODEL_FILE = "model.cbm"


class CatBoostTabularParams(LossParams):
    """CatBoost's hyperparameters under their own names; `patience` is the number of trees early stopping waits."""

    iterations: int = Field(default=1500, ge=1)
    patience: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=0.05, gt=0, le=1)
    depth: int = Field(default=3, ge=1, le=16)
    l2_leaf_reg: float = Field(default=3.0, ge=0)
    random_strength: float = Field(default=3.0, ge=0)
    subsample: float = Field(default=0.5, gt=0, le=1)
    rsm: float = Field(default=0.5, gt=0, le=1)

    def booster_params(self) -> dict[str, Any]:
        """Return what CatBoost takes, without the loss and the number of trees."""
        own = self.model_dump(exclude={"iterations", "patience", *LossParams.model_fields})
        # Bernoulli sampling draws the share it is given; CatBoost's default scheme weights rows by their gradients.
        return {**own, "bootstrap_type": "Bernoulli"}


@MODELS.register("catboost_tabular")
class CatBoostTabular(BoostedTabular):
    """Boosting of oblivious trees (Prokhorenkova et al., CatBoost, NeurIPS 2018), on one thread."""

    Params = CatBoostTabularParams
    params: CatBoostTabularParams
    is_exact = True

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"iterations": 6, "patience": 2, "depth": 2}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search from single splits, which small noisy tables want, to deep trees, and all regularisers.

        The learning rate stays as configured: early stopping finds the number of trees that goes with it, and the loss
        of a fast, uneven fit at its best tree flatters it.
        """
        return {
            "depth": SearchDimension(type="int", low=1, high=6),
            "l2_leaf_reg": SearchDimension(type="float", low=0.5, high=30.0, log=True),
            "random_strength": SearchDimension(type="float", low=0.3, high=30.0, log=True),
            "subsample": SearchDimension(type="float", low=0.3, high=1.0),
            "rsm": SearchDimension(type="float", low=0.2, high=1.0),
        }

    @override
    def refusals(self, train: Samples | None, validation: Samples | None = None) -> Iterator[str]:
        """Yield what keeps the model from being fitted."""
        yield from super().refusals(train, validation)
        if isinstance(train, TabularSamples):
            yield from unchanging(train.values, train.channels)

    def _loss(self) -> dict[str, Any]:
        if self.spec.task == "classification":
            if self.spec.classes == 2:
                return {"loss_function": "Logloss"}
            return {"loss_function": "MultiClass", "classes_count": self.spec.classes}
        return regression_loss(self.spec.quantiles, self.params)

    def boost(self, train: TabularSamples, validation: TabularSamples | None, options: FitOptions) -> Boosted:
        """Fit one model."""
        fit = fit_counts if self.params.is_of_counts else fit_catboost
        return fit(
            {**self.params.booster_params(), **self._loss(), "random_seed": options.seed},
            (train.values, train.labels),
            None if validation is None else (validation.values, validation.labels),
            iterations=options.iterations[0] if options.iterations else self.params.iterations,
            patience=None if options.iterations else self.params.patience,
            report=options.on_progress,
        )

    def answers(self, samples: TabularSamples) -> Float32:
        """Return the model's answers."""
        kind = "Probability" if self.spec.task == "classification" else "RawFormulaVal"
        answer = self.booster_.predict(samples.values, prediction_type=kind, thread_count=1)
        values = as_float32(np.exp(answer) if self.params.is_of_counts else answer)
        return values.reshape(len(samples), -1)

    def shares(self, features: Float32) -> Float64:
        """Return the shares of the features in the answers of the model."""
        return shares_of_catboost([self.booster_], features)

    def save(self, folder: Path) -> None:
        """Write the model in CatBoost's binary format."""
        save_catboost(self.booster_, folder / MODEL_FILE)

    def restore(self, folder: Path) -> None:
        """Read the model."""
        self.booster_ = load_catboost(folder / MODEL_FILE)
