"""Answers have the form the OpenAPI page shows, keep every bit of a prediction, and never hold NaN."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import numpy as np
import pytest

from mlplatform.models import Bounds
from mlplatform.monitoring.prediction_log import log_table
from mlplatform.registry import Mark
from mlplatform.registry.forecaster import Answers, Contract
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
        digests={},
        created_at=NOW,
        tags={},
    )
    origins = np.full(len(outputs), np.datetime64("2026-03-01T11:30", "ns"))
    return Prediction(
        pair=pair,
        entity_ids=entity_ids,
        origins=origins,
        answers=Answers(outputs),
        event_times=origins - np.timedelta64(15, "m"),
        ages=np.full(len(outputs), np.timedelta64(2_700_000_400_000, "ns")),
        is_stale=np.arange(len(outputs)) == 1,
        marks=((),) * len(outputs),
        observed=np.ones(len(outputs)),
        fallback_reasons=(None,) * len(outputs),
    )


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
    parsed = json.loads(to_json(answer(made)))
    for target, name in enumerate(("oil", "load")):
        values = np.array([item["values"][name] for item in parsed["forecasts"]]).astype(np.float32)
        assert np.array_equal(values, made.outputs[:, :, target])


def test_intervals_stand_beside_the_values_they_belong_to() -> None:
    made = forecast(entities=5, horizon=24)
    lower, upper = made.outputs - np.float32(0.1), made.outputs + np.float32(0.3)
    calibrated = replace(made, answers=Answers(made.outputs, lower, upper, 0.8))
    parsed = ForecastAnswer.model_validate_json(to_json(answer(calibrated)))
    for entity, item in enumerate(parsed.forecasts):
        assert item.interval is not None
        assert item.interval.coverage == 0.8
        for target, name in enumerate(("oil", "load")):
            assert np.array_equal(np.float32(item.interval.lower[name]), lower[entity, :, target])
            assert np.array_equal(np.float32(item.interval.upper[name]), upper[entity, :, target])
    without = ForecastAnswer.model_validate_json(to_json(answer(made)))
    assert [item.interval for item in without.forecasts] == [None] * 5

    contract = Contract(experiment="e", task="regression", dataset="d", columns=("a",), targets=("y",))
    value = np.array([1.5, 2.5], np.float32)
    made = replace(prediction(contract, np.array([1, 2]), value), answers=Answers(value, value - 1, value + 2, 0.9))
    first, second = RegressionAnswer.model_validate_json(to_json(answer(made))).predictions
    assert first.interval is not None
    assert (first.interval.coverage, first.interval.lower, first.interval.upper) == (0.9, 0.5, 3.5)
    assert second.interval is not None
    assert (second.interval.lower, second.interval.upper) == (1.5, 4.5)


def test_several_coverages_stand_beside_the_main_interval_the_narrowest_first() -> None:
    made = forecast(entities=3, horizon=2)
    sides = made.outputs - np.float32(2), made.outputs + np.float32(2)
    others = (Bounds(sides[0] - 1, sides[1] + 1, 0.95), Bounds(sides[0] + 1, sides[1] - 1, 0.5))
    made = replace(
        made, answers=Answers(made.outputs, *sides, 0.8, others), fallback_reasons=(None, "too_little_observed", None)
    )
    first, second, _ = ForecastAnswer.model_validate_json(to_json(answer(made))).forecasts
    assert first.interval is not None
    assert first.intervals is not None
    assert first.interval.coverage == 0.8
    assert [each.coverage for each in first.intervals] == [0.5, 0.8, 0.95]
    assert first.intervals[1] == first.interval
    assert np.array_equal(np.float32(first.intervals[2].upper["oil"]), others[0].upper[0, :, 0])
    assert (second.interval, second.intervals) == (None, None)
    rows = log_table("e", [served_predictions(made, "r", NOW), served_predictions(forecast(), "s", NOW)]).to_pandas()
    logged = rows[(rows.request_id == "r") & (rows.entity_id == "2")].iloc[0]
    assert [each["coverage"] for each in logged.intervals] == [0.5, 0.8, 0.95]
    assert logged.intervals[1] == {"coverage": 0.8, "lower": logged.lower, "upper": logged.upper}
    assert logged.intervals[2]["lower"] == others[0].lower[2, 0, 0]
    assert rows[(rows.request_id == "s") | (rows.entity_id == "1")].intervals.isna().all()

    contract = Contract(experiment="e", task="regression", dataset="d", columns=("a",), targets=("y",))
    value = np.array([1.5, 2.5], np.float32)
    answers = Answers(value, value - 1, value + 2, 0.9, (Bounds(value, value + 1, 0.5),))
    made = replace(prediction(contract, np.array([1, 2]), value), answers=answers)
    _, row = RegressionAnswer.model_validate_json(to_json(answer(made))).predictions
    assert row.intervals is not None
    assert [(each.coverage, each.lower, each.upper) for each in row.intervals] == [(0.5, 2.5, 3.5), (0.9, 1.5, 4.5)]
    # One coverage has the form that it always had.
    alone = answer(replace(made, answers=Answers(value, value - 1, value + 2, 0.9)))
    assert "intervals" not in alone["predictions"][0]


def test_the_log_gets_intervals_shares_ages_and_what_fell_back() -> None:
    made = forecast(entities=3, horizon=2)
    lower, upper = made.outputs - np.float32(1), made.outputs + np.float32(2)
    made = replace(
        made,
        answers=Answers(made.outputs, lower, upper, 0.8),
        observed=np.array([1.0, 0.25, 0.5]),
        fallback_reasons=(None, "too_little_observed", None),
        ages=np.array([1_500, "NaT", 0], "timedelta64[ms]").astype("timedelta64[ns]"),
    )
    rows = log_table("e", [served_predictions(made, "r", NOW)]).to_pandas()
    model = [0, 2]
    assert rows.groupby("entity_id").is_fallback.all().tolist() == [False, True, False]
    assert np.array_equal(rows.lower.to_numpy().reshape(3, 2, 2)[model], lower[model])
    assert np.array_equal(rows.upper.to_numpy().reshape(3, 2, 2)[model], upper[model])
    assert rows[rows.entity_id == "1"][["lower", "upper"]].isna().all(axis=None)
    assert rows.groupby("entity_id")["observed"].first().tolist() == [1.0, 0.25, 0.5]
    assert rows.groupby("entity_id").age_seconds.max().fillna(-1).tolist() == [1.5, -1, 0]
    assert (set(rows.coverage), set(rows.arm)) == ({0.8}, {"production"})

    contract = Contract(experiment="e", task="regression", dataset="d", columns=("a",), targets=("y",))
    value = np.array([1.5, 2.5], np.float32)
    table = replace(prediction(contract, np.array([1, 2]), value), answers=Answers(value, value - 1, value + 2, 0.9))
    rows = log_table("e", [served_predictions(table, "r", NOW)]).to_pandas()
    assert rows[["lower", "value", "upper"]].to_numpy().tolist() == [[0.5, 1.5, 3.5], [1.5, 2.5, 4.5]]
    assert rows.observed.isna().all()


def test_a_bound_that_is_not_finite_is_refused() -> None:
    made = forecast(entities=3)
    lower = made.outputs.copy()
    lower[1] = np.nan
    with pytest.raises(ServingError, match="answered NaN or infinity for 1 of 3 entities"):
        refuse_missing_numbers(replace(made, answers=Answers(made.outputs, lower, made.outputs, 0.8)))


def test_a_forecast_answers_its_moments_and_age() -> None:
    parsed = ForecastAnswer.model_validate_json(to_json(answer(forecast())))
    item = parsed.forecasts[1]
    assert (parsed.model, parsed.version, parsed.pair_id) == ("e", 3, "p3")
    assert (item.entity, item.age_seconds, item.stale) == (1, 2700.0, True)
    assert (parsed.forecasts[0].entity, parsed.forecasts[0].stale) == (0, False)
    assert item.event_time == dt.datetime(2026, 3, 1, 11, 15, tzinfo=dt.UTC)
    assert item.window_end == dt.datetime(2026, 3, 1, 11, 30, tzinfo=dt.UTC)
    assert item.timestamps == [NOW - dt.timedelta(minutes=15), NOW, NOW + dt.timedelta(minutes=15)]


def test_regression_and_classification_answers_have_the_documented_form() -> None:
    columns = ("a",)
    value = Contract(experiment="e", task="regression", dataset="d", columns=columns, targets=("y",))
    made = prediction(value, np.array(["x", "y"], dtype=object), np.array([1.5, 2.5], np.float32))
    regression = RegressionAnswer.model_validate_json(to_json(answer(made)))
    assert [(item.entity, item.value) for item in regression.predictions] == [("x", 1.5), ("y", 2.5)]
    assert [(item.age_seconds, item.stale) for item in regression.predictions] == [(2700.0, False), (2700.0, True)]

    label = Contract(
        experiment="e", task="classification", dataset="d", columns=columns, targets=("y",), classes=("no", "yes")
    )
    made = prediction(label, np.array([7, 8]), np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))
    classification = ClassificationAnswer.model_validate_json(to_json(answer(made)))
    assert [item.label for item in classification.predictions] == ["yes", "no"]
    assert [(item.age_seconds, item.stale) for item in classification.predictions] == [(2700.0, False), (2700.0, True)]
    assert classification.predictions[0].probabilities == {"no": 0.25, "yes": 0.75}
    entry = served_predictions(made, "r1", NOW)
    assert (entry.labels, entry.values.tolist(), entry.steps.tolist()) == (["yes", "no"], [[[0.75]], [[0.5]]], [0])


def test_what_has_no_time_is_answered_and_logged_without_one() -> None:
    contract = Contract(experiment="e", task="regression", dataset="d", columns=("a",), targets=("y",))
    made = prediction(contract, np.array([1, 2]), np.array([1.5, 2.5], np.float32))
    nat = np.datetime64("NaT", "ns")
    unknown = np.array([made.origins[0], nat])
    ages = np.array([made.ages[0], np.timedelta64("NaT", "ns")])
    made = replace(made, origins=unknown, event_times=unknown, ages=ages)
    first, second = RegressionAnswer.model_validate_json(to_json(answer(made))).predictions
    assert first.age_seconds == 2700.0
    assert (second.event_time, second.age_seconds) == (None, None)
    assert np.isnat(served_predictions(made, "r", NOW).timestamps).tolist() == [[False], [True]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_is_refused_by_entity(bad: float) -> None:
    made = forecast(entities=3)
    made.outputs[1, 2, 0] = bad
    with pytest.raises(ServingError, match=r"answered NaN or infinity for 1 of 3 entities \(1\)") as caught:
        refuse_missing_numbers(made)
    assert (caught.value.status, caught.value.code) == (500, "prediction_not_finite")
    assert [detail.found for detail in caught.value.details] == ["NaN or infinity for 1"]


def test_an_answer_from_a_number_that_cannot_be_read_is_refused_as_the_rows_fault() -> None:
    """It blames the rows, so the others are asked for again; what nothing explains is the model's failure."""
    made = forecast(entities=3)
    made.outputs[1:, 2, 0] = np.nan
    made = replace(made, marks=((), (Mark("unreadable", "oil", 2), Mark("missing", "load", 1)), ()))
    with pytest.raises(ServingError, match="has no number for a value of oil in the rows of 1 entities") as caught:
        refuse_missing_numbers(made)
    assert (caught.value.status, caught.value.code, caught.value.entities) == (409, "unreadable_values", (1,))
    assert "of oil" in caught.value.details[0].found


def test_finite_predictions_pass() -> None:
    refuse_missing_numbers(forecast())
