"""What the boosted tabular families share: one model per fit, its quantiles and its answers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from typing_extensions import override

from mlplatform.datamodule import Float32, TabularSamples
from mlplatform.models.base import FitOptions, FitResult, as_float32
from mlplatform.models.explanation import Contributions, Float64
from mlplatform.models.trees.contributions import table_contributions
from mlplatform.models.trees.counts import LearnsCounts, refuse_explanation
from mlplatform.models.trees.fitted import Boosted


class BoostedTabular(LearnsCounts[TabularSamples]):
    """A family with one booster; missing values are read as they are.

    With quantiles, the booster fits all levels; its answers are sorted, so that they never cross.
    """

    tasks = frozenset({"regression", "classification"})
    has_quantiles = True
    reads_missing = True
    explains = "contributions"

    @abstractmethod
    def boost(self, train: TabularSamples, validation: TabularSamples | None, options: FitOptions) -> Boosted:
        """Fit the booster on one thread; it stops early unless `options.iterations` fixes its number of trees."""

    @abstractmethod
    def answers(self, samples: TabularSamples) -> Float32:
        """Return the booster's answers to at least one sample.

        Returns:
            of shape (samples, outputs): the value or the quantiles, or the probability of every class.
        """

    @abstractmethod
    def shares(self, features: Float32) -> Float64:
        """Return the shares of the columns, and the base behind them, in the booster's raw answers.

        Returns:
            of shape (rows, outputs, features + 1); one output for two classes.
        """

    @override
    def explain(self, samples: TabularSamples) -> Contributions:
        """Return the shares of the columns in the answers."""
        refuse_explanation(self.params)
        return table_contributions(samples, self.spec, self._answers(samples), self.shares)

    def _fit(self, train: TabularSamples, validation: TabularSamples | None, options: FitOptions) -> FitResult:
        """Fit one model, cut to its best number of trees unless `options.iterations` fixes it."""
        boosted = self.boost(train, validation, options)
        self.booster_: Any = boosted.model
        return FitResult((boosted.iterations,), boosted.history)

    def predict(self, samples: TabularSamples) -> Float32:
        """Return values, or probabilities; with quantiles, their median."""
        if self.spec.quantiles:
            return as_float32(self.predict_quantiles(samples)[:, self.spec.quantile_position(0.5)])
        answers = self._answers(samples)
        return answers if self.spec.task == "classification" else answers[:, 0]

    def predict_quantiles(self, samples: TabularSamples) -> Float32:
        """Return the sorted quantiles, of shape (samples, quantiles)."""
        if not self.spec.quantiles:
            return super().predict_quantiles(samples)
        return np.sort(self._answers(samples), axis=1)

    def _answers(self, samples: TabularSamples) -> Float32:
        if not len(samples):
            # The libraries refuse a table without rows, or answer it in another shape.
            return np.zeros((0, max(1, len(self.spec.quantiles), self.spec.classes)), dtype=np.float32)
        return as_float32(self.answers(samples))
