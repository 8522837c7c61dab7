"""MLflow's scoring protocol: what `mlflow models serve` of the registered forecaster answers, from the served pair.

Description: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/#api-reference-for-inference-server. Rows
are held to the rules of `/predict`: a series with a gap is refused here, where MLflow's own server fills or skips it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.registry import table_of_answers, with_observation
from serving.answers import to_json
from serving.backend import Prediction, Served
from serving.bodies import JSON, content_type
from serving.errors import ErrorDetail, ServingError, invalid, shown
from serving.examples import example_rows
from serving.protocols.failures import route_writing_errors
from serving.service import Missing, PredictionService

if TYPE_CHECKING:
    import pandas as pd

TAG = "MLflow scoring"
CSV = "text/csv"
SPLIT, RECORDS, INSTANCES, INPUTS = "dataframe_split", "dataframe_records", "instances", "inputs"
FORMS = (SPLIT, RECORDS, INSTANCES, INPUTS)

Rows = list[dict[str, Any]]


class Asked(NamedTuple):
    """The rows of a request, and whether their answers are to be explained (`params` of the body: `explain`)."""

    rows: Rows
    explains: bool = False


def routes(service: PredictionService) -> APIRouter:
    """Return the protocol's routes."""
    router = APIRouter(tags=[TAG], route_class=route_writing_errors(_error))
    body = {"content": {JSON: {"schema": {"type": "object"}}, CSV: {"schema": {"type": "string"}}}, "required": True}

    async def answer(request: Request, name: str | None) -> Response:
        model = service.model(name)
        served = model.backend.served()
        if served is None:
            raise ServingError(503, "no_production_pair", f"model {model.name} has no pair in production")
        asked = await service.parsed(request, partial(_reader(request), served=served))
        prediction, missing = await service.from_rows(request, model, asked.rows, explain=asked.explains)
        write = partial(_written, missing=missing)
        return Response(await service.written(request, model, prediction, write), media_type=JSON)

    @router.post("/invocations", openapi_extra={"requestBody": body})
    async def invocations(request: Request) -> Response:
        """Predict from raw rows, as a data frame in one of MLflow's forms or as CSV."""
        return await answer(request, None)

    @router.post("/models/{name}/invocations", openapi_extra={"requestBody": body})
    async def invocations_of_model(request: Request, name: str) -> Response:
        """Do so by a model of that name."""
        return await answer(request, name)

    @router.head("/ping", include_in_schema=False)
    @router.head("/health", include_in_schema=False)
    @router.get("/ping", response_class=PlainTextResponse)
    @router.get("/health", response_class=PlainTextResponse)
    async def ping() -> Response:
        """Say whether a pair is loaded: 200, else 404."""
        is_loaded = service.default.backend.served() is not None
        return PlainTextResponse("\n", 200 if is_loaded else 404)

    @router.get("/version", response_class=PlainTextResponse)
    async def version() -> Response:
        """Return the version of MLflow."""
        return PlainTextResponse(installed_version("mlflow"))

    return router


def _error(status: int, error: ServingError) -> dict[str, Any]:
    code = {400: "BAD_REQUEST", 404: "RESOURCE_DOES_NOT_EXIST", 429: "REQUEST_LIMIT_EXCEEDED"}.get(status)
    return {"error_code": code or error.code.upper(), "message": error.message}


def _reader(request: Request) -> Callable[..., Asked]:
    """Return what reads a body of the request's type.

    Raises:
        ServingError: 415 if nothing does.
    """
    readers: Mapping[str, Callable[..., Asked]] = {JSON: _from_json, CSV: _from_csv}
    reader = readers.get(content_type(request))
    if reader is None:
        given = shown(request.headers.get("content-type", ""))
        raise ServingError(
            415, "unknown_form", f"found content-type {given}, expected {JSON} or {CSV}; send one of them"
        )
    return reader


def _from_json(body: bytes, served: Served) -> Asked:
    try:
        # MLflow's client writes missing numbers as NaN, which is not JSON, but which Python's own parser reads.
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServingError(422, "invalid_json", f"the body is not JSON: {error}") from error
    found = [form for form in FORMS if isinstance(content, dict) and form in content]
    if len(found) != 1:
        raise _refused("body", ", ".join(found) or "none of them", f"exactly one of {', '.join(FORMS)}", "send one")
    rows = _of_split(content[SPLIT]) if found == [SPLIT] else _of_records(content[found[0]], found[0])
    known = _known_columns([{name: _value(value) for name, value in row.items()} for row in rows], served)
    params = content.get("params")
    return Asked(known, isinstance(params, dict) and params.get("explain") is True)


