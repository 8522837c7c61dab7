"""Metrics, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlplatform.datamodule.panel import Panel
from mlplatform.models import Bounds
from mlplatform.plugins import METRICS
from mlplatform.training.metrics import evaluate
from mlplatform.training.per_series import Scale, SeriesScales, series_mean

TRUTH = np.array([1, 2, 3, 6], dtype=np.float32)
PREDICTION = np.array([1, 4, 3, 2], dtype=np.float32)
CLASSES = np.array([0, 1, 1, 0], dtype=np.float32)
BINARY = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.7, 0.3]], dtype=np.float32)
THREE = np.array([0, 1, 2], dtype=np.float32)
TERNARY = np.array([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.6, 0.3, 0.1]], dtype=np.float32)

# One of the four intervals misses its truth; the others are 2 wide.
BOUNDS = Bounds(PREDICTION - 1, np.array([2, 5, 4, 3], np.float32), 0.8)
# Of the quantiles 0.1, 0.5 and 0.9, per sample: lower bound, median and upper bound.
PINBALLS = [0.1 * 1 + 0 + 0.1 * 1, 0.9 * 1 + 0.5 * 2 + 0.1 * 3, 0.1 * 1 + 0 + 0.1 * 1, 0.1 * 5 + 0.5 * 4 + 0.9 * 3]

SCALE = Scale(np.array([3.0]), np.array([4.0]))

BY_HAND = {
    "mae": (TRUTH, PREDICTION, (0 + 2 + 0 + 4) / 4),
    "mse": (TRUTH, PREDICTION, (0 + 4 + 0 + 16) / 4),
    "rmse": (TRUTH, PREDICTION, math.sqrt(5)),
    "r2": (TRUTH, PREDICTION, 1 - 20 / 14),
    "rmsle": (TRUTH, PREDICTION, math.sqrt((math.log(3 / 5) ** 2 + math.log(7 / 3) ** 2) / 4)),
    "smape": (TRUTH, PREDICTION, 200 * (2 / 6 + 4 / 8) / 4),
    "mase": (TRUTH, PREDICTION, 1.5 / 3),
    # of every forecast, here of one value each
    "rmsse": (TRUTH, PREDICTION, 1.5 / 4),
    "pinball": (TRUTH, PREDICTION, sum(PINBALLS) / 12),
    "coverage": (TRUTH, PREDICTION, 2 / 4),
    "interval_width": (TRUTH, PREDICTION, 2),
    # a fifth may miss: two truths are missed, by 1 and by 3
    "interval_score": (TRUTH, PREDICTION, 2 + 2 / 0.2 * (1 + 3) / 4),
    # class 0: one of its two samples found, nothing else named so; class 1 the same, with one wrong: 2/3 and 1/2
    "f1": (CLASSES, BINARY, (2 * 2 / 5 + 2 * 1 / 3) / 2),
    "accuracy": (CLASSES, BINARY, 3 / 4),
    "log_loss": (CLASSES, BINARY, -(math.log(0.9) + math.log(0.6) + math.log(0.2) + math.log(0.7)) / 4),
    # of the four pairs of one sample of either class, only (0.3, 0.2) is in the wrong order
    "roc_auc": (CLASSES, BINARY, 3 / 4),
}


@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_equals_its_value_by_hand(name: str) -> None:
    assert name in BY_HAND, f"add a value computed by hand for metric {name!r} to BY_HAND"
    truth, prediction, expected = BY_HAND[name]
    scores = evaluate((name,), truth, prediction, BOUNDS, SCALE)
    assert scores[name] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", [name for name, metric in METRICS if metric.decides])
def test_a_better_answer_has_a_smaller_loss(name: str) -> None:
    metric = METRICS.get(name)
    truth, prediction, _ = BY_HAND[name]
    perfect = truth if truth.shape == prediction.shape else np.eye(2, dtype=np.float32)[truth.astype(int)]
    narrow = Bounds(perfect, perfect, 0.8)
    better, worse = (
        evaluate((name,), truth, answer, bounds, SCALE)[name]
        for answer, bounds in ((perfect, narrow), (prediction, BOUNDS))
    )
    assert metric.loss(better) < metric.loss(worse)


def test_metrics_of_what_is_not_there_are_left_out() -> None:
    assert evaluate(("mae", "pinball", "coverage", "mase"), TRUTH, PREDICTION) == {"mae": 1.5}


def test_intervals_of_further_coverages_have_scores_of_their_own() -> None:
    wide = Bounds(PREDICTION - 9, PREDICTION + 9, 0.995)
    scores = evaluate(("mae", "coverage", "interval_score"), TRUTH, PREDICTION, BOUNDS, others=(wide,))
    assert scores == {
        "mae": 1.5,
        "coverage": 0.5,
        "interval_score": pytest.approx(12),
        "coverage_99.5": 1.0,
        "interval_score_99.5": pytest.approx(18),
    }


def test_relative_errors_of_negative_values_are_refused() -> None:
    with pytest.raises(ValueError, match="rmsle needs true values of at least 0, but the least is -1; use rmse"):
        evaluate(("rmsle",), -TRUTH[:1], PREDICTION[:1])


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


def panel_of(**series: list[float]) -> Panel:
    lengths = [len(values) for values in series.values()]
    return Panel(
        columns={"y": np.concatenate(list(series.values())).astype(np.float32)},
        timestamps=np.concatenate([np.datetime64("2024-01-01", "ns") + np.arange(n) for n in lengths]),
        entity_ids=np.array(list(series), dtype=object),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
    )


def test_every_series_is_measured_in_its_own_seasonal_naive_error() -> None:
    # Of season 2: changes of 2 and 4, which are 3 in the mean and 10 squared; of 200 and 400; of none.
    panel = panel_of(small=[0, 5, 2, 9], large=[0, 500, 200, 900], still=[7, 7, 7, 7], short=[1])
    scale = SeriesScales.of(panel, ("y",), 2).at(np.array(["large", "small", "new", "still", "short"], dtype=object))
    np.testing.assert_allclose(scale.absolute[:, 0], [300, 3, 303 / 2, 0, 0])
    np.testing.assert_allclose(scale.root[:2, 0], [np.sqrt(1e5), np.sqrt(10)])


def test_missing_values_are_left_out_of_a_scale() -> None:
    scales = SeriesScales.of(panel_of(holed=[1, float("nan"), 4, 6]), ("y",), 1)
    np.testing.assert_allclose(scales.absolute, [[2.0]])


def test_series_count_alike_however_many_forecasts_they_have() -> None:
    truth = np.array([10, 10, 10, 1000], np.float32).reshape(4, 1, 1)
    guess = np.array([11, 12, 13, 1300], np.float32).reshape(4, 1, 1)
    entities = np.array(["a", "a", "a", "b"], dtype=object)
    scale = Scale(np.array([[2.0], [2], [2], [100]]), np.array([[4.0], [4], [4], [200]]))
    scores = evaluate(("mase", "rmsse", "smape", "mae"), truth, guess, None, scale, entities)
    assert scores["mase"] == pytest.approx((1 + 3) / 2)
    assert scores["rmsse"] == pytest.approx((0.5 + 1.5) / 2)
    of_a = np.mean([200 * 1 / 21, 200 * 2 / 22, 200 * 3 / 23])
    assert scores["smape"] == pytest.approx((of_a + 200 * 300 / 2300) / 2)
    assert scores["mae"] == pytest.approx(306 / 4)


def test_a_root_is_taken_of_every_forecast() -> None:
    truth, guess = np.zeros((1, 2, 1), np.float32), np.array([3, 4], np.float32).reshape(1, 2, 1)
    assert evaluate(("rmsse",), truth, guess, None, SCALE)["rmsse"] == pytest.approx(np.sqrt(25 / 2) / 4)


def test_a_series_that_cannot_be_scaled_is_left_out_and_no_other() -> None:
    truth, guess = np.zeros((3, 1, 1), np.float32), np.array([1, 2, 4], np.float32).reshape(3, 1, 1)
    scale = Scale(np.array([[0.0], [2], [2]]), np.zeros((3, 1)))
    entities = np.array([1, 2, 2])
    assert evaluate(("mase",), truth, guess, None, scale, entities)["mase"] == pytest.approx(1.5)
    losses = METRICS.get("mase").losses(truth, guess, entities, scale=scale)
    np.testing.assert_allclose(losses, [0, 1.5, 3])
    assert np.isnan(series_mean(np.full(3, np.nan), entities))
