"""The contract every metric keeps: a number in the right direction, from what it says that it reads."""

from __future__ import annotations

import numpy as np
import pytest

from mlplatform.models import Bounds
from mlplatform.plugins import METRICS
from mlplatform.training.metrics import Metric, Values, evaluate
from mlplatform.training.per_series import Scale

REGISTRY = METRICS
NUMBERS = np.array([1, 2, 3, 6], dtype=np.float32)
GUESSES = np.array([1, 4, 3, 2], dtype=np.float32)
LABELS = np.array([0, 1, 1, 0], dtype=np.float32)
SHARES = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]], dtype=np.float32)
# One of the four intervals misses its truth.
WIDE = Bounds(GUESSES - 1, np.array([2, 5, 4, 3], np.float32), 0.8)
SCALE = Scale(np.array([3.0]), np.array([4.0]))


def truth_and_answers(name: str) -> tuple[Values, Values, Values]:
    """Return the truth, a poor answer and a perfect one, of the kind that the metric scores."""
    if "classification" in METRICS.get(name).tasks:
        return LABELS, SHARES, np.eye(2, dtype=np.float32)[LABELS.astype(int)]
    return NUMBERS, GUESSES, NUMBERS


@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_declares_tasks_and_what_it_reads(name: str) -> None:
    metric = METRICS.get(name)
    assert isinstance(metric, Metric)
    assert metric.tasks
    assert metric.tasks <= {"forecast", "regression", "classification"}
    assert "classification" not in metric.tasks or metric.tasks == {"classification"}, (
        "numbers and probabilities cannot be scored by one metric"
    )
    assert metric.reads in (None, "bounds", "scale")
    assert metric.always <= metric.tasks
    assert metric.mean_of is not None or not metric.by_series


@pytest.mark.parametrize("name", METRICS.names())
def test_a_score_is_one_number_and_leaves_its_input_alone(name: str) -> None:
    truth, poor, _ = truth_and_answers(name)
    before = truth.tobytes(), poor.tobytes()
    scores = [evaluate((name,), truth, poor, WIDE, SCALE)[name] for _ in range(2)]
    assert scores[0] == scores[1]
    assert isinstance(scores[0], float)
    assert np.isfinite(scores[0])
    assert (truth.tobytes(), poor.tobytes()) == before


@pytest.mark.parametrize("name", [name for name, metric in METRICS if metric.by_series])
def test_a_score_by_series_is_averaged_over_forecasts(name: str) -> None:
    truth, poor = (values.reshape(2, 2, 1) for values in (NUMBERS, GUESSES))
    alone = [evaluate((name,), truth[[row]], poor[[row]], None, SCALE)[name] for row in range(2)]
    assert evaluate((name,), truth, poor, None, SCALE)[name] == pytest.approx(np.mean(alone), rel=1e-6)


@pytest.mark.parametrize("name", [name for name, m in METRICS if "forecast" in m.tasks and not m.by_series])
def test_a_forecast_is_averaged_over_all_its_values(name: str) -> None:
    truth, poor, _ = truth_and_answers(name)
    shape = (2, 2, 1)
    bounds = WIDE.map(lambda values: values.reshape(shape))
    score = evaluate((name,), truth.reshape(shape), poor.reshape(shape), bounds, SCALE)[name]
    assert score == pytest.approx(evaluate((name,), truth, poor, WIDE, SCALE)[name], rel=1e-6)


@pytest.mark.parametrize("name", [name for name, metric in METRICS if metric.decides])
def test_a_better_answer_has_a_smaller_loss(name: str) -> None:
    metric = METRICS.get(name)
    truth, poor, perfect = truth_and_answers(name)
    narrow = Bounds(perfect, perfect, 0.8)
    better, worse = (
        evaluate((name,), truth, answer, bounds, SCALE)[name] for answer, bounds in ((perfect, narrow), (poor, WIDE))
    )
    assert metric.loss(better) < metric.loss(worse)
