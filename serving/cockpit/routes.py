"""The page at `/` and what it asks."""

from __future__ import annotations

import datetime as dt
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings
from serving.answers import to_json
from serving.bodies import JSON
from serving.cockpit.recent import entity_of, read_drift, read_entities, read_followed, read_live, read_recent
from serving.errors import ServingError
from serving.examples import example_entities
from serving.openapi import described_errors
from serving.service import PredictionService
from serving.stages import Stage

ASSETS = "/page"
# Nothing of the page is from elsewhere, and nothing of it is written into it.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
MOST_STEPS = 1_000
MOST_ENTITIES = 1_000
# Steps that are shown where nobody says how many: of hours, a week.
USUAL_STEPS = 168
AskedEntity = Annotated[str, Query(description='The id, as in JSON: 7, or "007" for text.')]
AskedSteps = Annotated[int, Query(ge=1, le=MOST_STEPS)]


class RecentAnswer(BaseModel):
    """The recent past of an entity."""

    entity: int | str
    timestamps: list[str]
    values: dict[str, list[float | str | None]]


class DriftAnswer(BaseModel):
    """What the newest drift report says; the error is that of served predictions, as a mean absolute one."""

    pair_version: int
    data_until: str
    broken: list[str]
    drifted: list[str]
    suspected: list[str]
    live_error: float | None
    reference_error: float | None


class VersionErrors(BaseModel):
    """How one version did on what came true since it was asked; errors are mean absolute ones."""

    version: int
    count: int = Field(description="Values whose truth is known; what stood in for a forecast does not count.")
    error: float
    covered: float | None = Field(description="Share of them inside their main interval; null without intervals.")
    coverage: float | None = Field(description="The share that those intervals are meant to hold.")
    naive_error: float | None = Field(description="Of the seasonal naive forecast, where there is one.")
    error_beside_naive: float | None = Field(description="The version's own error on the same values.")


class LiveErrorsAnswer(BaseModel):
    """How the versions of a model did lately."""

    since: dt.datetime
    until: dt.datetime
    versions: list[VersionErrors]


class FollowedSeries(BaseModel):
    """Forecasts of one target beside the truth."""

    timestamps: list[str]
    value: list[float | str | None]
    lower: list[float | None]
    upper: list[float | None]
    truth: list[float | str | None]


class FollowedAnswer(BaseModel):
    """What a version forecast of an entity, of every moment the newest such forecast, beside what came true."""

    entity: int | str
    version: int
    targets: dict[str, FollowedSeries]


class EntitiesAnswer(BaseModel):
    """Entities that the model can be asked about.

    `more` is how many are not listed; null where the server does not see what the feature store was filled with, and
    names a few of the model's example.
    """

    entities: list[int | str]
    more: int | None


class Cockpit:
    """The page's threads, apart from those of predictions: who looks on must not hold up who works."""

    def __init__(self, service: PredictionService, settings: Settings) -> None:
        self._service, self._settings = service, settings
        self._stage = Stage("page", waiting=8, deadline_s=settings.limits.store_deadline_s, threads=1)

    async def recent(self, name: str, entity: str, steps: int) -> dict[str, Any]:
        """Return the recent past of an entity."""
        contract = self._series(name).contract
        return await self._stage.run(read_recent, contract, entity_of(entity), steps, self._settings)

    async def live(self, name: str) -> dict[str, Any] | None:
        """Return the live error and coverage of a model's versions."""
        return await self._stage.run(read_live, self._served(name).pair.contract, self._settings)

    async def followed(self, name: str, entity: str, steps: int) -> dict[str, Any] | None:
        """Return what the served version forecast of an entity, beside what came true."""
        pair = self._series(name)
        return await self._stage.run(
            read_followed, pair.contract, pair.version, entity_of(entity), steps, self._settings
        )

    async def drift(self, name: str) -> dict[str, Any] | None:
        """Return what the newest drift report says."""
        return await self._stage.run(read_drift, self._service.model(name).name, self._settings)

    async def entities(self, name: str) -> dict[str, Any]:
        """Return entities that the served pair can be asked about; those of its example come first."""
        served = self._served(name)
        examples = example_entities(served)
        return await self._stage.run(read_entities, served.pair.contract, examples, MOST_ENTITIES, self._settings)

    def _series(self, name: str) -> PairInfo:
        pair: PairInfo = self._served(name).pair
        if pair.contract.task != "forecast":
            raise ServingError(409, "no_series", f"{name} answers rows of a table, which have no past")
        return pair

    def close(self) -> None:
        """Let the thread end."""
        self._stage.close()

    def _served(self, name: str) -> Any:
        served = self._service.model(name).backend.served()
        if served is None:
            raise ServingError(503, "not_ready", f"{name} has no pair to answer with")
        return served


def add_cockpit(app: FastAPI, cockpit: Cockpit) -> None:
    """Give an application the page, its files and its routes."""
    static = files("serving.cockpit") / "static"
    page = (static / "page.html").read_text(encoding="utf-8")
    app.mount(ASSETS, StaticFiles(directory=str(static)), name="page")

    @app.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": POLICY})

    app.include_router(_routes(cockpit))


def _routes(cockpit: Cockpit) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/models/{name}/entities", response_model=EntitiesAnswer, responses=described_errors(404, 503))
    async def entities(name: str) -> Response:
        """Name entities that the model can be asked about, up to a thousand."""
        return _json(await cockpit.entities(name))

    @router.get("/models/{name}/recent", response_model=RecentAnswer, responses=described_errors(404, 409, 422, 503))
    async def recent(
        name: str,
        entity: AskedEntity,
        steps: AskedSteps = USUAL_STEPS,
    ) -> Response:
        """Return the newest values of the model's targets that the feature store holds of an entity."""
        return _json(await cockpit.recent(name, entity, steps))

    @router.get(
        "/models/{name}/followed", response_model=FollowedAnswer | None, responses=described_errors(404, 409, 422, 503)
    )
    async def followed(
        name: str,
        entity: AskedEntity,
        steps: AskedSteps = USUAL_STEPS,
    ) -> Response:
        """Return what the served version forecast of an entity before, beside what came true; null if nothing has."""
        return _json(await cockpit.followed(name, entity, steps))

    @router.get("/models/{name}/live", response_model=LiveErrorsAnswer | None, responses=described_errors(404, 503))
    async def live(name: str) -> Response:
        """Return how the model's versions did on what came true lately, or null."""
        return _json(await cockpit.live(name))

    @router.get("/models/{name}/drift", response_model=DriftAnswer | None, responses=described_errors(404, 503))
    async def drift(name: str) -> Response:
        """Return what the newest drift report says, or null."""
        return _json(await cockpit.drift(name))

    return router


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type=JSON)
