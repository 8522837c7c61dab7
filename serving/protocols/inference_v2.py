"""The Open Inference Protocol, version 2, over HTTP, with its binary tensor data extension.

Specification: https://github.com/kserve/open-inference-protocol. A request brings one tensor per raw column, of shape
[rows], or for a forecast [entities, steps] with the columns `entity_id` of shape [entities] and `event_timestamp`; or
`entity_id` alone, for entities of the feature store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from mlplatform.config import ENTITY, TIMESTAMP, bound_names
from mlplatform.registry import Contract
from mlplatform.registry.pairs import LARGEST_VERSION
from serving.answers import to_json
from serving.backend import DEFAULT, Choice, EntityId, Prediction, Served
from serving.bodies import JSON, parse_json
from serving.errors import ErrorDetail, ServingError, invalid, shown
from serving.examples import example_entities, example_rows
from serving.protocols.failures import route_writing_errors
from serving.protocols.forms import described_body
from serving.protocols.tensors import (
    BINARY_SIZE,
    BYTES,
    FP32,
    INT64,
    InputTensor,
    Values,
    read_tensors,
    written_bytes,
    written_json,
)
from serving.service import Missing, PredictionService, ServedModel

TAG = "Open Inference Protocol v2"

HEADER_LENGTH = "inference-header-content-length"
# Of the request: that times are numbers, in both directions.
TIME_UNIT = "timestamp_unit"
NANOSECONDS = "ns"
# Of the request: that every row of the answer is explained.
EXPLAIN = "explain"
TIMES, LABEL, PROBABILITIES, VALUE = "timestamps", "label", "probabilities", "value"

Arrays = Mapping[str, npt.NDArray[np.generic]]


class AskedOutput(BaseModel):
    """An output that a client wants."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """The JSON part of a request."""

    id: str | None = Field(default=None, max_length=256)
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[AskedOutput] = []

    @property
    def counts_time(self) -> bool:
        """Whether times are nanoseconds since 1970 instead of text."""
        return self.parameters.get(TIME_UNIT) == NANOSECONDS

    @property
    def explains(self) -> bool:
        """Whether the answer says why it is so."""
        return self.parameters.get(EXPLAIN) is True


def routes(service: PredictionService) -> APIRouter:
    """Return the protocol's routes."""
    router = APIRouter(
        tags=[TAG],
        route_class=route_writing_errors(lambda _, error: {"error": error.message}),
    )
    _add_health(router, service)
    _add_models(router, service)
    return router


def _add_health(router: APIRouter, service: PredictionService) -> None:
    @router.get("/v2")
    async def server() -> Response:
        """Name the server and the extensions of the protocol that it speaks."""
        content = {
            "name": "mlplatform",
            "version": installed_version("mlplatform"),
            "extensions": ["binary_tensor_data"],
        }
        return Response(to_json(content), media_type=JSON)

    @router.head("/v2/health/live", include_in_schema=False)
    @router.get("/v2/health/live")
    async def live() -> Response:
        """Say that the process runs."""
        return Response(to_json({"live": True}), media_type=JSON)

    @router.head("/v2/health/ready", include_in_schema=False)
    @router.get("/v2/health/ready")
    async def ready(request: Request) -> Response:
        """Say whether the default model answers, as `/health/ready` does."""
        if request.app.state.server.is_draining:
            raise ServingError(503, "not_ready", "the server is about to stop")
        await _require_ready(service.default)
        return Response(to_json({"ready": True}), media_type=JSON)


