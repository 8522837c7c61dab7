"""Metrics, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlplatform.plugins import METRICS
from mlplatform.training.metrics import Metric, evaluate

TRUTH = np.array([1, 2, 3, 6], dtype=np.float32)
PREDICTION = np.array([1, 4, 3, 2], dtype=np.float32)
CLASSES = np.array([0, 1, 1, 0], dtype=np.float32)
BINARY = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.7, 0.3]], dtype=np.float32)
THREE = np.array([0, 1, 2], dtype=np.float32)
TERNARY = np.array([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.6, 0.3, 0.1]], dtype=np.float32)

BY_HAND = {
    "mae": (TRUTH, PREDICTION, (0 + 2 + 0 + 4) / 4),
    "mse": (TRUTH, PREDICTION, (0 + 4 + 0 + 16) / 4),
    "rmse": (TRUTH, PREDICTION, math.sqrt(5)),
    "r2": (TRUTH, PREDICTION, 1 - 20 / 14),
    "accuracy": (CLASSES, BINARY, 3 / 4),
    "log_loss": (CLASSES, BINARY, -(math.log(0.9) + math.log(0.6) + math.log(0.2) + math.log(0.7)) / 4),
    # of the four pairs of one sample of either class, only (0.3, 0.2) is in the wrong order
    "roc_auc": (CLASSES, BINARY, 3 / 4),
}


@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_equals_its_value_by_hand(name: str) -> None:
    assert name in BY_HAND, f"add a value computed by hand for metric {name!r} to BY_HAND"
    truth, prediction, expected = BY_HAND[name]
    assert evaluate((name,), truth, prediction)[name] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", METRICS.names())
def test_a_better_answer_has_a_smaller_loss(name: str) -> None:
    metric: Metric = METRICS.get(name)
    truth, prediction, _ = BY_HAND[name]
    perfect = truth if truth.shape == prediction.shape else np.eye(2, dtype=np.float32)[truth.astype(int)]
    assert metric.loss(metric.score(truth, perfect)) < metric.loss(metric.score(truth, prediction))


def test_metrics_average_over_all_values_of_a_forecast() -> None:
    truth, prediction = TRUTH.reshape(2, 2, 1), PREDICTION.reshape(2, 2, 1)
    assert evaluate(("mae", "mse"), truth, prediction) == {"mae": 1.5, "mse": 5.0}


def test_metrics_of_three_classes() -> None:
    scores = evaluate(("accuracy", "log_loss", "roc_auc"), THREE, TERNARY)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["log_loss"] == pytest.approx(-(math.log(0.5) + math.log(0.7) + math.log(0.1)) / 3, rel=1e-6)
    # one against the rest: 1/2 for the first class, 1 for the second, 0 for the third
    assert scores["roc_auc"] == pytest.approx(1 / 2)


def test_an_impossible_class_costs_much_but_not_everything() -> None:
    certain = np.array([[1, 0]], dtype=np.float32)
    assert evaluate(("log_loss",), np.array([1.0], np.float32), certain)["log_loss"] == pytest.approx(-math.log(1e-7))


def test_a_constant_truth_explains_nothing() -> None:
    assert evaluate(("r2",), np.ones(3, np.float32), np.zeros(3, np.float32)) == {"r2": 0.0}


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples to score"):
        evaluate(("mae",), TRUTH[:0], PREDICTION[:0])


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="4 true values cannot be compared with 3 predictions"):
        evaluate(("mae",), TRUTH, PREDICTION[:3])
    with pytest.raises(ValueError, match=r"shape \(4,\) cannot be compared with shape \(4, 1\)"):
        evaluate(("mae",), TRUTH, PREDICTION[:, None])
    with pytest.raises(ValueError, match=r"shape \(2, 2, 1\) cannot be compared with shape \(2, 2, 2\)"):
        evaluate(("mse",), TRUTH.reshape(2, 2, 1), np.zeros((2, 2, 2), np.float32))
