"""Rows of the dataset that say what is known of the future: they stand after the window, and answer in its place."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from mlplatform.config import StalenessConfig
from mlplatform.datamodule import REFERENCE, read_manifest
from mlplatform.features.feast.repository import open_store
from mlplatform.forecasts import make_forecasts, read_forecasts, read_left_out
from mlplatform.registry import ShortSeries
from mlplatform.registry.tracking import open_tracking
from mlplatform.settings import Settings
from mlplatform.testing.meters import meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, GROUPS, TRAIN, Yard
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.bundle import BundleLoader
from serving.errors import ServingError
from serving.inference import read_panel
from serving.local import LocalBackend

AHEAD = 6
ANSWERS: dict[str, Callable[[Any], Any]] = {
    "/predict": lambda answer: answer["forecasts"][0]["values"]["load"],
    "/v2/models/{name}/infer": lambda answer: answer["outputs"][0]["data"],
    "/v1/timeseries/forecast": lambda answer: answer["outputs"][0]["content"][0]["mean_forecast"],
    "/invocations": lambda answer: [row["load"] for row in answer["predictions"]],
}
# What is known of the future lies after the present.
END = pd.Timestamp.now(tz="UTC").floor("h") - pd.Timedelta(hours=1)


def shift_of(times: pd.Series) -> np.ndarray:
    return (pd.to_datetime(times).dt.hour < 12).astype(float).to_numpy()


def planned(name: str, steps: int) -> pd.DataFrame:
    """Rows after the end, in which only the shift is there."""
    times = pd.date_range(END, periods=steps + 1, freq="h")[1:].strftime("%Y-%m-%dT%H:%M:%SZ")
    return pd.DataFrame({"time": times, "line": name, "load": np.nan})


@pytest.fixture(scope="module")
def known_yard(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    """The next shifts of `a` are known for the whole horizon, those of `b` for two hours, those of `c` not at all."""
    rows = pd.concat(
        [meter_rows(dict.fromkeys("abc", 480), end=END.isoformat()), planned("a", 8), planned("b", 2)],
        ignore_index=True,
    )
    rows["shift"] = shift_of(rows["time"])
    rows["load"] += 5 * rows["shift"]
    yard = meter_yard(
        tmp_path_factory.mktemp("known"),
        mlflow_database,
        rows,
        dataset={"columns": {"load": {}, "shift": {}}, "future_tolerance": "2D"},
        features={"columns": ["load", "shift"], "known_future": ["shift"]},
        model=GROUPS["model"],
    )
    assert yard.run(TRAIN).success
    return yard


@pytest.fixture(scope="module")
def client(known_yard: Yard) -> Iterator[TestClient]:
    settings = Settings.from_env({**known_yard.environ, "MLPLATFORM_EXPERIMENT": EXPERIMENT})
    with TestClient(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        yield client


def ask(client: TestClient, *entities: str, future: list[dict[str, Any]] | None = None) -> Any:
    body = {"entities": list(entities), **({} if future is None else {"future": future})}
    return client.post("/predict/feast/batch", json=body)


def requested(name: str, *, flipped: bool = False) -> list[dict[str, Any]]:
    rows = planned(name, AHEAD)
    shifts = np.abs(shift_of(rows["time"]) - flipped)
    pairs = zip(rows["time"], shifts, strict=True)
    return [{"entity_id": name, "event_timestamp": time, "shift": shift} for time, shift in pairs]


def test_the_reference_set_ends_where_the_load_was_last_observed(known_yard: Yard) -> None:
    part = read_manifest(known_yard.settings, "yard", "yard").parts[REFERENCE]
    assert pd.Timestamp(part.end) == pd.Timestamp(END)


def test_what_is_materialised_ends_at_the_present(known_yard: Yard) -> None:
    """An end in the future would make a later incremental run skip rows."""
    store = open_store(known_yard.settings)
    views = store.list_feature_views()
    assert views
    assert all(view.most_recent_end_time <= dt.datetime.now(dt.UTC) for view in views)


def test_the_rows_stand_for_the_future_when_the_request_brings_none(client: TestClient) -> None:
    (found,) = ask(client, "a").json()["forecasts"]
    assert pd.to_datetime(found["timestamps"]).tolist() == list(pd.date_range(END, periods=AHEAD + 1, freq="h")[1:])
    (same,) = ask(client, "a", future=requested("a")).json()["forecasts"]
    assert found["values"] == same["values"]


def test_what_the_request_says_comes_first(client: TestClient) -> None:
    (stored,) = ask(client, "a").json()["forecasts"]
    (other,) = ask(client, "a", future=requested("a", flipped=True)).json()["forecasts"]
    assert stored["values"] != other["values"]


def test_the_registered_forecaster_ends_the_past_where_the_server_does(client: TestClient, known_yard: Yard) -> None:
    """Of eight known shifts six are read: the past ends with the last load, not six rows from the end."""
    open_tracking(known_yard.settings)
    model = mlflow.pyfunc.load_model(f"models:/{EXPERIMENT}_forecaster@production")
    rows = pd.concat([meter_rows(dict.fromkeys("abc", 480), end=END.isoformat()), planned("a", 8), planned("b", 2)])
    rows["shift"] = shift_of(rows["time"])
    rows["load"] = (rows["load"] + 5 * rows["shift"]).astype("float32")
    rows = rows.assign(event_timestamp=pd.to_datetime(rows["time"])).rename(columns={"line": "entity_id"})
    answers = model.predict(rows)
    (served,) = ask(client, "a").json()["forecasts"]
    assert answers["load"].tolist() == np.float32(served["values"]["load"]).tolist()
    assert answers["event_timestamp"].tolist() == pd.to_datetime(served["timestamps"]).tolist()
    assert set(answers["observed"]) == {served["observed"]}
    reason = "no row for some of the 6 steps after the last one that has more than shift"
    assert answers.attrs["skipped"] == dict.fromkeys("bc", reason)


def test_who_does_not_read_the_plan_does_not_take_it_for_the_past(known_yard: Yard) -> None:
    settings = Settings.from_env({**known_yard.environ, "MLPLATFORM_EXPERIMENT": EXPERIMENT})
    loader = BundleLoader(settings)
    bundle = loader.load(loader.production())
    plain = replace(bundle.pair.contract, known=())
    panel = read_panel(plain, bundle.dataset, StalenessConfig(), list("abc"), "now", settings)
    ends = pd.to_datetime(panel.timestamps[panel.offsets[1:] - 1], utc=True)
    assert (ends >= END).all()
    assert (ends <= pd.Timestamp.now(tz="UTC")).all()
    assert ends[2] == END


def test_features_are_as_old_as_what_was_measured(client: TestClient) -> None:
    """What is planned for tomorrow says nothing about how fresh the measurements are."""
    for name in "ac":
        (found,) = ask(client, name, future=requested(name)).json()["forecasts"]
        assert pd.Timestamp(found["event_time"]) == pd.Timestamp(END)


def test_entities_with_too_short_a_window_are_refused_by_name_and_cost_the_others_nothing(known_yard: Yard) -> None:
    settings = Settings.from_env({**known_yard.environ, "MLPLATFORM_EXPERIMENT": EXPERIMENT})
    loader = BundleLoader(settings)
    bundle = loader.load(loader.production())
    longer = replace(bundle.pair.contract, lookback=bundle.dataset.window_steps - bundle.pair.contract.context)
    with pytest.raises(ServingError) as caught:
        read_panel(longer, bundle.dataset, StalenessConfig(), ["c", "a"], "now", settings)
    assert (caught.value.status, caught.value.code, caught.value.entities) == (409, "short_window", ("a",))
    assert not caught.value.is_left_out
    with pytest.raises(ServingError) as caught:
        read_panel(longer, bundle.dataset, StalenessConfig(), ["c", "a"], "now", settings, ShortSeries("skip"))
    assert (caught.value.entities, caught.value.is_left_out) == (("a",), True)


def test_the_future_of_who_is_left_out_is_no_obstacle(client: TestClient) -> None:
    (alone,) = ask(client, "a", future=requested("a")).json()["forecasts"]
    strangers = [{**row, "entity_id": "nobody"} for row in requested("a")]
    answer = ask(client, "nobody", "a", future=[*strangers, *requested("a")])
    assert answer.status_code == 200
    assert [(each["entity"], each["code"]) for each in answer.json()["errors"]] == [("nobody", "unknown_entity")]
    assert [each["values"] for each in answer.json()["forecasts"]] == [alone["values"]]


def test_steps_that_neither_knows_are_named(client: TestClient) -> None:
    answer = client.post("/predict/feast/batch", json={"entities": ["a", "b", "c"], "on_error": "fail"})
    assert answer.status_code == 422
    details = answer.json()["error"]["details"]
    assert [detail["found"] for detail in details] == [
        *(f"no values of shift for step {step} of entity 'b'" for step in (3, 4, 5, 6)),
        *(f"no values of shift for step {step} of entity 'c'" for step in (1, 2, 3, 4, 5, 6)),
    ]
    assert ask(client, "b", "c").status_code == 422


def test_whose_future_is_not_known_is_named_beside_the_others(client: TestClient) -> None:
    (alone,) = ask(client, "a").json()["forecasts"]
    answer = ask(client, "a", "b", "c").json()
    assert [(each["entity"], each["values"]) for each in answer["forecasts"]] == [("a", alone["values"])]
    assert [(each["entity"], each["code"]) for each in answer["errors"]] == [
        ("b", "invalid_rows"),
        ("c", "invalid_rows"),
    ]
    assert "found no values of shift for step 3 of entity 'b'" in answer["errors"][0]["message"]
    sent = ask(client, "a", "b", future=[*requested("a"), *requested("b")[:2]]).json()
    assert [each["values"] for each in sent["forecasts"]] == [alone["values"]]
    assert [each["entity"] for each in sent["errors"]] == ["b"]


def test_protocols_bring_what_is_known_after_the_past(client: TestClient) -> None:
    """Every page's example has it, and all of them are answered alike, nulls standing where nobody knows yet."""
    found = {}
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if EXPERIMENT in content.get("examples", {}) and path in ANSWERS:
            response = client.post(path.replace("{name}", EXPERIMENT), json=content["examples"][EXPERIMENT]["value"])
            assert response.status_code == 200, (path, response.text)
            found[path] = np.float32(ANSWERS[path](response.json())).tolist()
    assert found.keys() == ANSWERS.keys()
    assert len(set(map(tuple, found.values()))) == 1
    whole = client.get(f"/v2/models/{EXPERIMENT}").json()["inputs"]
    shapes = {item["name"]: (item["datatype"], item["shape"][1:]) for item in whole}
    past = shapes["load"][1][0]
    assert shapes["entity_id"] == ("BYTES", [])
    assert (shapes["shift"], shapes["event_timestamp"]) == (("FP32", [past + AHEAD]), ("BYTES", [past + AHEAD]))