def _add_models(router: APIRouter, service: PredictionService) -> None:
    async def answer(request: Request, name: str, choice: Choice) -> Response:
        model = service.model(name)
        header, served = _header_length(request), model.backend.served()
        question = await service.parsed(request, lambda body: _read(body, header, served))
        if question.entities is None:
            prediction, missing = await service.from_rows(
                request, model, question.rows, choice, explain=question.asked.explains
            )
        else:
            prediction, missing = await service.from_entities(
                request, model, question.entities, choice=choice, explain=question.asked.explains
            )
        writer = Writer(model.name, question.asked, missing)
        content = await service.written(request, model, prediction, writer)
        if writer.header_length is None:
            return Response(content, media_type=JSON)
        headers = {HEADER_LENGTH: str(writer.header_length)}
        return Response(content, headers=headers, media_type="application/octet-stream")

    @router.get("/v2/models/{name}")
    async def metadata(name: str) -> Response:
        """Describe a model: its inputs and outputs with datatype and shape."""
        return _described(service.model(name), None)

    @router.get("/v2/models/{name}/versions/{version}")
    async def metadata_of_version(name: str, version: str) -> Response:
        """Describe the version of a model that is served."""
        return _described(service.model(name), version)

    @router.head("/v2/models/{name}/ready", include_in_schema=False)
    @router.get("/v2/models/{name}/ready")
    async def model_ready(name: str) -> Response:
        """Say whether a model answers."""
        await _require_ready(service.model(name))
        return Response(to_json({"name": name, "ready": True}), media_type=JSON)

    @router.head("/v2/models/{name}/versions/{version}/ready", include_in_schema=False)
    @router.get("/v2/models/{name}/versions/{version}/ready")
    async def version_ready(name: str, version: str) -> Response:
        """Say whether that version of a model is the one that is served, and answers."""
        model = service.model(name)
        _require_served(model, version)
        await _require_ready(model)
        return Response(to_json({"name": name, "ready": True}), media_type=JSON)

    body = described_body(InferRequest)

    @router.post("/v2/models/{name}/infer", openapi_extra=body)
    async def infer(request: Request, name: str) -> Response:
        """Predict from tensors."""
        return await answer(request, name, DEFAULT)

    @router.post("/v2/models/{name}/versions/{version}/infer", openapi_extra=body)
    async def infer_by_version(request: Request, name: str, version: str) -> Response:
        """Predict from tensors, by any registered version of a model."""
        return await answer(request, name, Choice(version=_number(service.model(name), version), is_named=True))


async def _require_ready(model: ServedModel) -> None:
    status = await model.backend.status()
    if not status.ready:
        raise ServingError(503, "not_ready", status.reason or "no pair is loaded")


def _require_served(model: ServedModel, version: str | None) -> Served:
    served = model.backend.served()
    if served is None:
        raise ServingError(503, "no_production_pair", f"model {model.name} has no pair in production")
    if version is not None and _number(model, version) != served.pair.version:
        message = f"version {version} of {model.name} is not the one in production, which is {served.pair.version}"
        raise ServingError(404, "unknown_version", message)
    return served


def _number(model: ServedModel, version: str) -> int:
    if not (version.isascii() and version.isdigit() and 1 <= int(version[:20]) <= LARGEST_VERSION):
        message = f"model {model.name} has no version {shown(version)}; versions are whole numbers from 1"
        raise ServingError(404, "unknown_version", message)
    return int(version)


def _described(model: ServedModel, version: str | None) -> Response:
    served = _require_served(model, version)
    content = {
        "name": model.name,
        "versions": [str(served.pair.version)],
        "platform": "mlplatform",
        "inputs": _inputs(served),
        "outputs": _outputs(served),
    }
    return Response(to_json(content), media_type=JSON)


def _inputs(served: Served) -> list[dict[str, Any]]:
    contract = served.pair.contract
    past, whole = [-1], [-1]
    keys: list[dict[str, Any]] = []
    if contract.task == "forecast":
        past, whole = [-1, contract.input_rows], [-1, contract.input_rows + contract.future_rows]
        has_text_ids = any(type(entity) is str for entity in example_entities(served))
        keys = [
            {"name": ENTITY, "datatype": BYTES if has_text_ids else INT64, "shape": [-1]},
            {"name": TIMESTAMP, "datatype": BYTES, "shape": whole},
        ]
    return keys + [
        {
            "name": name,
            "datatype": _datatype(served, name),
            "shape": whole if name in contract.known else past,
        }
        for name in contract.columns
    ]


