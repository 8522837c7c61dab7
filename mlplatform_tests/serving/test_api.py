"""The routes, asked over HTTP: every answer, and every refusal with its status and what it says."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from mlplatform.config import load_experiment
from mlplatform.features.online.read import read_windows
from mlplatform.monitoring.prediction_log import read_predictions
from mlplatform.registry.pairs import PairStore
from mlplatform_tests.serving.conftest import TOKEN, UNITS, Platform, put_online, table
from mlplatform_tests.serving.installation import Installation
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.local import LocalBackend
from serving.schemas import ClassificationAnswer, ForecastAnswer, RegressionAnswer

ENTITIES = "/predict/feast/batch"


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[httpx.Client]:
    """A server of `tiny_forecast`."""
    settings = platform.serving("tiny_forecast", max_body_bytes=100_000, access_log=1.0)
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        yield client


def refusal(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["type"], body["status"]) == (f"urn:mlplatform:problem:{code}", status)
    assert body["detail"] == body["error"]["message"]
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["error"]["code"] == code
    error: dict[str, Any] = body["error"]
    return error


def sample(text: str, name: str) -> float:
    """Return the sum of a metric's samples whose line starts with `name`."""
    values = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]
    assert values, f"{name} is not in\n{text}"
    return sum(values)


def test_entities_are_answered_with_forecasts_in_original_units(client: httpx.Client, platform: Platform) -> None:
    response = client.post(ENTITIES, json={"entities": [3, 1, 2], "time_point": "now"})
    assert response.status_code == 200, response.text
    answer = ForecastAnswer.model_validate(response.json())
    store = PairStore(platform.settings)
    pair = store.resolve("tiny_forecast", "1")
    assert (answer.model, answer.experiment, answer.version) == ("tiny_forecast", "tiny_forecast", 1)
    assert answer.pair_id == pair.pair_id
    assert [forecast.entity for forecast in answer.forecasts] == [3, 1, 2]

    dataset = load_experiment("tiny_forecast", settings=platform.settings).dataset
    panel = read_windows(dataset, [3, 1, 2], pair.contract.columns, pair.contract.input_rows, platform.settings)
    expected = store.load(pair).predict(panel)
    last = platform.raw.event_timestamp.max().to_pydatetime()
    for position, forecast in enumerate(answer.forecasts):
        assert np.array(forecast.values["oil"], np.float32).tolist() == expected[position, :, 0].tolist()
        assert forecast.window_end == last
        assert forecast.timestamps == [last + dt.timedelta(hours=hour) for hour in (1, 2, 3)]
        assert forecast.age_seconds == pytest.approx((dt.datetime.now(dt.UTC) - last).total_seconds(), abs=60)


def test_raw_rows_get_the_same_bits_as_the_same_rows_from_the_store(client: httpx.Client, platform: Platform) -> None:
    from_store = client.post(ENTITIES, json={"entities": [1, 3]}).json()
    from_rows = client.post("/predict", json={"rows": [*platform.rows(40, 1), *platform.rows(40, 3)]}).json()
    assert [forecast["values"] for forecast in from_rows["forecasts"]] == [
        forecast["values"] for forecast in from_store["forecasts"]
    ]
    assert from_rows["forecasts"][0]["timestamps"] == from_store["forecasts"][0]["timestamps"]


def test_an_answer_can_be_traced_by_its_request_id(client: httpx.Client) -> None:
    given = client.post(ENTITIES, json={"entities": [1]}, headers={"x-request-id": "my-id.1"})
    assert given.headers.get_list("x-request-id") == ["my-id.1"]
    made = client.post(ENTITIES, json={"entities": [1]}, headers={"x-request-id": "no good\tid"})
    assert re.fullmatch(r"[0-9a-f]{32}", made.headers["x-request-id"])


