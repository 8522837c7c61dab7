"""KServe's time series forecast, MLflow's scoring, the push of features, and the pages, on a running server."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from starlette.testclient import TestClient

from mlplatform.models import Bounds
from mlplatform.registry.forecaster import Answers
from mlplatform.registry.tracking import open_tracking
from mlplatform_tests.serving.conftest import HOURS, START, TOKEN, Platform
from mlplatform_tests.serving.servers import in_thread, wait_until_loaded
from mlplatform_tests.serving.test_answers import forecast
from serving.api import build_app
from serving.errors import ServingError
from serving.local import LocalBackend
from serving.protocols import inference_v2, timeseries

FORECAST, REGRESSION, CLASSES, NOTHING = "tiny_forecast", "tiny_regression", "tiny_classification", "tiny_untrained"
STEPS = 14
SERIES = "/v1/timeseries/forecast"
PUSH = "/features/push"
ADMIN = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[httpx.Client]:
    names = FORECAST, REGRESSION, CLASSES, NOTHING
    with in_thread(platform.application(*names)) as client:
        for name in names[1:3]:
            client.post(f"/admin/reload/{name}", headers=ADMIN)
        yield client


def float32(values: Any) -> list[Any]:
    found: list[Any] = np.asarray(values, np.float32).tolist()
    return found


def series_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows of one entity as KServe's clients send them."""
    return {
        "type": "multivariate_time_series",
        "name": str(rows[0]["entity_id"]),
        "series": [[row["load"], row["oil"], row["cooling"]] for row in rows],
        "frequency": "H",
        "start_timestamp": rows[0]["event_timestamp"],
    }


def asked(platform: Platform, units: tuple[int, ...] = (3, 1), **options: Any) -> dict[str, Any]:
    inputs = [series_of(platform.rows(STEPS + 5, unit)) for unit in units]
    # Other properties are the protocol's own way of being extended.
    return {"model": FORECAST, "inputs": inputs, "options": {"horizon": 2, **options}, "metadata": {"who": "me"}}


def test_series_are_forecast_like_their_rows(client: httpx.Client, platform: Platform) -> None:
    body = asked(platform, other_options="value")
    rows = [row for unit in (3, 1) for row in platform.rows(STEPS + 5, unit)]
    expected = client.post("/predict", json={"rows": rows}).json()["forecasts"]
    answer = client.post(SERIES, json=body).json()
    assert (answer["status"], answer["model"], answer["error"]) == ("completed", FORECAST, None)
    contents = [output["content"][0] for output in answer["outputs"]]
    assert [content["name"] for content in contents] == ["3", "1"]
    for content, told in zip(contents, expected, strict=True):
        # A shorter horizon is the beginning of the model's.
        assert float32(content["mean_forecast"]) == float32(told["values"]["oil"][:2])
        assert (content["start_timestamp"], content["frequency"]) == (told["timestamps"][0], "H")
        assert (content["type"], "quantiles" in content) == ("univariate_time_series", False)
    assert client.get("/v1/timeseries/models").json() == [FORECAST]


@pytest.mark.parametrize(
    ("change", "status", "field", "said"),
    [
        ({"model": "other"}, 404, "", "no model 'other'"),
        ({"model": NOTHING}, 503, "", "no pair in production"),
        ({"model": REGRESSION}, 400, "model", "a model that forecasts"),
        (
            {"options": {"horizon": 4}},
            400,
            "options.horizon",
            "found 4, expected at most 3, the horizon of tiny_forecast",
        ),
        ({"options": {"horizon": 0}}, 400, "options.horizon", "found 0"),
        ({"options": {"horizon": 1, "quantiles": [0.1]}}, 400, "options.quantiles", "was not calibrated"),
        ({"inputs": []}, 400, "inputs", "found []"),
        ({"inputs": [{"type": "univariate_time_series"}]}, 400, "inputs[0].type", "load, oil, cooling"),
        ({"inputs": [{"type": "table"}]}, 400, "inputs.0.type", "'table'"),
        ({"inputs": [{"frequency": "D"}]}, 400, "inputs[0].frequency", "1 hour"),
        ({"inputs": [{"frequency": "M"}]}, 400, "inputs[0].frequency", "1 hour"),
        ({"inputs": [{"start_timestamp": None}]}, 400, "inputs[0].start_timestamp", "add it"),
        ({"inputs": [{"start_timestamp": "9999-12-31T23:00:00"}]}, 400, "inputs[0].start_timestamp", ""),
        ({"inputs": [{"start_timestamp": "2200-12-31T23:00:00"}]}, 400, "rows[1].event_timestamp", ""),
        ({"inputs": [{"series": [[0.5, 60.0]]}]}, 400, "inputs[0].series[0]", "a list of 3 values"),
        ({"inputs": [{"series": [[0.5, 60.0, "air"]]}]}, 400, "rows", "at least 14"),
        ({"inputs": [{"series": [[0.5, "warm", "air"]] * STEPS}]}, 400, "rows[0].oil", "found 'warm'"),
        ({"inputs": [{}, {}]}, 400, "inputs[1].name", "twice"),
    ],
    ids=str,
)
def test_series_that_cannot_be_forecast_are_refused_in_kserve_s_form(
    client: httpx.Client, platform: Platform, change: dict[str, Any], status: int, field: str, said: str
) -> None:
    body = asked(platform, (1,))
    if "inputs" in change:
        change = {"inputs": [{**body["inputs"][0], **item} for item in change["inputs"]]}
    response = client.post(SERIES, json={**body, **change})
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (str(status), field)
    assert said in error["message"]