def _datatype(served: Served, name: str) -> str:
    return BYTES if served.types[name] == "category" else FP32


def _outputs(served: Served) -> list[dict[str, Any]]:
    contract = served.pair.contract
    if contract.task == "classification":
        # As text, because parameters of the protocol hold no lists.
        order = {"parameters": {"classes": json.dumps(contract.classes)}}
        return [
            {"name": LABEL, "datatype": BYTES, "shape": [-1]},
            {"name": PROBABILITIES, "datatype": FP32, "shape": [-1, len(contract.classes)], **order},
        ]
    names = [VALUE] if contract.task == "regression" else list(contract.targets)
    shape = [-1] if contract.task == "regression" else [-1, contract.horizon]
    suffixes = ("", *(end for both in bound_names(served.coverages).values() for end in both))
    outputs = [{"name": name + suffix, "datatype": FP32, "shape": shape} for name in names for suffix in suffixes]
    if contract.task == "forecast":
        outputs.append({"name": TIMES, "datatype": BYTES, "shape": shape})
    return outputs


def _header_length(request: Request) -> int | None:
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 20):
        detail = ErrorDetail(
            field=HEADER_LENGTH, found=shown(given), expected="a number of bytes", action="correct the header"
        )
        raise invalid("invalid_request", [detail])
    return int(given)


@dataclass(frozen=True)
class Question:
    """What a request asks about.

    Attributes:
        entities: of the feature store; `None` if it brings rows.
    """

    asked: InferRequest
    entities: list[EntityId] | None
    rows: list[dict[str, Any]]


def _read(body: bytes, header: int | None, served: Served | None) -> Question:
    end = len(body) if header is None else header
    if end > len(body):
        found, expected = str(end), f"at most {len(body)}, the length of the body"
        detail = ErrorDetail(field=HEADER_LENGTH, found=found, expected=expected, action="correct the header")
        raise invalid("invalid_request", [detail])
    asked = parse_json(body[:end], InferRequest)
    tensors = read_tensors(asked.inputs, body[end:])
    names = [tensor.name for tensor in tensors]
    for name in names:
        if names.count(name) > 1:
            raise _refused(name, "the same input twice", "every input once", "leave one out")
    if names == [ENTITY]:
        return Question(asked, _entities(tensors[0]), [])
    return Question(asked, None, _rows(tensors, served, asked.counts_time))


def _entities(tensor: Values) -> list[EntityId]:
    if len(tensor.shape) != 1:
        raise _refused(ENTITY, f"shape {list(tensor.shape)}", "shape [n] to ask the feature store", "send one id each")
    if not tensor.flat:
        raise _refused(ENTITY, "no ids", "at least one", "send the ids of entities")
    return _ids(tensor)


def _ids(tensor: Values) -> list[Any]:
    return _checked(tensor, {INT64: int, BYTES: str})


def _rows(tensors: Sequence[Values], served: Served | None, counts_time: bool) -> list[dict[str, Any]]:
    """Return the raw rows that the tensors hold, entity by entity.

    Raises:
        ServingError: 422 that names the input; what the rows lack is found where rows are read.
    """
    count = tensors[0].shape[0]
    widths = {tensor.shape[1] for tensor in tensors if len(tensor.shape) == 2}
    width = max(widths, default=1)
    if count * width == 0:
        raise _refused(tensors[0].name, f"shape {list(tensors[0].shape)}", "at least one row", "send rows")
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        _check_shape(tensor, count, width, served.pair.contract if served else None)
        columns[tensor.name] = _spread(_column(tensor, served, counts_time), tensor.shape, count, width)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _check_shape(tensor: Values, count: int, width: int, contract: Contract | None) -> None:
    """Refuse shapes that do not fit each other; what ends before the future is what nobody knows of it."""
    shape = tensor.shape
    widths = {width}
    if contract is not None and contract.future_rows and tensor.name not in (*contract.known, TIMESTAMP):
        widths.add(width - contract.future_rows)
    fits = shape[0] == count and (len(shape) == 1 or (len(shape) == 2 and shape[1] in widths))
    # Only an id may be said once for all steps of its entity.
    if not fits or (len(shape) == 1 and width > 1 and tensor.name != ENTITY):
        allowed = [count] if width == 1 or tensor.name == ENTITY else [count, width]
        raise _refused(tensor.name, f"shape {list(shape)}", f"shape {allowed}, as the other inputs have", "correct it")


