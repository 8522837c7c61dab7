"""Answers have the form the OpenAPI page shows, keep every bit of a prediction, and never hold NaN."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pytest

from mlplatform.registry.forecaster import Contract
from mlplatform.registry.pairs import PairInfo
from serving.answers import answer, refuse_missing_numbers, served_predictions, to_json
from serving.backend import Prediction
from serving.errors import ServingError
from serving.schemas import ClassificationAnswer, ForecastAnswer, RegressionAnswer

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def prediction(contract: Contract, entity_ids: np.ndarray, outputs: np.ndarray) -> Prediction:
    pair = PairInfo(
        name="e",
        version=3,
        pair_id="p3",
        run_id="r",
        contract=contract,
        preprocessor_digest="",
        model_digest="",
        created_at=NOW,
        tags={},
    )
    origins = np.full(len(outputs), np.datetime64("2026-03-01T11:30", "ns"))
    return Prediction(pair, entity_ids, origins, outputs)


def forecast(entities: int = 2, horizon: int = 3) -> Prediction:
    contract = Contract(
        experiment="e",
        task="forecast",
        dataset="d",
        columns=("load", "oil"),
        targets=("oil", "load"),
        lookback=4,
        horizon=horizon,
        step_seconds=900,
    )
    outputs = np.random.default_rng(0).normal(size=(entities, horizon, 2)).astype(np.float32)
    return prediction(contract, np.arange(entities), outputs)


def test_a_forecast_keeps_every_bit_through_json() -> None:
    made = forecast(entities=50, horizon=24)
    parsed = json.loads(to_json(answer(made, NOW)))
    for target, name in enumerate(("oil", "load")):
        values = np.array([item["values"][name] for item in parsed["forecasts"]]).astype(np.float32)
        assert np.array_equal(values, made.outputs[:, :, target])


def test_a_forecast_answers_its_moments_and_age() -> None:
    parsed = ForecastAnswer.model_validate_json(to_json(answer(forecast(), NOW)))
    item = parsed.forecasts[1]
    assert (parsed.model, parsed.version, parsed.pair_id) == ("e", 3, "p3")
    assert (item.entity, item.age_seconds) == (1, 1800.0)
    assert item.window_end == dt.datetime(2026, 3, 1, 11, 30, tzinfo=dt.UTC)
    assert item.timestamps == [NOW - dt.timedelta(minutes=15), NOW, NOW + dt.timedelta(minutes=15)]


def test_regression_and_classification_answers_have_the_documented_form() -> None:
    columns = ("a",)
    value = Contract(experiment="e", task="regression", dataset="d", columns=columns, targets=("y",))
    made = prediction(value, np.array(["x", "y"], dtype=object), np.array([1.5, 2.5], np.float32))
    regression = RegressionAnswer.model_validate_json(to_json(answer(made, NOW)))
    assert [(item.entity, item.value) for item in regression.predictions] == [("x", 1.5), ("y", 2.5)]

    label = Contract(
        experiment="e", task="classification", dataset="d", columns=columns, targets=("y",), classes=("no", "yes")
    )
    made = prediction(label, np.array([7, 8]), np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))
    classification = ClassificationAnswer.model_validate_json(to_json(answer(made, NOW)))
    assert [item.label for item in classification.predictions] == ["yes", "no"]
    assert classification.predictions[0].probabilities == {"no": 0.25, "yes": 0.75}
    entry = served_predictions(made, "r1", NOW)
    assert (entry.labels, entry.values.tolist(), entry.steps.tolist()) == (["yes", "no"], [[[0.75]], [[0.5]]], [0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_is_refused_by_entity(bad: float) -> None:
    made = forecast(entities=3)
    made.outputs[1, 2, 0] = bad
    with pytest.raises(ServingError, match=r"answered NaN or infinity for 1 of 3 entities \(1\)") as caught:
        refuse_missing_numbers(made)
    assert (caught.value.status, caught.value.code) == (500, "prediction_not_finite")
    assert [detail.found for detail in caught.value.details] == ["NaN or infinity for 1"]


def test_finite_predictions_pass() -> None:
    refuse_missing_numbers(forecast())