def test_quantiles_are_the_bounds_of_the_intervals() -> None:
    made = forecast(entities=1)
    lower, upper = made.outputs - 1, made.outputs + 2
    made.__dict__["answers"] = Answers(made.outputs, lower, upper, 0.8, (Bounds(lower - 1, upper + 1, 0.95),))
    series = {"type": "multivariate_time_series", "name": "0", "series": [0], "frequency": "15min"}

    def content(quantiles: list[float], entity: str = "0") -> dict[str, Any]:
        options = {"horizon": 2, "quantiles": quantiles}
        request = timeseries.ForecastRequest.model_validate(
            {"model": "e", "inputs": [{**series, "name": entity}], "options": options}
        )
        made.__dict__["entity_ids"] = np.array(["0"], object)
        found: dict[str, Any] = httpx.Response(200, content=timeseries.Writer(request, "r")(made)).json()
        return dict(found["outputs"][0]["content"][0]["quantiles"])

    found = content([0.975, 0.1, 0.5, 0.9])
    for level, values in (("0.1", lower), ("0.5", made.outputs), ("0.9", upper), ("0.975", upper + 1)):
        assert float32(found[level]) == values[0, :2].tolist()
    # Nothing is made up between those that were calibrated.
    with pytest.raises(ServingError, match=r"found 0\.2, expected some of 0\.025, 0\.1, 0\.5, 0\.9, 0\.975"):
        content([0.1, 0.2])
    # As tensors they are outputs of their own.
    asked = inference_v2.InferRequest.model_validate({"inputs": [{"name": "a", "shape": [1], "datatype": "FP32"}]})
    outputs = httpx.Response(200, content=inference_v2.Writer("e", asked)(made)).json()["outputs"]
    names = [output["name"] for output in outputs]
    ends = ("", "_lower", "_upper", "_lower_95", "_upper_95")
    assert names == [*(f"{target}{end}" for target in ("oil", "load") for end in ends), "timestamps"]
    assert float32(outputs[2]["data"]) == upper[0, :, 0].tolist()


def frame(platform: Platform, units: tuple[int, ...] = (1, 3)) -> pd.DataFrame:
    found = platform.raw[platform.raw.entity_id.isin(units)].groupby("entity_id").tail(STEPS).reset_index(drop=True)
    # MLflow's server takes numbers as doubles.
    return found.astype({"load": "float64", "oil": "float64"})


def scored(client: httpx.Client, rows: pd.DataFrame) -> pd.DataFrame:
    answer = ScoringServerClient("127.0.0.1", client.base_url.port).invoke(rows)
    return answer.get_predictions()


def test_mlflow_s_client_has_the_answer_of_mlflow_s_own_loading(client: httpx.Client, platform: Platform) -> None:
    scoring = ScoringServerClient("127.0.0.1", client.base_url.port)
    scoring.wait_server_ready(timeout=5)
    assert scoring.get_version() == mlflow.__version__
    assert client.get("/health").status_code == 200
    rows = frame(platform)
    open_tracking(platform.settings)
    expected = mlflow.pyfunc.load_model(f"models:/{FORECAST}_forecaster@production").predict(rows)
    found = scored(client, rows)
    assert list(found.columns) == list(expected.columns)
    assert found.event_timestamp.tolist() == [moment.isoformat() for moment in expected.event_timestamp]
    for name in ("entity_id", "oil", "observed", "is_fallback"):
        assert found[name].tolist() == expected[name].tolist(), name