def test_bounds_of_intervals_are_quantiles_and_outputs(client: TestClient) -> None:
    (told,) = ask(client, "a").json()["forecasts"]
    interval = told["interval"]
    entity = {"name": "entity_id", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    outputs = client.post(f"/v2/models/{EXPERIMENT}/infer", json={"inputs": [entity]}).json()["outputs"]
    found = {output["name"]: output.get("data") for output in outputs}
    described = [output["name"] for output in client.get(f"/v2/models/{EXPERIMENT}").json()["outputs"]]
    assert list(found) == described == ["load", "load_lower", "load_upper", "timestamps"]
    assert [found["load_lower"], found["load_upper"]] == [interval[side]["load"] for side in ("lower", "upper")]
    paths = client.get("/openapi.json").json()["paths"]
    content = paths["/v1/timeseries/forecast"]["post"]["requestBody"]["content"]["application/json"]
    request = content["examples"][EXPERIMENT]["value"]
    low, high = (round((1 + sign * interval["coverage"]) / 2, 6) for sign in (-1, 1))
    request["options"] = {"horizon": 2, "quantiles": [low, 0.5, high]}
    rows = paths["/predict"]["post"]["requestBody"]["content"]["application/json"]["examples"][EXPERIMENT]["value"]
    (expected,) = client.post("/predict", json=rows).json()["forecasts"]
    answer = client.post("/v1/timeseries/forecast", json=request).json()["outputs"][0]["content"][0]
    sides = [expected["interval"]["lower"], expected["values"], expected["interval"]["upper"]]
    assert list(answer["quantiles"].values()) == [side["load"][:2] for side in sides]
    request["options"]["quantiles"] = [0.25]
    refused = client.post("/v1/timeseries/forecast", json=request)
    assert refused.status_code == 400
    assert f"found 0.25, expected some of {low:g}, 0.5, {high:g}" in refused.json()["error"]["message"]


def test_a_batch_leaves_out_whose_future_is_not_known(client: TestClient, known_yard: Yard) -> None:
    (served,) = ask(client, "a").json()["forecasts"]
    report = make_forecasts(known_yard.config, known_yard.settings)
    assert (report.entities, report.left_out, report.origin) == (1, {"unknown_future": 2}, END)
    found = read_forecasts(known_yard.settings, EXPERIMENT)
    assert set(found["entity_id"]) == {"a"}
    assert found["value"].tolist() == np.array(served["values"]["load"], np.float32).tolist()
    for side in ("lower", "upper"):
        assert found[side].tolist() == np.array(served["interval"][side]["load"], np.float32).tolist()
    assert set(found["coverage"]) == {served["interval"]["coverage"]}
    assert found["timestamp"].tolist() == pd.to_datetime(served["timestamps"]).tolist()
    assert [list(marks) for marks in found["marks"]] == [served["marks"]] * AHEAD
    left_out = read_left_out(known_yard.settings, EXPERIMENT).set_index("entity_id")["found"]
    assert left_out.to_dict() == {
        "b": "no values of shift for step 3, 4, 5, 6",
        "c": "no values of shift for step 1, 2, 3, 4, 5, 6",
    }
