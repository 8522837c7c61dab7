"""The HTTP routes, shared by both servers.

A route reads and checks the request, asks the backend, and writes answer, metrics and prediction log. What computes the
prediction is the backend's business.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mlplatform.calendars import Zone
from mlplatform.features import NOW
from mlplatform.monitoring import PredictionLog
from mlplatform.settings import Settings
from serving.admission import Admission
from serving.alias_look import AliasLook
from serving.answers import answer, to_json
from serving.arms import served_pairs
from serving.backend import Backend, Prediction
from serving.bodies import JSON, PROBLEM, BodyReader
from serving.bundle import BundleLoader
from serving.cockpit import Cockpit, add_cockpit
from serving.connections import CLIENT_LEFT
from serving.description import describe
from serving.entrance import Application
from serving.errors import ErrorDetail, ServingError, invalid, shown
from serving.exposition import CONTENT_TYPE, merged
from serving.fast_path import Answers, FastPath
from serving.local_time import PARAMETER, asked_zone, in_zone
from serving.metrics import ServingMetrics
from serving.observation import ObservationMiddleware, ServerState
from serving.openapi import described_errors
from serving.pages import add_pages
from serving.platform import platform_routes
from serving.protocols import protocol_routers
from serving.rate_limit import Buckets, RateLimitMiddleware
from serving.schemas import (
    EntitiesRequest,
    LiveAnswer,
    ModelAnswer,
    ModelsAnswer,
    PredictionAnswer,
    ReadyAnswer,
    ReloadAnswer,
    RowsRequest,
)
from serving.security import BodyLimitMiddleware, TokenMiddleware, require_admin
from serving.service import Missing, PredictionService, ServedModel
from serving.siblings import ONE, Siblings
from serving.stages import Stage
from serving.tracing import TracingMiddleware, tracer

logger = logging.getLogger(__name__)

# How a request for predictions may end otherwise than well.
_REFUSALS = (408, 409, 413, 415, 422, 429, 500, 503)


def build_app(
    backends: Mapping[str, Backend],
    settings: Settings,
    *,
    is_request_id_answered: bool = True,
    siblings: Siblings | None = None,
) -> FastAPI:
    """Return the application.

    Parameters:
        backends: by experiment, the default one first: they compute the answers; started and closed with the
            application.
        settings: the admin token, the limits and the place of the prediction log.
        is_request_id_answered: whether answers carry `x-request-id`; `False` behind a proxy that adds it.
        siblings: the other processes of the same server, if there are any.
    """
    models = {name: _served_model(name, backend, settings) for name, backend in backends.items()}
    metrics = ServingMetrics({name: model.log for name, model in models.items()})
    limits = settings.limits
    # What is large is read and written here, so that the event loop is free for those that have little to say.
    bodies = Stage("reading and writing of bodies", waiting=limits.max_requests, deadline_s=limits.deadline_s)
    reader = BodyReader(bodies, settings.max_body_bytes, limits.body_deadline_s)
    admission = Admission(limits.max_requests, limits.deadline_s)
    service = PredictionService(models, admission, reader, metrics)
    cockpit = Cockpit(service, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for model in models.values():
            await model.backend.start()
        try:
            yield
        finally:
            await service.close()
            for model in models.values():
                await model.backend.close()
                await model.alias_look.close()
                await asyncio.to_thread(model.log.close)
            bodies.close()
            cockpit.close()

    app = Application(
        title="mlplatform predictions",
        description="Predictions from the pairs that are in production; routes without a name answer for "
        f"`{service.default.name}`.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.server = ServerState()
    predictions = Predictions(service)
    app.include_router(_prediction_routes(predictions))
    app.include_router(_model_routes(service))
    app.include_router(_operation_routes(service, settings, app.state.server, siblings))
    for router in protocol_routers(service, settings):
        app.include_router(router)
    app.include_router(platform_routes(service, settings))
    add_cockpit(app, cockpit)
    add_pages(app, service)
    _add_entrance(app, predictions, settings, is_request_id_answered, siblings.table if siblings else None)
    app.add_exception_handler(ServingError, _answer_serving_error)
    app.add_exception_handler(RequestValidationError, _answer_wrong_query)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _note_departure)
    app.add_exception_handler(Exception, _answer_unexpected_error)
    return app


def _served_model(name: str, backend: Backend, settings: Settings) -> ServedModel:
    loader = BundleLoader(replace(settings, experiment=name))
    return ServedModel(name, backend, PredictionLog(settings, name), AliasLook(name, loader.alias_versions))


def _add_entrance(
    app: Application,
    predictions: Predictions,
    settings: Settings,
    is_request_id_answered: bool,
    table: Path | None,
) -> None:
    """Have requests pass, before the framework sees them, what notes them, what refuses them, and the short road."""
    handlers = {"/predict": predictions.from_rows, "/predict/feast/batch": predictions.from_entities}
    answers = Answers(_answer_serving_error, _note_departure, _answer_unexpected_error)
    app.enter_by(lambda inner: FastPath(inner, handlers, answers))
    if settings.limits.rate:
        buckets = Buckets(settings.limits.rate, settings.limits.burst or math.ceil(settings.limits.rate), table)
        by_token = bool(settings.api_tokens)
        app.enter_by(lambda inner: RateLimitMiddleware(inner, buckets, by_token=by_token, refuse=_answer_serving_error))
    if settings.api_tokens:
        tokens = [*settings.api_tokens, *([settings.admin_token] if settings.admin_token else [])]
        app.enter_by(lambda inner: TokenMiddleware(inner, tokens, _answer_serving_error))
    active = tracer()
    if active is not None:
        app.enter_by(lambda inner: TracingMiddleware(inner, active))
    # The last one is the outermost: refused bodies are observed too.
    app.enter_by(lambda inner: BodyLimitMiddleware(inner, settings.max_body_bytes))
    app.enter_by(
        lambda inner: ObservationMiddleware(
            inner,
            predictions.service.metrics,
            app.state.server,
            is_request_id_answered=is_request_id_answered,
            logged_share=settings.access_log,
        )
    )


class Predictions:
    """Answers requests for predictions; `name` is that of the model, `None` for the default one."""

    def __init__(self, service: PredictionService) -> None:
        self.service = service

    async def from_entities(self, request: Request, name: str | None) -> Response:
        """Predict for entities of the feature store."""
        model = self.service.model(name)
        request.state.experiment = model.name
        asked = await self.service.read(request, EntitiesRequest)
        prediction, missing = await self.service.from_entities(
            request,
            model,
            asked.entities,
            time_point=asked.time_point,
            future=asked.future,
            choice=asked.choice,
            leaves_out="all" if asked.on_error == "report" else "none",
            explain=asked.explain,
        )
        write = partial(_written, missing=missing, zone=asked_zone(request, prediction.pair.contract))
        # What was never asked of the present says nothing about how the present is served.
        is_logged = asked.time_point == NOW
        return _json(await self.service.written(request, model, prediction, write, is_logged=is_logged))

    async def from_rows(self, request: Request, name: str | None) -> Response:
        """Predict from raw rows."""
        model = self.service.model(name)
        request.state.experiment = model.name
        asked = await self.service.read(request, RowsRequest)
        prediction, missing = await self.service.from_rows(
            request, model, asked.rows, asked.choice, explain=asked.explain
        )
        write = partial(_written, missing=missing, zone=asked_zone(request, prediction.pair.contract))
        return _json(await self.service.written(request, model, prediction, write))


def _prediction_routes(predictions: Predictions) -> APIRouter:
    router = APIRouter(tags=["predictions"])

    @router.post("/predict/feast/batch", **_described_body(EntitiesRequest, 404, *_REFUSALS))
    async def predict_entities(request: Request) -> Response:
        """Predict for entities of the feature store, from their latest windows or rows.

        Features older than the experiment's `staleness.max_age` are refused (409) or marked, as its policy says.
        """
        return await predictions.from_entities(request, None)

    @router.post("/predict", **_described_body(RowsRequest, 404, *_REFUSALS))
    async def predict_rows(request: Request) -> Response:
        """Predict from raw rows."""
        return await predictions.from_rows(request, None)

    @router.post("/models/{name}/predict/feast/batch", **_described_body(EntitiesRequest, 404, *_REFUSALS))
    async def predict_entities_of_model(request: Request, name: str) -> Response:
        """Predict for entities of the feature store, as `/predict/feast/batch` does, by a model of that name."""
        return await predictions.from_entities(request, name)

    @router.post("/models/{name}/predict", **_described_body(RowsRequest, 404, *_REFUSALS))
    async def predict_rows_of_model(request: Request, name: str) -> Response:
        """Predict from raw rows, as `/predict` does, by a model of that name."""
        return await predictions.from_rows(request, name)

    return router


def _model_routes(service: PredictionService) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/models", response_model=ModelsAnswer)
    async def models() -> Response:
        """List the experiments that this server answers for."""
        described = await asyncio.gather(*map(describe, service.models.values()))
        content = {"default": service.default.name, "models": [item.model_dump() for item in described]}
        return _json(to_json(content))

    @router.get("/models/{name}", response_model=ModelAnswer, responses=described_errors(404))
    async def one_model(name: str) -> Response:
        """Describe one of them."""
        return _json(to_json((await describe(service.model(name))).model_dump()))

    return router


def _written(prediction: Prediction, missing: Sequence[Missing] = (), zone: Zone | None = None) -> bytes:
    content = in_zone(answer(prediction), zone)
    if missing:
        content["errors"] = missing
    return to_json(content)


def _json(content: bytes) -> Response:
    return Response(content, media_type=JSON)


def _operation_routes(
    service: PredictionService, settings: Settings, state: ServerState, siblings: Siblings | None
) -> APIRouter:
    router = APIRouter(tags=["operations"])

    # HEAD is what many load balancers ask with; the answer's body is left out by the server.
    @router.head("/health/live", include_in_schema=False)
    @router.get("/health/live", response_model=LiveAnswer)
    async def live() -> Response:
        """Say that the process runs."""
        return _json(to_json({"status": "live"}))

    @router.head("/health/ready", include_in_schema=False)
    @router.get("/health/ready", response_model=ReadyAnswer, responses=described_errors(503))
    async def ready() -> Response:
        """Say whether predictions can be answered: the default model has a pair and the feature store answers."""
        if state.is_draining:
            raise ServingError(503, "not_ready", "the server is about to stop")
        status = await service.default.backend.status()
        if status.pair is None or status.reason is not None:
            raise ServingError(503, "not_ready", status.reason or "no pair is loaded")
        pair = status.pair
        content = {
            "status": "ready",
            "experiment": service.default.name,
            "version": pair.version,
            "pair_id": pair.pair_id,
        }
        return _json(to_json(content))

    @router.head("/metrics", include_in_schema=False)
    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus(request: Request) -> Response:
        """Report counters in Prometheus' text format."""
        backends = {name: model.backend for name, model in service.models.items()}
        looks = {name: backend.looks() for name, backend in backends.items()}
        pairs = {name: served_pairs(backend) for name, backend in backends.items()}
        times = {name: backend.times for name, backend in backends.items()}
        arms = service.arm_counts.families({name: each.challenger_looks() for name, each in backends.items()})
        page = service.metrics.render(pairs, looks, times, service.default.backend.queues(), arms)
        if siblings is not None and request.url.query != ONE:
            page = merged([page, *await siblings.pages()], siblings.ended())
        return Response(page, headers={"content-type": CONTENT_TYPE})

    async def reload_model(request: Request, name: str | None) -> Response:
        require_admin(request.headers.get("authorization"), settings.admin_token)
        model = service.model(name)
        try:
            report = await model.backend.reload()
            if siblings is not None and request.url.query != ONE:
                await _have_reloaded(siblings, request)
        except ServingError:
            service.metrics.observe_reload(model.name, "failed")
            raise
        service.metrics.observe_reload(model.name, "swapped" if report.swapped else "unchanged")
        content = {
            "experiment": model.name,
            "version": report.pair.version,
            "pair_id": report.pair.pair_id,
            "previous_version": report.previous_version,
            "swapped": report.swapped,
        }
        return _json(to_json(content))

    # For the page only: `require_admin` decides, and says what is wrong in the errors' own form.
    token = [Security(HTTPBearer(scheme_name="bearer", auto_error=False))]

    @router.post(
        "/admin/reload", response_model=ReloadAnswer, responses=described_errors(401, 403, 503), dependencies=token
    )
    async def reload(request: Request) -> Response:
        """Serve the pair that is in production now. No request is dropped; on failure the old pair stays."""
        return await reload_model(request, None)

    @router.post(
        "/admin/reload/{name}",
        response_model=ReloadAnswer,
        responses=described_errors(401, 403, 404, 503),
        dependencies=token,
    )
    async def reload_of_model(request: Request, name: str) -> Response:
        """Do so for the model of that name."""
        return await reload_model(request, name)

    return router