def test_missing_numbers_and_columns_that_the_model_does_not_read_are_no_obstacle(
    client: httpx.Client, platform: Platform
) -> None:
    rows = frame(platform, (1,)).assign(comment="unread")
    rows.loc[4, "load"] = np.nan
    sent = platform.rows(STEPS)
    sent[4]["load"] = None
    expected = client.post("/predict", json={"rows": sent}).json()["forecasts"][0]["values"]["oil"]
    assert float32(scored(client, rows)["oil"]) == float32(expected)


TABLE = [{"width": 3.5, "colour": "red"}, {"width": 7.25, "colour": "blue"}]
BY_COLUMN = {name: [row[name] for row in TABLE] for name in TABLE[0]}
BODIES = {
    "split": {"dataframe_split": {"columns": list(BY_COLUMN), "data": [list(row.values()) for row in TABLE]}},
    "records": {"dataframe_records": TABLE},
    "instances": {"instances": TABLE},
    "inputs": {"inputs": BY_COLUMN},
}


@pytest.mark.parametrize("form", BODIES)
@pytest.mark.parametrize("model", [REGRESSION, CLASSES])
def test_every_form_of_mlflow_s_rows_is_read(client: httpx.Client, form: str, model: str) -> None:
    rows = client.post(f"/models/{model}/predict", json={"rows": TABLE}).json()["predictions"]
    expected = [
        {"weight": row["value"]} if "value" in row else {f"probability_{k}": v for k, v in row["probabilities"].items()}
        for row in rows
    ]
    found = client.post(f"/models/{model}/invocations", json=BODIES[form]).json()["predictions"]
    assert [list(row) for row in found] == [list(row) for row in expected]
    assert [float32([*row.values()]) for row in found] == [float32([*row.values()]) for row in expected]


