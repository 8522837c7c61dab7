"""The page at `/` and what it asks."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from mlplatform.settings import Settings
from serving.answers import to_json
from serving.bodies import JSON
from serving.cockpit.recent import entity_of, read_drift, read_entities, read_recent
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
        contract = self._served(name).pair.contract
        if contract.task != "forecast":
            raise ServingError(409, "no_series", f"{name} answers rows of a table, which have no past")
        return await self._stage.run(read_recent, contract, entity_of(entity), steps, self._settings)

    async def drift(self, name: str) -> dict[str, Any] | None:
        """Return what the newest drift report says."""
        return await self._stage.run(read_drift, self._service.model(name).name, self._settings)

    async def entities(self, name: str) -> dict[str, Any]:
        """Return entities that the served pair can be asked about; those of its example come first."""
        served = self._served(name)
        examples = example_entities(served)
        return await self._stage.run(read_entities, served.pair.contract, examples, MOST_ENTITIES, self._settings)

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
        entity: Annotated[str, Query(description='The id, as in JSON: 7, or "007" for text.')],
        steps: Annotated[int, Query(ge=1, le=MOST_STEPS)] = 168,
    ) -> Response:
        """Return the newest values of the model's targets that the feature store holds of an entity."""
        return _json(await cockpit.recent(name, entity, steps))

    @router.get("/models/{name}/drift", response_model=DriftAnswer | None, responses=described_errors(404, 503))
    async def drift(name: str) -> Response:
        """Return what the newest drift report says, or null."""
        return _json(await cockpit.drift(name))

    return router


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type=JSON)