@pytest.mark.parametrize(
    ("body", "field", "found", "expected"),
    [
        ({}, "entities", "no such field", "a value"),
        ({"entities": []}, "entities", "[]", "at least 1 item"),
        ({"entities": 1}, "entities", "1", "a valid list"),
        ({"entities": [1, 1.5]}, "entities.1", "1.5", "a whole number"),
        ({"entities": [True]}, "entities.0", "true", "a whole number"),
        ({"entities": [None]}, "entities.0", "null", "a whole number"),
        ({"entities": [2**63]}, "entities.0", "9223372036854775808", "a whole number"),
        ({"entities": [""]}, "entities.0", "''", "text"),
        (
            {"entities": [1], "when": "now"},
            "when",
            "an unknown field",
            "only alias, version, explain, entities, time_point",
        ),
        ({"entities": [1], "time_point": "yesterday"}, "time_point", "'yesterday'", "'now' or an ISO 8601 time"),
        ({"entities": [1, 2, 1]}, "entities", "1 more than once", "ids once"),
        ([1], "body", "[1]", "dictionary"),
    ],
)
def test_a_request_of_the_wrong_form_names_field_found_and_expected(
    client: httpx.Client, body: Any, field: str, found: str, expected: str
) -> None:
    error = refusal(client.post(ENTITIES, json=body), 422, "invalid_request")
    detail = error["details"][0]
    assert (detail["field"], detail["found"]) == (field, found)
    assert expected in detail["expected"]
    assert error["message"].startswith(f"{field}: found {found}, expected ")


def test_unknown_entities_are_named(client: httpx.Client) -> None:
    asked = {"entities": [1, 77, 2, 78], "on_error": "fail"}
    error = refusal(client.post(ENTITIES, json=asked), 404, "unknown_entity")
    assert [detail["found"] for detail in error["details"]] == ["77", "78"]
    assert "77, 78" in error["message"]
    assert "1," not in error["message"]


def test_ids_of_the_wrong_type_are_refused(client: httpx.Client) -> None:
    error = refusal(client.post(ENTITIES, json={"entities": ["1"]}), 422, "invalid_request")
    assert "'1'" in error["message"]


def test_more_entities_than_allowed_are_refused(client: httpx.Client) -> None:
    assert (
        "1024"
        in refusal(client.post(ENTITIES, json={"entities": list(range(1025))}), 413, "too_many_entities")["message"]
    )
    refusal(client.post(ENTITIES, json={"entities": list(range(100, 1124))}), 404, "unknown_entity")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_numbers_that_are_not_finite_are_refused(client: httpx.Client, platform: Platform, number: str) -> None:
    body = json.dumps({"rows": platform.rows()}).replace(str(platform.rows()[3]["oil"]), number, 1)
    response = client.post("/predict", content=body, headers={"content-type": "application/json"})
    message = refusal(response, 422, "invalid_json")["message"]
    assert "line 1 column" in message
    assert "numbers must be finite" in message


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"entities": [1]} x'])
def test_a_body_that_is_not_json_is_refused(client: httpx.Client, body: bytes) -> None:
    response = client.post(ENTITIES, content=body, headers={"content-type": "application/json"})
    assert "the body is not JSON" in refusal(response, 422, "invalid_json")["message"]


def test_another_content_type_is_refused(client: httpx.Client) -> None:
    response = client.post(ENTITIES, content=b'{"entities": [1]}', headers={"content-type": "text/plain"})
    assert "expected application/json" in refusal(response, 415, "not_json")["message"]
    with_charset = {"content-type": "application/json; charset=utf-8"}
    assert client.post(ENTITIES, content=b'{"entities": [1]}', headers=with_charset).status_code == 200


def test_text_in_a_number_of_raw_rows_names_row_and_column(client: httpx.Client, platform: Platform) -> None:
    rows = platform.rows()
    rows[5]["oil"] = "hot"
    error = refusal(client.post("/predict", json={"rows": rows}), 422, "invalid_rows")
    found = "rows[5].oil: found 'hot', expected a finite number or null; fill the gap or send other rows"
    assert error["message"] == found
    assert error["details"] == [
        {
            "field": "rows[5].oil",
            "row": 5,
            "column": "oil",
            "found": "'hot'",
            "expected": "a finite number or null",
            "action": "fill the gap or send other rows",
        }
    ]