_TIMEZONE = {
    "name": PARAMETER,
    "in": "query",
    "required": False,
    "schema": {"type": "string", "maxLength": 64},
    "description": "Zone of the times of the answer: an IANA name, or `local` for the dataset's; default: UTC.",
}


async def _have_reloaded(siblings: Siblings, request: Request) -> None:
    """Have the other processes of the server reload too.

    Raises:
        ServingError: what kept one of them from it.
    """
    for told in await siblings.reload(request.url.path, request.headers["authorization"]):
        if told.status != 200:
            error = orjson.loads(told.body)["error"]
            raise ServingError(told.status, error["code"], f"of another worker: {error['message']}")


def _described_body(model: type[BaseModel], *statuses: int) -> dict[str, Any]:
    """Return what OpenAPI should say about a route that reads its own body."""
    content = {JSON: {"schema": model.model_json_schema()}}
    return {
        "response_model": PredictionAnswer,
        "responses": described_errors(*statuses),
        "openapi_extra": {"requestBody": {"required": True, "content": content}, "parameters": [_TIMEZONE]},
    }


def _problem(error: ServingError, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(error.body()), error.status, headers or error.headers, PROBLEM)


async def _answer_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    request.state.rejection = error.code
    return _problem(error)


async def _answer_wrong_query(request: Request, error: Exception) -> Response:
    """Answer a request whose query FastAPI has read, and refuses, in the form of all errors."""
    assert isinstance(error, RequestValidationError)
    details = [
        ErrorDetail(
            field=".".join(map(str, found["loc"])),
            found=shown(found.get("input")),
            expected=found["msg"],
            action="correct it",
        )
        for found in error.errors()
    ]
    return await _answer_serving_error(request, invalid("invalid_request", details))


async def _note_departure(_: Request, __: Exception) -> Response:
    """Answer a client that left before its request was complete: nobody will read it, but log and metrics have it."""
    return Response(status_code=CLIENT_LEFT)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "no_such_route", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = f"{error.detail}: {request.method} is not answered here; see /docs for the routes"
    return _problem(ServingError(error.status_code, code, message), error.headers)


async def _answer_unexpected_error(request: Request, error: Exception) -> Response:
    logger.error("request %s failed", request.state.request_id, exc_info=error)
    message = f"the server failed; its log has the cause under request id {request.state.request_id}"
    return _problem(ServingError(500, "internal_error", message))