def _of_split(given: Any) -> Rows:
    if (
        not isinstance(given, dict)
        or not isinstance(given.get("columns"), list)
        or not isinstance(given.get("data"), list)
    ):
        raise _refused(SPLIT, shown(given), "an object with the lists columns and data", "write the frame so")
    columns = given["columns"]
    if not all(type(name) is str for name in columns) or len(set(columns)) != len(columns):
        raise _refused(f"{SPLIT}.columns", shown(columns), "names, each once", "correct them")
    for number, values in enumerate(given["data"]):
        if not isinstance(values, list) or len(values) != len(columns):
            expected = f"a list of {len(columns)} values, one per column"
            raise _refused(f"{SPLIT}.data[{number}]", shown(values), expected, "correct it")
    return [dict(zip(columns, values, strict=True)) for values in given["data"]]


def _of_records(given: Any, form: str) -> Rows:
    """Return the rows of a list of objects; or of an object of lists, one per column, where MLflow reads that too."""
    if isinstance(given, dict) and form != RECORDS:
        lengths = {len(values) if isinstance(values, list) else -1 for values in given.values()}
        if len(lengths) != 1 or -1 in lengths:
            raise _refused(form, "columns that are no lists of one length", "a list per column", "correct them")
        return [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
        raise _refused(form, shown(given), "a list of objects, one per row", "name the columns in every row")
    return list(given)


def _value(value: Any) -> Any:
    return None if type(value) is float and value != value else value


def _from_csv(body: bytes, served: Served) -> Asked:
    import pandas as pd

    try:
        # As text first: an id such as 007 is no number.
        frame = pd.read_csv(io.BytesIO(body), dtype=str)
    except (ValueError, UnicodeDecodeError) as error:
        raise _refused("body", str(error), "CSV with a header, in UTF-8", "correct it") from error
    has_text_ids = any(type(row[ENTITY]) is str for row in served.example)
    for name in frame.columns:
        is_number = served.types.get(name) == "float" or (name == ENTITY and not has_text_ids)
        if is_number:
            frame[name] = _numbers(frame[name], is_id=name == ENTITY)
    values = frame.astype(object).where(frame.notna(), None)
    rows = [{str(k): v for k, v in row.items()} for row in values.to_dict(orient="records")]
    return Asked(_known_columns(rows, served))


def _numbers(texts: pd.Series[str], *, is_id: bool) -> pd.Series[Any]:
    import pandas as pd

    try:
        return texts.map(int).astype(object) if is_id else pd.to_numeric(texts).astype("float64")
    except (ValueError, TypeError, OverflowError) as error:
        raise _refused(
            f"column {texts.name}", str(error), "whole numbers" if is_id else "numbers", "correct it"
        ) from error


def _known_columns(rows: Rows, served: Served) -> Rows:
    """Return the rows without columns that the model does not read: MLflow's signatures ignore these.

    Rows of a forecast that lack the names of entity and time are left as they are: they may use the dataset's own.
    """
    if not rows:
        raise _refused("body", "no rows", "at least one", "send rows")
    contract = served.pair.contract
    keys = {ENTITY, TIMESTAMP}
    if contract.task == "forecast" and not all(keys <= row.keys() for row in rows):
        return rows
    read = keys | set(contract.columns)
    return [{name: value for name, value in row.items() if name in read} for row in rows]


def _refused(field: str, found: str, expected: str, action: str) -> ServingError:
    return invalid("invalid_request", [ErrorDetail(field=field, found=found, expected=expected, action=action)])


def _written(prediction: Prediction, missing: Sequence[Missing]) -> bytes:
    contract = prediction.pair.contract
    table = table_of_answers(contract, prediction.entity_ids, prediction.origins, prediction.answers)
    if contract.task == "forecast":
        table = with_observation(table, contract, prediction.observed, prediction.is_fallback)
    records: Sequence[Any] = table.to_dict(orient="records")
    # Not by orjson: MLflow writes a missing bound as NaN, and times with their offset.
    # Beside what MLflow writes, which its clients pass over.
    told: dict[str, Any] = {"arm": prediction.arm, "version": prediction.pair.version}
    if prediction.parts:
        arms, versions = zip(*prediction.told_by, strict=True)
        told |= {"arms": arms, "versions": versions}
    if missing:
        # As `attrs["skipped"]` of the forecaster's table has it.
        told["skipped"] = {str(each.entity): each.message for each in missing}
    if prediction.explanations:
        told["explanations"] = json.loads(to_json(prediction.explanations))
    return json.dumps({"predictions": records, **told}, default=lambda moment: moment.isoformat()).encode()


def example(served: Served) -> dict[str, Any]:
    """Return a request that the served pair answers."""
    rows = example_rows(served)
    columns = list(rows[0]) if rows else []
    return {SPLIT: {"columns": columns, "data": [[row[name] for name in columns] for row in rows]}}