def test_what_training_would_not_have_kept_is_answered_and_marked(client: httpx.Client, platform: Platform) -> None:
    rows, plain = platform.rows(20), platform.rows(20, 3)
    rows[10]["oil"] = rows[11]["oil"] = rows[12]["cooling"] = None
    rows[13]["load"] = 5.5
    rows[14]["cooling"] = "nitrogen"
    rows[0]["load"] = 99.0  # before the window, so without influence on the answer
    first, second = client.post("/predict", json={"rows": [*rows, *plain]}).json()["forecasts"]
    assert first["marks"] == [
        {"kind": "out_of_range", "column": "load", "rows": 1},
        {"kind": "missing", "column": "oil", "rows": 2},
        {"kind": "missing", "column": "cooling", "rows": 1},
        {"kind": "unseen_category", "column": "cooling", "rows": 1},
    ]
    assert second["marks"] == []
    stored = client.post(ENTITIES, json={"entities": [1, 2]}).json()["forecasts"]
    # Unit 2 has a gap near its end.
    assert [forecast["marks"] for forecast in stored] == [[], [{"kind": "missing", "column": "load", "rows": 2}]]


def test_a_null_is_answered_as_the_same_gap_in_the_store_is(client: httpx.Client, platform: Platform) -> None:
    rows = platform.rows(40, 2)
    for row in rows:
        row["load"] = None if np.isnan(row["load"]) else row["load"]
    from_rows = client.post("/predict", json={"rows": rows}).json()["forecasts"][0]
    from_store = client.post(ENTITIES, json={"entities": [2]}).json()["forecasts"][0]
    assert from_rows["values"] == from_store["values"]


def test_a_policy_refuses_what_is_unusual_and_names_rows(platform: Platform, tmp_path: Path) -> None:
    installation = Installation(platform, tmp_path)
    refusing = {"missing": "refuse", "out_of_range": "refuse", "unseen_category": "refuse"}
    with installation.serving() as client:
        rows = platform.rows()
        rows[3]["load"] = 5.5
        rows[4]["cooling"] = "nitrogen"
        assert client.post("/predict", json={"rows": rows}).status_code == 200
        installation.set_policy(refusing, key="requests")
        assert client.post("/admin/reload", headers={"authorization": f"Bearer {TOKEN}"}).json()["swapped"] is False
        beyond, unseen = refusal(client.post("/predict", json={"rows": rows}), 422, "invalid_rows")["details"]
        assert (beyond["field"], beyond["found"], beyond["expected"]) == (
            "rows[3].load",
            "5.5",
            "at most 5, as the dataset says",
        )
        assert (unseen["field"], unseen["expected"]) == ("rows[4].cooling", "a category of the training rows: air, fan")
        rows = platform.rows()
        rows[5]["oil"] = None
        missing = refusal(client.post("/predict", json={"rows": rows}), 422, "invalid_rows")["details"][0]
        assert (missing["found"], missing["expected"]) == ("null", "a finite number")
        assert client.post("/predict", json={"rows": platform.rows()}).status_code == 200


def test_a_forecast_of_which_too_little_was_measured_is_refused_or_falls_back(
    platform: Platform, tmp_path: Path
) -> None:
    installation = Installation(platform, tmp_path)
    admin = {"authorization": f"Bearer {TOKEN}"}
    rows = platform.rows(14, 2)
    for row in rows:
        row["load"] = None if np.isnan(row["load"]) else row["load"]
    asked = (
        (ENTITIES, {"entities": [1, 2], "on_error": "fail"}),
        ("/predict", {"rows": [*platform.rows(14, 1), *rows]}),
    )
    with installation.serving() as client:
        for path, body in asked:
            answered = client.post(path, json=body).json()["forecasts"]
            # Unit 2 has a gap of two hours near its end; the lookback is 12.
            assert [forecast["observed"] for forecast in answered] == [1.0, pytest.approx(10 / 12)]
        installation.set_policy({"min_observed": 0.9}, key="observation")
        assert client.post("/admin/reload", headers=admin).json()["swapped"] is False
        for path, body in asked:
            error = refusal(client.post(path, json=body), 409, "too_little_observed")
            assert [detail["found"] for detail in error["details"]] == ["2: 83.3% of the lookback measured"]
            assert "observation.min_observed of the experiment asks for 90.0%" in error["message"]
        installation.set_policy({"min_observed": 0.9, "action": "fallback"}, key="observation")
        client.post("/admin/reload", headers=admin)
        for path, body in asked:
            first, second = client.post(path, json=body).json()["forecasts"]
            assert (first["fallback"], second["fallback"]) == (False, True)
            assert first["values"] == answered[0]["values"]
            assert second["values"]["oil"] == [pytest.approx(rows[-1]["oil"])] * 3
            assert second["interval"] is None


