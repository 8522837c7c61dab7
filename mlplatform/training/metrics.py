"""Metrics: one decorated function each, found by name through `plugins.METRICS`.

Every metric takes the truth and the prediction in the same units and shape and averages over all values. Metrics are
reported in original units; a metric computed in preprocessed space is named with the suffix `_scaled`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.plugins import METRICS

Values = npt.NDArray[np.float32]
CONTINUOUS = frozenset({"forecast", "regression"})
CLASSES = frozenset({"classification"})


@dataclass(frozen=True)
class Metric:
    """A score and which way is better.

    Attributes:
        score: maps (truth, prediction) to a number. Classification: truth of shape (n,) holds class indices and the
            prediction of shape (n, classes) holds probabilities.
        tasks: what it can be used for.
        greater_is_better: direction.
    """

    score: Callable[[Values, Values], float]
    tasks: frozenset[str]
    greater_is_better: bool = False

    def loss(self, value: float) -> float:
        """Return the value with its sign turned so that smaller is better."""
        return -value if self.greater_is_better else value


def _metric(
    name: str, tasks: frozenset[str], *, greater_is_better: bool = False
) -> Callable[[Callable[[Values, Values], float]], Callable[[Values, Values], float]]:
    def add(score: Callable[[Values, Values], float]) -> Callable[[Values, Values], float]:
        METRICS.register(name)(Metric(score, tasks, greater_is_better))
        return score

    return add


@_metric("mae", CONTINUOUS)
def mean_absolute_error(truth: Values, prediction: Values) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(truth - prediction), dtype=np.float64))


@_metric("mse", CONTINUOUS)
def mean_squared_error(truth: Values, prediction: Values) -> float:
    """Mean squared error."""
    return float(np.mean(np.square(truth - prediction), dtype=np.float64))


@_metric("rmse", CONTINUOUS)
def root_mean_squared_error(truth: Values, prediction: Values) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(mean_squared_error(truth, prediction)))


@_metric("r2", CONTINUOUS, greater_is_better=True)
def coefficient_of_determination(truth: Values, prediction: Values) -> float:
    """Share of the variance explained; 0 where the truth is constant."""
    variance = float(np.var(truth, dtype=np.float64))
    return 1.0 - mean_squared_error(truth, prediction) / variance if variance > 0 else 0.0


@_metric("accuracy", CLASSES, greater_is_better=True)
def accuracy(truth: Values, prediction: Values) -> float:
    """Share of samples whose most probable class is the true one."""
    return float(np.mean(np.argmax(prediction, axis=1) == truth))


@_metric("log_loss", CLASSES)
def log_loss(truth: Values, prediction: Values) -> float:
    """Mean negative log-probability of the true class, clipped at 1e-7."""
    chosen = prediction[np.arange(len(truth)), truth.astype(np.int64)]
    return float(-np.mean(np.log(np.clip(chosen, 1e-7, 1.0)), dtype=np.float64))


@_metric("roc_auc", CLASSES, greater_is_better=True)
def roc_auc(truth: Values, prediction: Values) -> float:
    """Area under the ROC curve; one-versus-rest average for more than two classes."""
    from sklearn.metrics import roc_auc_score

    if prediction.shape[1] == 2:
        return float(roc_auc_score(truth, prediction[:, 1]))
    return float(roc_auc_score(truth, prediction, multi_class="ovr"))


def evaluate(names: tuple[str, ...], truth: Values, prediction: Values) -> dict[str, float]:
    """Return the named metrics.

    Raises:
        ValueError: if shapes differ where they must agree, or there is nothing to score.
    """
    if not len(truth):
        raise ValueError("there are no samples to score")
    if len(truth) != len(prediction):
        raise ValueError(f"{len(truth)} true values cannot be compared with {len(prediction)} predictions")
    metrics = {name: METRICS.get(name) for name in names}
    if truth.shape != prediction.shape and any(metric.tasks & CONTINUOUS for metric in metrics.values()):
        # Broadcasting would compare every value with every other.
        raise ValueError(f"true values of shape {truth.shape} cannot be compared with shape {prediction.shape}")
    return {name: metric.score(truth, prediction) for name, metric in metrics.items()}
