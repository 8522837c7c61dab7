"""`serving.fallback` of an experiment: the same stand-ins on every route, flagged, counted and logged as such."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlplatform.config import load_experiment
from mlplatform.forecasts.answering import Answering
from mlplatform.monitoring.prediction_log import read_predictions
from mlplatform.registry.pairs import PairStore
from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.installation import Installation
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.local import LocalBackend
from serving.schemas import ForecastAnswer

NAME = "tiny_forecast"
ENTITIES = "/predict/feast/batch"
ADMIN = {"authorization": f"Bearer {TOKEN}"}


def with_fallback(platform: Platform, folder: Path, kind: str, staleness: dict[str, Any] | None) -> Installation:
    installation = Installation(platform, folder)
    installation.set_policy({"fallback": kind}, key="serving")
    # Three hours are the season; it is the first baseline's that has one.
    baselines: Any = [{"name": "seasonal_naive", "params": {"season": 3}}]
    installation.set_policy(baselines, key="baselines")
    if staleness:
        installation.set_policy(staleness)
    return installation


def expected(platform: Platform, unit: int) -> list[float]:
    oil = platform.raw.loc[platform.raw.entity_id == unit, "oil"].to_numpy()
    return [pytest.approx(float(value)) for value in oil[-3:]]


def test_old_features_fall_back_on_the_season_on_every_route_and_in_the_batch(
    platform: Platform, tmp_path: Path
) -> None:
    installation = with_fallback(platform, tmp_path, "seasonal_naive", {"max_age": "6h"})
    settings = installation.settings()
    with in_thread(build_app({NAME: LocalBackend(settings)}, settings)) as client:
        answer = client.post(ENTITIES, json={"entities": [1, 3]}).json()
        ForecastAnswer.model_validate(answer)
        for forecast in answer["forecasts"]:
            assert (forecast["fallback"], forecast["fallback_reason"], forecast["stale"]) == (True, "stale", True)
            assert forecast["values"]["oil"] == expected(platform, forecast["entity"])
            assert forecast["interval"] is None
        ids = [{"name": "entity_id", "shape": [1], "datatype": "INT64", "data": [1]}]
        v2 = client.post(f"/v2/models/{NAME}/infer", json={"inputs": ids}).json()
        assert v2["outputs"][0]["data"] == expected(platform, 1)
        assert v2["parameters"]["fallback_reasons"] == '["stale"]'
        # Rows of the request are never too old.
        rows = client.post("/predict", json={"rows": platform.rows()}).json()["forecasts"][0]
        assert (rows["fallback"], rows["fallback_reason"]) == (False, None)
        counted = f'mlplatform_fallback_forecasts_total{{experiment="{NAME}",reason="stale"}} 3.0'
        assert counted in client.get("/metrics").text
        request_id = client.post(ENTITIES, json={"entities": [1]}).headers["x-request-id"]
    log = read_predictions(settings, NAME)
    assert log.loc[log.request_id == request_id, "is_fallback"].tolist() == [True] * 3
    config = load_experiment(NAME, settings=installation.settings())
    forecaster = PairStore(platform.settings).load(PairStore(platform.settings).resolve(NAME, "1"))
    answered, left_out = Answering(config, forecaster, settings, "now").answer([1, 3])
    assert answered is not None
    assert (left_out, answered.is_fallback.tolist()) == ([], [True, True])
    assert answered.answers.point[0, :, 0].tolist() == expected(platform, 1)


def test_a_model_that_fails_falls_back_and_does_not_without_a_policy(platform: Platform, tmp_path: Path) -> None:
    installation = with_fallback(platform, tmp_path, "seasonal_naive", None)
    settings = installation.settings()
    backend = LocalBackend(settings)
    with in_thread(build_app({NAME: backend}, settings)) as client:
        break_model(backend)
        for path, body in ((ENTITIES, {"entities": [1]}), ("/predict", {"rows": platform.rows()})):
            (forecast,) = client.post(path, json=body).json()["forecasts"]
            assert (forecast["fallback"], forecast["fallback_reason"]) == (True, "model_failed")
            assert forecast["values"]["oil"] == expected(platform, 1)
        installation.set_policy({"fallback": "none"}, key="serving")
        client.post("/admin/reload", headers=ADMIN)
        break_model(backend)
        assert client.post(ENTITIES, json={"entities": [1]}).status_code == 500


def break_model(backend: LocalBackend) -> None:
    bundle = backend._holder.require()

    class Broken(type(bundle.forecaster)):  # type: ignore[misc]
        def infer_answers(self, _: Any) -> Any:
            raise RuntimeError("broken")

    backend._holder.current = replace(bundle, forecaster=Broken(**vars(bundle.forecaster)))


def test_the_last_forecast_stands_in_for_the_moments_it_was_made_for(platform: Platform, tmp_path: Path) -> None:
    installation = with_fallback(platform, tmp_path, "last_forecast", None)
    settings = installation.settings()
    backend = LocalBackend(settings)
    with in_thread(build_app({NAME: backend}, settings)) as client:
        (good,) = client.post(ENTITIES, json={"entities": [1]}).json()["forecasts"]
        assert not good["fallback"]
        installation.set_policy({"max_age": "6h"})
        client.post("/admin/reload", headers=ADMIN)
        (again,) = client.post(ENTITIES, json={"entities": [1]}).json()["forecasts"]
        assert (again["fallback"], again["values"]) == (True, good["values"])
        assert again["timestamps"] == good["timestamps"]
        never = client.post(ENTITIES, json={"entities": [3]})
        assert error_of(never) == (409, "stale_features")
        both = client.post(ENTITIES, json={"entities": [1, 3]}).json()
        assert ([item["entity"] for item in both["forecasts"]], both["errors"][0]["entity"]) == ([1], 3)


def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_only_a_forecast_can_fall_back(platform: Platform, tmp_path: Path) -> None:
    installation = Installation(platform, tmp_path)
    installation.set_policy({"fallback": "seasonal_naive"}, "tiny_regression", key="serving")
    with pytest.raises(Exception, match="only a forecast can fall back"):
        load_experiment("tiny_regression", settings=installation.settings())
