"""Linear models for tabular data: ridge regression and multinomial logistic regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32, TabularSamples
from mlplatform.models.base import DirectFitModel, FitOptions, FitResult, ModelParams, as_float32
from mlplatform.plugins import MODELS


class LinearParams(ModelParams):
    """`alpha` is the strength of the L2 penalty."""

    alpha: float = Field(default=1.0, gt=0)


@MODELS.register("linear")
class Linear(DirectFitModel[TabularSamples]):
    """scikit-learn's Ridge or LogisticRegression on imputed, scaled features; stored as coefficients."""

    tasks = frozenset({"regression", "classification"})
    Params = LinearParams
    params: LinearParams

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the penalty."""
        return {"alpha": SearchDimension(type="float", low=1e-3, high=1e3, log=True)}

    @override
    def _fit(self, train: TabularSamples, validation: TabularSamples | None, options: FitOptions) -> FitResult:
        """Fit the coefficients."""
        estimator = self._estimator().fit(train.values.astype(np.float64), train.labels)
        coefficients = np.atleast_2d(estimator.coef_)
        intercepts = np.atleast_1d(estimator.intercept_)
        if self.spec.classes == 2:
            # One row of logits for the second class; the first class has logit zero.
            coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
            intercepts = np.concatenate([[0.0], intercepts])
        self.coefficients_, self.intercepts_ = as_float32(coefficients), as_float32(intercepts)
        return FitResult()

    def _estimator(self) -> Any:
        from sklearn.linear_model import LogisticRegression, Ridge

        if self.spec.task == "classification":
            return LogisticRegression(C=1.0 / self.params.alpha, max_iter=2000)
        return Ridge(alpha=self.params.alpha)

    def predict(self, samples: TabularSamples) -> Float32:
        """Return values, or the softmax of the logits."""
        # In double precision, so that the rounding of BLAS, which differs between batches, is not seen in float32.
        scores = samples.values.astype(np.float64) @ self.coefficients_.T.astype(np.float64) + self.intercepts_
        if self.spec.task == "regression":
            return as_float32(scores[:, 0])
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        return as_float32(exponentials / exponentials.sum(axis=1, keepdims=True))

    def save(self, folder: Path) -> None:
        """Write the coefficients."""
        np.save(folder / "coefficients.npy", self.coefficients_, allow_pickle=False)
        np.save(folder / "intercepts.npy", self.intercepts_, allow_pickle=False)

    def restore(self, folder: Path) -> None:
        """Read the coefficients."""
        self.coefficients_ = np.load(folder / "coefficients.npy", allow_pickle=False)
        self.intercepts_ = np.load(folder / "intercepts.npy", allow_pickle=False)