def test_csv_is_read_with_the_ids_and_types_of_the_model(client: httpx.Client, platform: Platform) -> None:
    rows = frame(platform, (3,))
    text = rows.to_csv(index=False)
    response = client.post("/invocations", content=text, headers={"content-type": "text/csv"})
    assert response.status_code == 200, response.text
    assert response.json()["predictions"] == scored(client, rows).to_dict(orient="records")


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "said"),
    [
        ("/models/other/invocations", "{}", "application/json", 404, "no model"),
        (f"/models/{NOTHING}/invocations", "{}", "application/json", 503, "no pair"),
        ("/invocations", "{}", "application/json", 400, "exactly one of"),
        ("/invocations", "[]", "application/json", 400, "exactly one of"),
        ("/invocations", "{", "application/json", 400, "not JSON"),
        ("/invocations", "[" * 100_000, "application/json", 400, "not JSON"),
        ("/invocations", b"\xff", "application/json", 400, "not JSON"),
        ("/invocations", "a,b\n1", "application/octet-stream", 415, "text/csv"),
        ("/invocations", '{"dataframe_split": 1}', "application/json", 400, "columns and data"),
        ("/invocations", '{"dataframe_split": {"columns": [[]], "data": []}}', "application/json", 400, "names"),
        ("/invocations", '{"dataframe_split": {"columns": ["a"], "data": [1]}}', "application/json", 400, "data[0]"),
        ("/invocations", '{"dataframe_records": [1]}', "application/json", 400, "one per row"),
        ("/invocations", '{"dataframe_records": []}', "application/json", 400, "no rows"),
        ("/invocations", '{"inputs": {"a": [1], "b": []}}', "application/json", 400, "one length"),
        ("/invocations", '{"inputs": [[1, 2]]}', "application/json", 400, "name the columns"),
        ("/invocations", '{"instances": [{"load": 1}]}', "application/json", 400, "rows[0].entity_id"),
        ("/invocations", "", "text/csv", 400, "CSV"),
        ("/invocations", b"\xff\xfe", "text/csv", 400, "CSV"),
        ("/invocations", "entity_id,load\none,1\n", "text/csv", 400, "column entity_id"),
        ("/invocations", "entity_id,load\n1,much\n", "text/csv", 400, "column load"),
        ("/invocations", "entity_id,load\n1,2\n", "text/csv", 400, "rows[0].event_timestamp"),
        ("/invocations", " " * 2**21, "application/json", 413, "at most"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_scored_is_refused_in_mlflow_s_form(
    client: httpx.Client, path: str, body: str, kind: str, status: int, said: str
) -> None:
    response = client.post(path, content=body, headers={"content-type": kind})
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error_code", "message"}
    assert said in response.json()["message"]


def row_at(hour: int, **changes: Any) -> dict[str, Any]:
    """Return a row of a unit that no other test asks for, under the dataset's own names."""
    load = 0.5 + 0.01 * (hour % 7)
    return {"unit": 9, "time": f"{moment_at(hour)}Z", "load": load, "oil": 50.0, "cooling": "air", **changes}


def moment_at(hour: int) -> np.datetime64:
    moment: np.datetime64 = START.astype("datetime64[s]") + hour * np.timedelta64(1, "h")
    return moment


def test_a_pushed_row_is_seen_by_the_next_forecast(client: httpx.Client) -> None:
    def window_end() -> Any:
        answer = client.post("/predict/feast/batch", json={"entities": [9]}).json()
        return answer["forecasts"][0]["window_end"] if "forecasts" in answer else answer["error"]["code"]

    assert window_end() == "unknown_entity"
    known = [row_at(hour) for hour in range(HOURS - STEPS, HOURS)]
    answer = client.post(PUSH, json={"dataset": "tiny", "rows": known}, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["stored"], answer.json()["quarantined"], answer.json()["entities"]) == (STEPS, 0, 1)
    assert window_end() == f"{moment_at(HOURS - 1)}Z"
    # A load above the column's limit, a text that is no time, a row between two steps, and one of the future.
    rows = [row_at(HOURS), row_at(HOURS + 1, load=99.0), row_at(HOURS + 1, time="soon")]
    rows += [
        row_at(HOURS, time=f"{moment_at(HOURS) + np.timedelta64(7, 'm')}Z"),
        row_at(HOURS, time="2099-01-01T00:00"),
    ]
    answer = client.post(PUSH, json={"model": FORECAST, "rows": rows}, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["dataset"], found["rows"], found["stored"], found["quarantined"]) == ("tiny", 5, 1, 4)
    assert sum(found["reasons"].values()) == 4
    assert found["reasons"]["after now"] == 1
    assert any("load" in reason for reason in found["reasons"])
    assert window_end() == f"{moment_at(HOURS)}Z"
    again = client.post(PUSH, json={"model": FORECAST, "rows": rows[:1]}, headers=ADMIN).json()
    assert (again["stored"], again["entities"]) == (1, 0)
    gone = client.post(PUSH, json={"dataset": "tiny", "rows": [{"unit": 9, "scrapped": True}]}, headers=ADMIN)
    assert (gone.status_code, gone.json()["removed"], gone.json()["reasons"]) == (200, 1, {})
    assert window_end() == "unknown_entity"
    back = client.post(PUSH, json={"rows": [row_at(HOURS, scrapped=False)]}, headers=ADMIN).json()
    assert (back["removed"], back["entities"]) == (0, 1)
    assert window_end() == f"{moment_at(HOURS)}Z"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "other"}, 404, "unknown_model"),
        ({"dataset": "other"}, 404, "unknown_dataset"),
        ({"dataset": "tiny", "model": FORECAST}, 422, "invalid_request"),
        ({"rows": []}, 422, "invalid_request"),
        ({"rows": [{"unit": 1}]}, 422, "invalid_rows"),
        ({"rows": [row_at(1, unit=[1])]}, 422, "invalid_rows"),
        ({"rows": [row_at(1, unit=2**63)]}, 422, "invalid_rows"),
        ({"rows": [row_at(1, unit="one")]}, 422, "invalid_rows"),
        ({"rows": [row_at(1), row_at(1, unit="one")]}, 422, "invalid_rows"),
        ({"rows": [row_at(1, time=1)]}, 422, "invalid_rows"),
        ({"rows": [row_at(1, load="much")]}, 422, "invalid_rows"),
        ({"rows": [row_at(1, cooling=True)]}, 422, "invalid_rows"),
        ({"rows": [row_at(1, scrapped="yes")]}, 422, "invalid_rows"),
        ({"rows": [{"scrapped": True}]}, 422, "invalid_rows"),
        ({"rows": [{"unit": 1, "scrapped": False}]}, 422, "invalid_rows"),
    ],
    ids=str,
)
def test_rows_that_cannot_be_pushed_are_refused(
    client: httpx.Client, change: dict[str, Any], status: int, code: str
) -> None:
    response = client.post(PUSH, json={"rows": [row_at(1)], **change}, headers=ADMIN)
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code


def test_a_push_needs_the_admin_token(client: httpx.Client) -> None:
    assert client.post(PUSH, json={"rows": [row_at(1)]}).status_code == 401
    wrong = {"authorization": "Bearer wrong"}
    assert client.post(PUSH, json={"rows": [row_at(1)]}, headers=wrong).status_code == 401


