"""The Open Inference Protocol, asked by Triton's own client, which knows nothing of this server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import in_thread

FORECAST, REGRESSION, CLASSES, NOTHING = "tiny_forecast", "tiny_regression", "tiny_classification", "tiny_untrained"
# Lookback 12 and two steps of context.
STEPS = 14
TABLE = [{"width": 3.5, "colour": "red"}, {"width": 7.25, "colour": "blue"}]


@dataclass(frozen=True)
class Server:
    """A running server, by both clients."""

    plain: httpx.Client
    triton: InferenceServerClient


@pytest.fixture(scope="module")
def server(platform: Platform) -> Iterator[Server]:
    names = FORECAST, REGRESSION, CLASSES, NOTHING
    with in_thread(platform.application(*names)) as plain:
        for name in names[1:3]:
            plain.post(f"/admin/reload/{name}", headers={"authorization": f"Bearer {TOKEN}"})
        triton = InferenceServerClient(f"127.0.0.1:{plain.base_url.port}")
        yield Server(plain, triton)
        triton.close()


def tensor(name: str, values: npt.NDArray[Any], *, binary: bool = True) -> InferInput:
    kind = {"f": "FP32", "i": "INT64", "O": "BYTES"}[values.dtype.kind]
    found = InferInput(name, list(values.shape), kind)
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def columns(rows: list[list[dict[str, Any]]], name: str, kind: str) -> npt.NDArray[Any]:
    """Return a column of series of rows, of shape (entities, steps)."""
    return np.array([[row[name] for row in series] for series in rows], kind)


def forecast_inputs(rows: list[list[dict[str, Any]]], *, binary: bool, counts_time: bool = False) -> list[InferInput]:
    times = columns(rows, "event_timestamp", "O")
    if counts_time:
        times = np.array([[text.removesuffix("+00:00") for text in row] for row in times], "datetime64[ns]").astype(
            "i8"
        )
    return [
        tensor("entity_id", np.array([series[0]["entity_id"] for series in rows], "i8"), binary=binary),
        tensor("event_timestamp", times, binary=binary),
        tensor("load", columns(rows, "load", "f4"), binary=binary),
        tensor("oil", columns(rows, "oil", "f4"), binary=binary),
        tensor("cooling", columns(rows, "cooling", "O"), binary=binary),
    ]


def table_inputs(*, binary: bool) -> list[InferInput]:
    return [
        tensor("width", np.array([row["width"] for row in TABLE], "f4"), binary=binary),
        tensor("colour", np.array([row["colour"] for row in TABLE], "O"), binary=binary),
    ]


def texts(values: npt.NDArray[Any]) -> list[Any]:
    """Return texts, which the client returns as bytes where they came so."""
    return [text.decode() if isinstance(text, bytes) else text for text in values.reshape(-1).tolist()]


def float32(values: Any) -> list[Any]:
    found: list[Any] = np.asarray(values, np.float32).tolist()
    return found


def array(result: InferResult, name: str) -> npt.NDArray[Any]:
    found = result.as_numpy(name)
    assert found is not None, result.get_response()
    return np.asarray(found)


def test_server_and_models_are_live_ready_and_described(server: Server) -> None:
    triton = server.triton
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    ready = {name: triton.is_model_ready(name) for name in (FORECAST, REGRESSION, CLASSES, NOTHING, "other")}
    assert ready == {FORECAST: True, REGRESSION: True, CLASSES: True, NOTHING: False, "other": False}
    assert (triton.is_model_ready(FORECAST, "1"), triton.is_model_ready(FORECAST, "2")) == (True, False)
    found = triton.get_model_metadata(FORECAST, "1")
    assert (found["name"], found["versions"]) == (FORECAST, ["1"])
    assert {item["name"]: (item["datatype"], item["shape"]) for item in found["inputs"]} == {
        "entity_id": ("INT64", [-1]),
        "event_timestamp": ("BYTES", [-1, STEPS]),
        "load": ("FP32", [-1, STEPS]),
        "oil": ("FP32", [-1, STEPS]),
        "cooling": ("BYTES", [-1, STEPS]),
    }
    assert found["outputs"] == [
        {"name": "oil", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "timestamps", "datatype": "BYTES", "shape": [-1, 3]},
    ]
    classes = triton.get_model_metadata(CLASSES)["outputs"][1]
    assert (classes["shape"], classes["parameters"]) == ([-1, 2], {"classes": '["large", "small"]'})


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("counts_time", [True, False], ids=["nanoseconds", "text"])
def test_a_forecast_has_the_bits_of_predict(
    server: Server, platform: Platform, binary: bool, counts_time: bool
) -> None:
    rows = [platform.rows(STEPS, unit) for unit in (3, 1)]
    expected = server.plain.post("/predict", json={"rows": [row for series in rows for row in series]}).json()
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in ("timestamps", "oil")]
    result = server.triton.infer(
        FORECAST,
        forecast_inputs(rows, binary=binary, counts_time=counts_time),
        outputs=outputs,
        request_id="seven",
        parameters={"timestamp_unit": "ns"} if counts_time else None,
    )
    assert [output["name"] for output in result.get_response()["outputs"]] == ["timestamps", "oil"]
    assert (result.get_response()["model_version"], result.get_response()["id"]) == ("1", "seven")
    forecasts = expected["forecasts"]
    assert float32(array(result, "oil")) == [float32(forecast["values"]["oil"]) for forecast in forecasts]
    times = array(result, "timestamps")
    if counts_time:
        found = [f"{moment}Z" for moment in times.astype("datetime64[ns]").astype("datetime64[s]").reshape(-1)]
    else:
        found = texts(times)
    assert found == [moment for forecast in forecasts for moment in forecast["timestamps"]]


@pytest.mark.parametrize("compression", [None, "gzip"], ids=["plain", "gzip"])
def test_without_outputs_named_all_of_them_come_as_bytes(
    server: Server, platform: Platform, compression: str | None
) -> None:
    inputs = forecast_inputs([platform.rows(STEPS)], binary=True)
    result = server.triton.infer(FORECAST, inputs, request_compression_algorithm=compression)
    outputs = result.get_response()["outputs"]
    assert [(output["name"], "data" in output) for output in outputs] == [("oil", False), ("timestamps", False)]


def test_entities_alone_are_answered_from_the_feature_store(server: Server) -> None:
    expected = server.plain.post("/predict/feast/batch", json={"entities": [3, 1]}).json()["forecasts"]
    result = server.triton.infer(FORECAST, [tensor("entity_id", np.array([3, 1], "i8"))])
    assert float32(array(result, "oil")) == [float32(forecast["values"]["oil"]) for forecast in expected]


def test_a_missing_number_is_nan(server: Server, platform: Platform) -> None:
    rows = platform.rows(STEPS)
    rows[4]["load"] = None
    expected = server.plain.post("/predict", json={"rows": rows}).json()["forecasts"]
    result = server.triton.infer(FORECAST, forecast_inputs([rows], binary=True))
    assert float32(array(result, "oil")) == [float32(expected[0]["values"]["oil"])]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_tables_have_the_bits_of_predict(server: Server, binary: bool) -> None:
    values, classes = (
        server.plain.post(f"/models/{name}/predict", json={"rows": TABLE}).json()["predictions"]
        for name in (REGRESSION, CLASSES)
    )
    result = server.triton.infer(REGRESSION, table_inputs(binary=binary))
    assert float32(array(result, "value")) == float32([row["value"] for row in values])
    result = server.triton.infer(CLASSES, table_inputs(binary=binary))
    assert texts(array(result, "label")) == [row["label"] for row in classes]
    assert float32(array(result, "probabilities")) == [float32([*row["probabilities"].values()]) for row in classes]


def test_a_version_may_be_chosen(server: Server, platform: Platform) -> None:
    rows = platform.rows(STEPS)
    expected = server.plain.post("/predict", json={"rows": rows, "version": 2}).json()
    result = server.triton.infer(FORECAST, forecast_inputs([rows], binary=True), model_version="2")
    assert result.get_response()["model_version"] == "2"
    assert float32(array(result, "oil"))[0] == float32(expected["forecasts"][0]["values"]["oil"])


def refusal(server: Server, name: str, inputs: list[InferInput], **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as found:
        server.triton.infer(name, inputs, **options)
    return found.value.status(), found.value.message()


def test_what_cannot_be_answered_is_refused_in_the_protocol_s_form(server: Server, platform: Platform) -> None:
    rows = [platform.rows(STEPS)]
    inputs = forecast_inputs(rows, binary=True)
    status, message = refusal(server, "other", inputs)
    assert (status, "no model 'other' is served" in message) == ("404", True)
    status, message = refusal(server, FORECAST, inputs, model_version="99")
    assert status == "404"
    status, message = refusal(server, FORECAST, inputs, model_version="first")
    assert (status, "no version 'first'" in message) == ("404", True)
    status, message = refusal(server, FORECAST, inputs[:3] + inputs[4:])
    assert (status, message.startswith("rows[0].oil: found no such column")) == ("400", True)
    status, message = refusal(server, NOTHING, inputs)
    assert (status, "run train_tiny_untrained" in message) == ("503", True)
    status, message = refusal(server, FORECAST, [tensor("entity_id", np.array([99], "i8"))])
    assert (status, "99" in message) == ("404", True)
    status, message = refusal(server, FORECAST, [tensor("entity_id", np.arange(2000))])
    assert (status, "at most 1024" in message) == ("413", True)
    status, message = refusal(server, FORECAST, inputs, outputs=[InferRequestedOutput("gas")])
    assert (status, message) == ("400", "outputs: found 'gas', expected some of oil, timestamps; ask for these")


WIDTH = {"name": "width", "shape": [1], "datatype": "FP32", "data": [1.5]}
COLOUR = {"name": "colour", "shape": [1], "datatype": "BYTES", "data": ["red"]}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([{**WIDTH, "datatype": "INT32", "data": [1]}, COLOUR], "input 'width': found datatype 'INT32', expected FP32"),
        ([{**WIDTH, "datatype": "BYTES", "data": ["1"]}, COLOUR], "input 'width': found datatype 'BYTES'"),
        ([{**WIDTH, "data": ["much"]}, COLOUR], "input 'width': found 'much' as element 0"),
        ([{**WIDTH, "data": [[[1.5]]]}, COLOUR], "input 'width': found [[1.5]] as element 0"),
        (
            [{**WIDTH, "data": [1.5, 2.5]}, COLOUR],
            "input 'width': found 2 values, expected as many values as shape [1]",
        ),
        ([{**WIDTH, "shape": [-1]}, COLOUR], "input 'width': found 1 values"),
        ([{**WIDTH, "shape": [2], "data": [1.5, 2.5]}, COLOUR], "input 'colour': found shape [1], expected shape [2]"),
        ([{**WIDTH, "shape": [2**62, 4], "data": []}, COLOUR], "input 'width': found 0 values"),
        ([{**WIDTH, "shape": [0], "data": []}], "expected at least one row"),
        ([{**WIDTH, "shape": [1, 1, 1], "data": [1.5]}, COLOUR], "input 'width': found shape [1, 1, 1]"),
        ([WIDTH, WIDTH, COLOUR], "input 'width': found the same input twice"),
        ([{key: WIDTH[key] for key in ("name", "shape", "datatype")}, COLOUR], "input 'width': found no data"),
        ([{**WIDTH, "parameters": {"binary_data_size": 4}}, COLOUR], "binary_data_size 4"),
        ([], "inputs: found []"),
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_are_refused(server: Server, inputs: list[Any], said: str) -> None:
    response = server.plain.post(f"/v2/models/{REGRESSION}/infer", json={"inputs": inputs})
    assert response.status_code == 400, response.text
    assert list(response.json()) == ["error"]
    assert said in response.json()["error"]


@pytest.mark.parametrize(
    ("length", "body", "said"),
    [
        ("9999", b"{}", "expected at most 2, the length of the body"),
        ("-1", b"{}", "expected a number of bytes"),
        ("2", b"{}more", "inputs"),
        ("4", b"{\xff", "expected at most 2"),
    ],
    ids=["too long", "negative", "no inputs", "short body"],
)
def test_a_header_length_that_is_wrong_is_refused(server: Server, length: str, body: bytes, said: str) -> None:
    headers = {"inference-header-content-length": length}
    response = server.plain.post(f"/v2/models/{REGRESSION}/infer", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert said in response.json()["error"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x03\x00\x00\x00re", "data that end within element 0"),
        (b"\x03\x00", "data that end within element 0"),
        (b"\x02\x00\x00\x00\xff\xfe", "element 0 that is not UTF-8"),
    ],
    ids=["cut", "no length", "no text"],
)
def test_texts_that_are_cut_or_none_are_refused(server: Server, data: bytes, said: str) -> None:
    colour = {"name": "colour", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    head = httpx.Request("POST", "http://x", json={"inputs": [WIDTH, colour]}).content
    headers = {"inference-header-content-length": str(len(head))}
    response = server.plain.post(f"/v2/models/{REGRESSION}/infer", content=head + data, headers=headers)
    assert response.status_code == 400, response.text
    assert said in response.json()["error"]


def test_a_body_beyond_the_limit_is_refused(server: Server) -> None:
    response = server.plain.post(f"/v2/models/{REGRESSION}/infer", content=b" " * 2**21)
    assert (response.status_code, "at most" in response.json()["error"]) == (413, True)


def test_requests_are_counted_and_logged_like_others(server: Server) -> None:
    before = count(server)
    server.triton.infer(REGRESSION, table_inputs(binary=True))
    assert count(server) == before + len(TABLE)


def count(server: Server) -> float:
    lines = server.plain.get("/metrics").text.splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith("mlplatform_predictions_total") and f'"{REGRESSION}"' in line
    )
