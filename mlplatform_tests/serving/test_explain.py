"""`"explain": true`: contributions that add up to the answer in its own units, on every route, and bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from mlplatform.registry.pairs import PairStore
from mlplatform_tests.serving.conftest import Platform
from mlplatform_tests.serving.servers import in_thread
from serving.bundle import BundleLoader
from serving.errors import ServingError
from serving.explain import require_explainable
from serving.schemas import ForecastAnswer, RegressionAnswer

NAMES = ("tiny_forecast", "tiny_regression", "tiny_classification")
ENTITIES = "/predict/feast/batch"


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[httpx.Client]:
    with in_thread(platform.application(*NAMES)) as client:
        for name in NAMES[1:]:
            client.post(f"/admin/reload/{name}", headers={"authorization": "Bearer a-token-for-tests"})
        yield client


def add_up(explanation: dict[str, Any], name: str) -> np.ndarray:
    return np.asarray(explanation["base"][name]) + np.sum(explanation["contributions"][name], axis=-1)


def test_contributions_add_up_to_the_forecast_in_its_units_on_every_route(
    client: httpx.Client, platform: Platform
) -> None:
    rows = platform.rows()
    answer = client.post("/predict", json={"rows": rows, "explain": True}).json()
    ForecastAnswer.model_validate(answer)
    (forecast,) = answer["forecasts"]
    explanation = forecast["explanation"]
    assert (explanation["method"], explanation["space"]) == ("shap", "original")
    np.testing.assert_allclose(add_up(explanation, "oil"), forecast["values"]["oil"], rtol=1e-4)
    inputs = {feature["input"] for feature in explanation["features"]}
    assert inputs == {"load", "oil", "cooling", "event_timestamp"}
    plain = client.post("/predict", json={"rows": rows}).json()["forecasts"][0]
    assert plain["values"] == forecast["values"]
    assert "explanation" not in plain
    stored = client.post(ENTITIES, json={"entities": [3, 1], "explain": True}).json()["forecasts"]
    assert stored[1]["explanation"] == explanation
    inputs_of_v2 = [{"name": "entity_id", "shape": [1], "datatype": "INT64", "data": [1]}]
    v2 = client.post(
        "/v2/models/tiny_forecast/infer", json={"inputs": inputs_of_v2, "parameters": {"explain": True}}
    ).json()
    assert json.loads(v2["parameters"]["explanations"]) == [explanation]
    mlflow = client.post("/invocations", json={"dataframe_records": rows, "params": {"explain": True}}).json()
    assert mlflow["explanations"] == [explanation]


def test_contributions_of_tables_add_up_to_values_and_log_odds(client: httpx.Client) -> None:
    rows = [{"width": 3.5, "colour": "red"}, {"width": 8.0, "colour": "blue"}]
    answer = client.post("/models/tiny_regression/predict", json={"rows": rows, "explain": True}).json()
    RegressionAnswer.model_validate(answer)
    for item in answer["predictions"]:
        explanation = item["explanation"]
        assert explanation["base"] + sum(explanation["contributions"]) == pytest.approx(item["value"], rel=1e-4)
        assert [feature["input"] for feature in explanation["features"]] == ["width", "colour"]
    answer = client.post("/models/tiny_classification/predict", json={"rows": rows, "explain": True}).json()
    for item in answer["predictions"]:
        for label, probability in item["probabilities"].items():
            odds = add_up(item["explanation"], label)
            assert 1 / (1 + np.exp(-odds)) == pytest.approx(probability, rel=1e-4)


def test_more_than_is_explained_at_once_is_refused(client: httpx.Client) -> None:
    rows = [{"width": float(number), "colour": "red"} for number in range(33)]
    response = client.post("/models/tiny_regression/predict", json={"rows": rows, "explain": True})
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_much_to_explain")
    assert "at most 32" in response.json()["error"]["message"]
    assert client.post("/predict", json={"rows": rows, "explain": "yes"}).status_code == 422


def test_a_family_without_explanations_names_those_that_have(platform: Platform) -> None:
    from dataclasses import replace

    from mlplatform.models import create_model

    loader = BundleLoader(platform.serving("tiny_forecast"))
    bundle = loader.load(PairStore(platform.settings).resolve("tiny_forecast", "1"))
    naive = create_model("repeat_last", {}, bundle.forecaster.model.spec)
    with pytest.raises(ServingError) as caught:
        require_explainable(replace(bundle, forecaster=replace(bundle.forecaster, model=naive)))
    assert (caught.value.status, caught.value.code) == (422, "cannot_explain")
    assert "catboost, tft, xgboost" in caught.value.message