def _spread(flat: list[Any], shape: tuple[int, ...], count: int, width: int) -> list[Any]:
    """Return one value per row: ids repeated for every step, and nulls where a column ends before the others."""
    if len(shape) == 1:
        return flat if width == 1 else [value for value in flat for _ in range(width)]
    own = shape[1]
    if own == width:
        return flat
    empty = [None] * (width - own)
    return [value for entity in range(count) for value in (*flat[entity * own : (entity + 1) * own], *empty)]


def _column(tensor: Values, served: Served | None, counts_time: bool) -> list[Any]:
    if tensor.name == ENTITY:
        return _ids(tensor)
    if tensor.name == TIMESTAMP:
        if not counts_time:
            return _checked(tensor, {BYTES: str}, f"; or INT64 with the request's parameter {TIME_UNIT}: {NANOSECONDS}")
        moments: npt.NDArray[np.datetime64] = np.array(_checked(tensor, {INT64: int}), "datetime64[ns]")
        return [str(moment) for moment in np.datetime_as_string(moments, unit="ns").tolist()]
    if served is not None and tensor.name in served.types:
        return _raw(tensor, is_category=served.types[tensor.name] == "category")
    return _raw(tensor, is_category=tensor.datatype == BYTES)


def _raw(tensor: Values, *, is_category: bool) -> list[Any]:
    if is_category:
        return _checked(tensor, {BYTES: str}, allows_null=True)
    values = _checked(tensor, {FP32: float, "FP64": float}, allows_null=True)
    # NaN is how a tensor of numbers says that there is none.
    return [None if value is not None and value != value else value for value in values]


def _checked(tensor: Values, kinds: Mapping[str, type], note: str = "", *, allows_null: bool = False) -> list[Any]:
    """Return the values of a tensor that has one of the given datatypes.

    Raises:
        ServingError: 422 if it has another one, or values that are not of it.
    """
    kind = kinds.get(tensor.datatype)
    if kind is None:
        expected = f"{' or '.join(kinds)}{note}"
        raise _refused(tensor.name, f"datatype {shown(tensor.datatype)}", expected, "send that")
    allowed = (float, int) if kind is float else (kind,)
    for number, value in enumerate(tensor.flat):
        if type(value) in allowed or (value is None and allows_null):
            if kind is int and not -(2**63) <= value < 2**63:
                raise _refused(tensor.name, f"{shown(value)} as element {number}", "64 bits", "correct it")
        else:
            found = f"{shown(value)} as element {number}"
            raise _refused(tensor.name, found, f"values of datatype {tensor.datatype}", "correct it")
    return tensor.flat


def _refused(name: str, found: str, expected: str, action: str) -> ServingError:
    detail = ErrorDetail(field=f"input {shown(name)}", found=found, expected=expected, action=action)
    return invalid("invalid_request", [detail])