class Addresses(HTMLParser):
    """Collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "spec-url")]


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_load_nothing_from_elsewhere(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert re.findall(r"https?://|//[a-z]+\.", page.text) == []
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    parser = Addresses()
    parser.feed(page.text)
    assert any(address.endswith(".js") for address in parser.found)
    for address in [address for address in parser.found if address]:
        assert client.get(address).status_code == 200, address


def test_everything_that_the_description_refers_to_is_in_it(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    found = set(re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(document)))
    assert found
    for reference in found:
        place = document
        for key in reference.removeprefix("#/").split("/"):
            place = place[key]
    # Whole descriptions of the bodies that are read by hand.
    body = document["paths"]["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "shape" in body["properties"]["inputs"]["items"]["properties"]


def test_the_pages_examples_are_answered_by_the_model_that_is_served(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    asked = 0
    for path, methods in paths.items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        for name, example in content.get("application/json", {}).get("examples", {}).items():
            address = path.replace("{name}", name).replace("{version}", "1")
            response = client.post(address, json=example["value"], headers=ADMIN)
            assert response.status_code == 200, (address, response.text)
            asked += 1
    # The default model's on every route, and two more on those that name one.
    assert asked == 10 + 2 * 5
    described = client.get("/openapi.json").json()["paths"][PUSH]["post"]["requestBody"]["content"]["application/json"]
    assert set(described["examples"]) == {FORECAST}
    rows = paths["/predict"]["post"]["requestBody"]["content"]["application/json"]["examples"][FORECAST]["value"][
        "rows"
    ]
    assert (len(rows), set(rows[0])) == (STEPS, {"entity_id", "event_timestamp", "load", "oil", "cooling"})


def test_a_push_of_table_rows_is_read_by_the_next_prediction(client: httpx.Client) -> None:
    def predicted(entity: int) -> httpx.Response:
        return client.post(f"/models/{REGRESSION}/predict/feast/batch", json={"entities": [entity]})

    assert predicted(1000).status_code == 404
    rows = [{"entity_id": 1000, "width": 3.5, "colour": "red", "weight": None, "kind": None}]
    rows.append({**rows[0], "entity_id": 1001, "width": None})
    answer = client.post(PUSH, json={"model": REGRESSION, "rows": rows}, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["stored"], answer.json()["quarantined"]) == (1, 1)
    assert predicted(1001).status_code == 404
    sent = client.post(f"/models/{REGRESSION}/predict", json={"rows": TABLE[:1]}).json()
    assert predicted(1000).json()["predictions"][0]["value"] == sent["predictions"][0]["value"]


def test_a_request_beyond_the_limit_is_told_so_in_its_protocol_s_form(platform: Platform) -> None:
    settings = platform.serving(FORECAST)
    settings = replace(settings, limits=replace(settings.limits, max_requests=0))
    with TestClient(build_app({FORECAST: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        forms = {f"/v2/models/{FORECAST}/infer": "error", SERIES: "error", "/invocations": "message"}
        for path, key in forms.items():
            response = client.post(path, json={})
            assert (response.status_code, response.headers["retry-after"]) == (429, "1"), path
            assert "works for 0 prediction requests already" in str(response.json()[key])


def test_the_commands_of_the_documentation_work(client: httpx.Client, platform: Platform, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    section = text.partition("### Protocols\n")[2].partition("\n### ")[0]
    commands = [
        command
        for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
        for command in re.split(r"(?m)^(?=curl)", block)
    ]
    commands = [command for command in commands if command]
    assert len(commands) == 8
    files = {
        "series.json": asked(platform),
        "split.json": {"dataframe_split": json.loads(frame(platform).to_json(orient="split", date_format="iso"))},
        "push.json": {"dataset": "tiny", "rows": platform.rows(2)},
        "labels.json": {"model": REGRESSION, "labels": [{"request_id": "of nobody", "row": 0, "value": 151.0}]},
    }
    files["split.json"]["dataframe_split"].pop("index")
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    frame(platform).to_csv(tmp_path / "rows.csv", index=False)
    environ = {**os.environ, "MLPLATFORM_ADMIN_TOKEN": TOKEN}
    for command in commands:
        line = command.replace("localhost:8000", f"127.0.0.1:{client.base_url.port}").replace("fleet_xgboost", FORECAST)
        line = line.replace("curl -s", "curl -sS --fail-with-body", 1)
        ended = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