def test_rows_may_name_entity_and_time_as_the_dataset_does(client: httpx.Client, platform: Platform) -> None:
    own = [{"unit" if key == "entity_id" else key: value for key, value in row.items()} for row in platform.rows()]
    own = [{"time" if key == "event_timestamp" else key: value for key, value in row.items()} for row in own]
    answer, expected = (client.post("/predict", json={"rows": rows}).json() for rows in (own, platform.rows()))
    assert answer["forecasts"][0]["values"] == expected["forecasts"][0]["values"]
    own[2]["time"] = "yesterday"
    error = refusal(client.post("/predict", json={"rows": own}), 422, "invalid_rows")
    assert error["message"].startswith("rows[2].time: found 'yesterday', expected an ISO 8601 time")
    assert error["details"][0]["column"] == "time"


def test_too_few_rows_name_what_the_model_needs(client: httpx.Client, platform: Platform) -> None:
    error = refusal(client.post("/predict", json={"rows": platform.rows(13)}), 422, "invalid_rows")
    assert (
        "found 13 rows for entity 1, expected at least 14 (lookback 12 + preprocessing context 2)" in error["message"]
    )


def test_a_body_over_the_limit_is_refused_with_and_without_a_length(client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    declared = client.post("/predict", content=b" " * 10_000_000, headers=headers)
    assert "10000000 bytes" in refusal(declared, 413, "body_too_large")["message"]
    chunked = client.post("/predict", content=(b" " * 50_000 for _ in range(200)), headers=headers)
    assert "more than 100000 bytes" in refusal(chunked, 413, "body_too_large")["message"]
    assert client.get("/health/live").status_code == 200


def test_a_gzip_body_is_read_and_held_to_the_same_limit(client: httpx.Client, platform: Platform) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    for path, body in ((ENTITIES, {"entities": [1]}), ("/predict", {"rows": platform.rows()})):
        response = client.post(path, content=gzip.compress(json.dumps(body).encode()), headers=headers)
        assert response.status_code == 200, response.text
    bomb = gzip.compress(b" " * 10_000_000)
    assert len(bomb) < 100_000
    error = refusal(client.post("/predict", content=bomb, headers=headers), 413, "body_too_large")
    assert "more than 100000 bytes after decompression" in error["message"]
    refusal(client.post("/predict", content=b"{}", headers=headers), 422, "invalid_encoding")


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "gzip, br"])
def test_another_compression_is_refused_with_what_is_read(client: httpx.Client, encoding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    response = client.post(ENTITIES, content=b"whatever", headers=headers)
    assert encoding in refusal(response, 415, "unknown_encoding")["message"]
    assert response.headers["accept-encoding"] == "gzip"


def test_identity_is_no_compression(client: httpx.Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "identity"}
    assert client.post(ENTITIES, content=b'{"entities": [1]}', headers=headers).status_code == 200


def test_unknown_routes_and_methods_have_the_same_error_form(client: httpx.Client) -> None:
    refusal(client.get("/nothing/here"), 404, "no_such_route")
    refusal(client.get("/predict"), 405, "method_not_allowed")


def test_a_ready_server_says_what_it_serves(client: httpx.Client, platform: Platform) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    pair = PairStore(platform.settings).resolve("tiny_forecast", "1")
    assert client.get("/health/ready").json() == {
        "status": "ready",
        "experiment": "tiny_forecast",
        "version": 1,
        "pair_id": pair.pair_id,
    }


def test_metrics_count_requests_predictions_and_show_what_is_served(client: httpx.Client, platform: Platform) -> None:
    good = f'mlplatform_http_requests_total{{method="POST",route="{ENTITIES}",status="200"}}'
    unknown = f'mlplatform_http_requests_total{{method="POST",route="{ENTITIES}",status="404"}}'
    predicted = 'mlplatform_predictions_total{arm="production",experiment="tiny_forecast",version="1"}'
    client.post(ENTITIES, json={"entities": [1]})
    client.post(ENTITIES, json={"entities": [99]})
    before = client.get("/metrics").text
    client.post(ENTITIES, json={"entities": [1, 2, 3]})
    client.post(ENTITIES, json={"entities": [99]})
    client.get("/some/path/nobody/knows")
    response = client.get("/metrics")
    after = response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert sample(after, good) - sample(before, good) == 1
    assert sample(after, unknown) - sample(before, unknown) == 1
    assert sample(after, predicted) - sample(before, predicted) == 3
    assert sample(after, f'mlplatform_http_request_seconds_count{{route="{ENTITIES}"}}') >= 4
    pair = PairStore(platform.settings).resolve("tiny_forecast", "1")
    labels = f'arm="production",experiment="tiny_forecast",pair_id="{pair.pair_id}",version="1"'
    assert sample(after, f"mlplatform_served_pair_info{{{labels}}}") == 1
    age = dt.datetime.now(dt.UTC) - platform.raw.event_timestamp.max().to_pydatetime()
    assert sample(after, "mlplatform_feature_age_seconds{") == pytest.approx(age.total_seconds(), abs=60)
    assert sample(after, "mlplatform_prediction_log_rows_dropped_total{") == 0
    assert "nobody" not in after
    assert 'route="unmatched",status="404"' in after


def test_the_access_log_has_no_body_query_or_token(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"authorization": "Bearer wrong-token", "x-request-id": "traced"}
    with caplog.at_level("INFO", logger="serving.access"):
        client.post("/admin/reload?token=in-query", json={"secret": "in-body"}, headers=headers)
    lines = [json.loads(record.message) for record in caplog.records if record.name == "serving.access"]
    line = next(line for line in lines if line["request_id"] == "traced")
    assert (line["method"], line["route"], line["status"]) == ("POST", "/admin/reload", 401)
    assert not re.search("wrong-token|in-query|in-body", caplog.text)


@pytest.mark.parametrize(("share", "lines"), [(0.0, 0), (1.0, 3)])
def test_the_access_log_has_the_share_that_is_asked_for(
    platform: Platform, caplog: pytest.LogCaptureFixture, share: float, lines: int
) -> None:
    settings = platform.serving("tiny_untrained", access_log=share)
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        caplog.clear()
        with caplog.at_level("INFO", logger="serving.access"):
            for _ in range(3):
                client.get("/health/live")
            client.post("/predict", json={"rows": [{}]})
    found = [json.loads(record.message) for record in caplog.records if record.name == "serving.access"]
    assert len([line for line in found if line["status"] == 200]) == lines
    assert [line["status"] for line in found if line["status"] >= 500] == [503]  # what failed is always there


@pytest.mark.parametrize("route", ["/predict", "/models"])
def test_what_nobody_thought_of_is_answered_logged_and_counted_once(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, route: str
) -> None:
    settings = platform.serving("tiny_untrained")
    app = build_app({settings.experiment: LocalBackend(settings)}, settings)

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("nobody thought of it")

    with in_thread(app) as client:
        monkeypatch.setattr(LocalBackend, "predict_rows", broken)
        monkeypatch.setattr(LocalBackend, "status", broken)
        method = "POST" if route == "/predict" else "GET"
        response = client.request(method, route, **({"json": {"rows": [{}]}} if method == "POST" else {}))
        error = refusal(response, 500, "internal_error")
        assert response.headers.get_list("x-request-id") == [error["message"].rpartition(" ")[2]]
        assert "nobody thought of it" in caplog.text
        counted = f'mlplatform_http_requests_total{{method="{method}",route="{route}",status="500"}}'
        assert sample(client.get("/metrics").text, counted) == 1


def test_reload_needs_the_token(client: httpx.Client, platform: Platform) -> None:
    refusal(client.post("/admin/reload"), 401, "unauthorized")
    refusal(client.post("/admin/reload", headers={"authorization": "Bearer wrong"}), 401, "unauthorized")
    response = client.post("/admin/reload", headers={"authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response.json() == {
        "experiment": "tiny_forecast",
        "version": 1,
        "pair_id": PairStore(platform.settings).resolve("tiny_forecast", "1").pair_id,
        "previous_version": 1,
        "swapped": False,
    }


def test_the_openapi_page_shows_bodies_examples_and_errors(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    route = document["paths"][ENTITIES]["post"]
    body = route["requestBody"]["content"]["application/json"]
    assert [example["value"] for example in body["examples"].values()] == [{"entities": [1, 2], "time_point": "now"}]
    assert body["schema"]["properties"]["entities"]["items"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert set(route["responses"]) == {
        "200",
        "401",
        "403",
        "404",
        "408",
        "409",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503",
    }
    forecast = document["components"]["schemas"]["Forecast"]
    assert {"event_time", "age_seconds", "stale"} <= set(forecast["required"])
    assert "staleness.max_age" in forecast["properties"]["stale"]["description"]
    assert route["responses"]["404"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorResponse")
    assert document["paths"]["/admin/reload"]["post"]["security"] == [{"bearer": []}]
    assert document["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}
    assert client.get("/docs").status_code == 200


def test_served_predictions_are_in_the_log_when_the_server_has_stopped(platform: Platform) -> None:
    settings = platform.serving("tiny_forecast")
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        answer = client.post(ENTITIES, json={"entities": [2, 1]}, headers={"x-request-id": "logged"}).json()
        refusal(
            client.post(ENTITIES, json={"entities": [77]}, headers={"x-request-id": "refused"}), 404, "unknown_entity"
        )
    log = read_predictions(settings, "tiny_forecast")
    assert "refused" not in set(log.request_id)
    rows = log[log.request_id == "logged"]
    assert rows.entity_id.tolist() == ["2"] * 3 + ["1"] * 3
    assert rows.value.astype(np.float32).tolist() == [
        np.float32(value) for forecast in answer["forecasts"] for value in forecast["values"]["oil"]
    ]
    assert rows.step.tolist() == [1, 2, 3] * 2
    assert rows.observed.tolist() == [forecast["observed"] for forecast in answer["forecasts"] for _ in range(3)]
    assert rows.age_seconds.tolist() == pytest.approx(
        [forecast["age_seconds"] for forecast in answer["forecasts"] for _ in range(3)], abs=1e-3
    )
    assert (set(rows.is_fallback), set(rows.arm)) == ({False}, {"production"})
    assert set(rows.pair_id) == {answer["pair_id"]}
    assert [moment.isoformat() for moment in rows.event_timestamp.head(3)] == [
        text.replace("Z", "+00:00") for text in answer["forecasts"][0]["timestamps"]
    ]


def test_without_a_production_pair_the_server_lives_but_is_not_ready(platform: Platform) -> None:
    settings = platform.serving("tiny_untrained")
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        assert client.get("/health/live").status_code == 200
        message = refusal(client.get("/health/ready"), 503, "not_ready")["message"]
        assert "no production pair for tiny_untrained: run train_tiny_untrained" in message
        refusal(client.post(ENTITIES, json={"entities": [1]}), 503, "no_production_pair")
        refusal(client.post("/predict", json={"rows": platform.rows()}), 503, "no_production_pair")
        reload = client.post("/admin/reload", headers={"authorization": f"Bearer {TOKEN}"})
        refusal(reload, 503, "no_production_pair")
        metrics = client.get("/metrics").text
        assert sample(metrics, 'mlplatform_reloads_total{experiment="tiny_untrained",outcome="failed"}') == 1
        assert "mlplatform_served_pair_info{" not in metrics


def test_without_a_token_on_the_server_reload_is_closed(platform: Platform) -> None:
    settings = platform.serving("tiny_untrained", admin_token=None)
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        response = client.post("/admin/reload", headers={"authorization": f"Bearer {TOKEN}"})
        assert "set MLPLATFORM_ADMIN_TOKEN" in refusal(response, 403, "admin_closed")["message"]


def test_a_server_is_not_ready_until_the_feature_store_answers(platform: Platform, tmp_path: Path) -> None:
    settings = platform.serving("tiny_forecast", home=tmp_path)
    dataset = load_experiment("tiny_forecast", settings=settings).dataset
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        message = refusal(client.get("/health/ready"), 503, "not_ready")["message"]
        assert "the online feature store does not answer for dataset 'tiny'" in message
        away = client.post(ENTITIES, json={"entities": [1]})
        refusal(away, 503, "feature_store_unavailable")
        assert away.headers["retry-after"] == "1"
        assert client.post("/predict", json={"rows": platform.rows()}).status_code == 200
        put_online(platform.raw, dataset, settings)
        assert client.get("/health/ready").status_code == 200
        assert client.post(ENTITIES, json={"entities": [1]}).status_code == 200


def test_regression_answers_a_value_per_row(platform: Platform) -> None:
    settings = platform.serving("tiny_regression")
    rows = [{"width": 2, "colour": "red"}, {"width": 8.5, "colour": "blue"}]
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        response = client.post("/predict", json={"rows": rows})
        assert response.status_code == 200, response.text
        answer = RegressionAnswer.model_validate(response.json())
        assert [prediction.entity for prediction in answer.predictions] == [0, 1]
        assert answer.predictions[0].value < answer.predictions[1].value
        width = table().width.to_numpy()
        from_store = client.post(ENTITIES, json={"entities": [4, 9]}).json()["predictions"]
        assert [prediction["entity"] for prediction in from_store] == [4, 9]
        assert (from_store[0]["value"] < from_store[1]["value"]) == (width[4] < width[9])
        gap = client.post("/predict", json={"rows": [{"width": -1, "colour": None}]}).json()["predictions"][0]
        assert gap["marks"] == [
            {"kind": "out_of_range", "column": "width", "rows": 1},
            {"kind": "missing", "column": "colour", "rows": 1},
        ]
        # The family reads missing values, but the dataset says that this column has none.
        never = client.post("/predict", json={"rows": [{"width": None, "colour": "red"}]})
        assert refusal(never, 422, "invalid_rows")["details"][0]["expected"] == "a finite number"
        named = client.post("/predict", json={"rows": [{"entity_id": "a", **row} for row in rows]}).json()
        assert [prediction["entity"] for prediction in named["predictions"]] == ["a", "a"]
        refused = client.post("/predict", json={"rows": [{"width": "2", "colour": "red"}]})
        assert "rows[0].width: found '2'" in refusal(refused, 422, "invalid_rows")["message"]
    log = read_predictions(settings, "tiny_regression")
    log = log[log.request_id == response.headers["x-request-id"]]
    assert log.target.unique().tolist() == ["weight"]
    assert log.value.iloc[0] == pytest.approx(answer.predictions[0].value)


def test_classification_answers_label_and_probabilities(platform: Platform) -> None:
    settings = platform.serving("tiny_classification")
    rows = [{"width": 1, "colour": "red"}, {"width": 9, "colour": "blue"}]
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        response = client.post("/predict", json={"rows": rows}, headers={"x-request-id": "classes"})
        assert response.status_code == 200, response.text
        answer = ClassificationAnswer.model_validate(response.json())
    assert [prediction.label for prediction in answer.predictions] == ["small", "large"]
    for prediction in answer.predictions:
        assert set(prediction.probabilities) == {"small", "large"}
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert prediction.probabilities[prediction.label] == max(prediction.probabilities.values())
    log = read_predictions(settings, "tiny_classification")
    log = log[log.request_id == "classes"]
    assert log.label.tolist() == ["small", "large"]
    assert log.value.tolist() == pytest.approx(
        [prediction.probabilities[prediction.label] for prediction in answer.predictions]
    )


def test_every_unit_is_online(client: httpx.Client) -> None:
    answer = client.post(ENTITIES, json={"entities": list(UNITS)}).json()
    assert all(np.isfinite(forecast["values"]["oil"]).all() for forecast in answer["forecasts"])