@dataclass
class Writer:
    """Writes the answer to one request.

    Attributes:
        missing: entities of the request that the outputs have no row of.
        header_length: bytes of its JSON part, if binary data follow.
    """

    model: str
    asked: InferRequest
    missing: Sequence[Missing] = ()
    header_length: int | None = field(default=None, init=False)

    def __call__(self, prediction: Prediction) -> bytes:
        """Return the body of the answer.

        Raises:
            ServingError: 422 if an output is asked for that there is none of.
        """
        arrays = _arrays(prediction, counts_time=self.asked.counts_time)
        outputs, binary = [], []
        for name, is_binary in self._chosen(arrays):
            output: dict[str, Any] = {
                "name": name,
                "shape": arrays[name].shape,
                "datatype": _written_type(arrays[name]),
            }
            if is_binary:
                binary.append(written_bytes(arrays[name]))
                output["parameters"] = {BINARY_SIZE: len(binary[-1])}
            else:
                output["data"] = written_json(arrays[name])
            outputs.append(output)
        head: dict[str, Any] = {
            "model_name": self.model,
            "model_version": str(prediction.pair.version),
            "parameters": _told(prediction, self.missing),
        }
        if self.asked.id is not None:
            head["id"] = self.asked.id
        content = to_json({**head, "outputs": outputs})
        if not binary:
            return content
        self.header_length = len(content)
        return b"".join((content, *binary))

    def _chosen(self, arrays: Arrays) -> list[tuple[str, bool]]:
        """Return which outputs to write, and whether in the binary form."""
        by_default = self.asked.parameters.get("binary_data_output") is True
        if not self.asked.outputs:
            return [(name, by_default) for name in arrays]
        for output in self.asked.outputs:
            if output.name not in arrays:
                detail = ErrorDetail(
                    field="outputs",
                    found=shown(output.name),
                    expected=f"some of {', '.join(arrays)}",
                    action="ask for these",
                )
                raise invalid("invalid_request", [detail])
        return [
            (output.name, output.parameters.get("binary_data", by_default) is True) for output in self.asked.outputs
        ]


def _told(prediction: Prediction, missing: Sequence[Missing]) -> dict[str, str]:
    """Return which arm answered, where two did which one each row is of, explanations, and who has no row."""
    told = {"arm": prediction.arm}
    # As text, because parameters of the protocol hold no lists.
    if prediction.parts:
        arms, versions = zip(*prediction.told_by, strict=True)
        told |= {"arms": json.dumps(arms), "versions": json.dumps(versions)}
    if any(prediction.fallback_reasons):
        told["fallback_reasons"] = json.dumps(prediction.fallback_reasons)
    if missing:
        told["errors"] = to_json(missing).decode()
    if prediction.explanations:
        told["explanations"] = to_json(prediction.explanations).decode()
    return told


def _written_type(values: npt.NDArray[np.generic]) -> str:
    return BYTES if values.dtype == object else {"f": FP32, "i": INT64}[values.dtype.kind]


def _arrays(prediction: Prediction, *, counts_time: bool) -> Arrays:
    """Return the outputs by name."""
    contract, answers = prediction.pair.contract, prediction.answers
    if contract.task == "classification":
        labels = np.array(contract.classes, object)[answers.point.argmax(axis=1)]
        return {LABEL: labels, PROBABILITIES: answers.point}
    suffixes = ("", *(end for both in bound_names(answers.coverages).values() for end in both))
    found: dict[str, npt.NDArray[np.generic]] = {}
    names = [VALUE] if contract.task == "regression" else list(contract.targets)
    for place, name in enumerate(names):
        for suffix, values in zip(suffixes, answers.arrays, strict=True):
            found[name + suffix] = values if contract.task == "regression" else values[:, :, place]
    if contract.task == "forecast":
        times = prediction.times_ahead.astype("datetime64[ns]")
        found[TIMES] = times.astype(np.int64) if counts_time else _as_text(times)
    return found


def _as_text(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.object_]:
    unit: Literal["s", "ns"] = "s" if (times == times.astype("datetime64[s]")).all() else "ns"
    return (np.datetime_as_string(times, unit=unit).astype(object) + "Z").astype(object)


def example(served: Served) -> dict[str, Any]:
    """Return a request that the served pair answers."""
    rows = example_rows(served)
    inputs = []
    for described in _inputs(served):
        name = described["name"]
        shape = [1 if length == -1 else length for length in described["shape"]]
        count = shape[1] if len(shape) == 2 else 1
        data = [row.get(name) for row in rows[:count]]
        inputs.append({"name": name, "shape": shape, "datatype": described["datatype"], "data": data})
    return {"inputs": inputs}
