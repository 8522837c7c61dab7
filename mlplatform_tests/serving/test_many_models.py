"""One server answers for many experiments, from any version, and from any moment of the past."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import in_thread

NAMES = ("tiny_forecast", "tiny_regression", "tiny_untrained")
ENTITIES = "/predict/feast/batch"


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[httpx.Client]:
    with in_thread(platform.application(*NAMES)) as client:
        client.post("/admin/reload/tiny_regression", headers={"authorization": f"Bearer {TOKEN}"})
        yield client


def refusal(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    return str(error["message"])


def test_every_model_answers_on_its_own_routes_and_the_first_on_those_without_a_name(
    client: httpx.Client, platform: Platform
) -> None:
    rows = {"rows": platform.rows()}
    named, plain = (client.post(f"{head}/predict", json=rows).json() for head in ("/models/tiny_forecast", ""))
    assert (named["pair_id"], named["forecasts"][0]["values"]) == (plain["pair_id"], plain["forecasts"][0]["values"])
    table = {"rows": [{"width": 3.5, "colour": "red"}]}
    answer = client.post("/models/tiny_regression/predict", json=table).json()
    assert (answer["experiment"], len(answer["predictions"])) == ("tiny_regression", 1)
    by_entity = client.post("/models/tiny_regression/predict/feast/batch", json={"entities": [4]}).json()
    assert by_entity["predictions"][0]["entity"] == 4
    message = refusal(client.post("/models/tiny_untrained/predict", json=table), 503, "no_production_pair")
    assert "run train_tiny_untrained" in message
    message = refusal(client.post("/models/other/predict", json=table), 404, "unknown_model")
    assert "served: tiny_forecast, tiny_regression, tiny_untrained" in message


def test_models_are_listed_with_what_a_client_should_know(client: httpx.Client) -> None:
    listed = client.get("/models").json()
    assert listed["default"] == "tiny_forecast"
    first, second, third = listed["models"]
    assert (first["name"], first["ready"], first["task"], first["version"]) == ("tiny_forecast", True, "forecast", 1)
    assert (first["lookback"], first["horizon"], first["step_seconds"], first["targets"]) == (12, 3, 3600, ["oil"])
    assert (first["frequency"], first["offset"], second["offset"]) == ("1 hour", "1h", None)
    assert first["inference"] == "merged: one answer of 3 boosters"
    assert {"name": "cooling", "type": "category", "known_ahead": False} in first["inputs"]
    assert (second["task"], second["horizon"]) == ("regression", None)
    assert (third["ready"], third["version"]) == (False, None)
    assert "run train_tiny_untrained" in third["reason"]
    # What was in production before depends on what other tests have promoted.
    first["aliases"].pop("previous", None)
    assert (first["aliases"], third["aliases"]) == ({"production": 1, "staging": 2}, {})
    alone = client.get("/models/tiny_forecast").json()
    alone["aliases"].pop("previous", None)
    assert alone == first
    refusal(client.get("/models/other"), 404, "unknown_model")


@pytest.mark.parametrize("choice", [{"version": 2}, {"alias": "latest"}, {"alias": "staging"}], ids=str)
def test_a_request_may_choose_another_version(client: httpx.Client, platform: Platform, choice: dict[str, Any]) -> None:
    for path, body in (("/predict", {"rows": platform.rows()}), (ENTITIES, {"entities": [1]})):
        plain = client.post(path, json=body).json()
        chosen = client.post(path, json={**body, **choice}).json()
        assert (plain["version"], chosen["version"]) == (1, 2)
        assert plain["forecasts"][0]["values"] != chosen["forecasts"][0]["values"]


@pytest.mark.parametrize(
    ("choice", "status", "code"),
    [
        ({"version": 99}, 404, "unknown_version"),
        ({"alias": "best"}, 404, "unknown_version"),
        ({"alias": "staging", "version": 1}, 422, "invalid_request"),
        ({"version": 0}, 422, "invalid_request"),
    ],
    ids=str,
)
def test_a_choice_that_is_none_is_refused(
    client: httpx.Client, platform: Platform, choice: dict[str, Any], status: int, code: str
) -> None:
    refusal(client.post("/predict", json={"rows": platform.rows(), **choice}), status, code)


def test_a_moment_of_the_past_is_answered_as_its_rows_are(client: httpx.Client, platform: Platform) -> None:
    frame = platform.raw[platform.raw.entity_id == 1]
    until = len(frame) - 30
    moment = frame.event_timestamp.iloc[until - 1].isoformat()
    rows = platform.rows(len(frame))[:until]
    past = client.post(ENTITIES, json={"entities": [1], "time_point": moment}).json()["forecasts"][0]
    sent = client.post("/predict", json={"rows": rows}).json()["forecasts"][0]
    assert (past["window_end"], past["values"]) == (sent["window_end"], sent["values"])
    assert past["age_seconds"] == 0


def test_entities_without_an_answer_are_reported_beside_those_with_one(client: httpx.Client) -> None:
    answer = client.post(ENTITIES, json={"entities": [1, 77, 2, 78]}).json()
    assert [forecast["entity"] for forecast in answer["forecasts"]] == [1, 2]
    assert [(item["entity"], item["code"]) for item in answer["errors"]] == [
        (77, "unknown_entity"),
        (78, "unknown_entity"),
    ]
    assert answer["errors"][0]["message"].startswith("found 77, expected an entity of dataset tiny")
    assert "errors" not in client.post(ENTITIES, json={"entities": [1]}).json()
    refusal(client.post(ENTITIES, json={"entities": [77, 78]}), 404, "unknown_entity")
    refusal(client.post(ENTITIES, json={"entities": [1, 77], "on_error": "fail"}), 404, "unknown_entity")
