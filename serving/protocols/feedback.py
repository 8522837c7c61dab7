"""Labels of rows of tables, once they are known: `POST /feedback`, from which live errors of tabular models are made.

The answer comes when the labels are on the disk. Sent again, they change nothing, unless others were sent in between.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from fastapi import APIRouter, Request, Response
from pydantic import AwareDatetime, Field, model_validator

from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.monitoring import Label, keep_labels
from mlplatform.settings import Settings
from serving.answers import to_json
from serving.backend import Served
from serving.bodies import JSON
from serving.errors import MAX_DETAILS, ErrorDetail, ServingError, invalid, shown
from serving.protocols.forms import described_body
from serving.schemas import EntityKey, StrictRequest
from serving.service import PredictionService
from serving.stages import Stage

# Each request leaves a file, and a file is waited for: more threads would only wait side by side.
THREADS, WAITING = 2, 64
LONGEST = 256


class LabelForm(StrictRequest):
    """What turned out to be true for one prediction."""

    request_id: str | None = Field(default=None, min_length=1, max_length=LONGEST, description="The `x-request-id`.")
    row: int | None = Field(default=None, ge=0, lt=2**31, description="The place of the row in that request, from 0.")
    entity: EntityKey | None = Field(default=None, description="Instead of the place: the entity of the answer.")
    time: AwareDatetime | None = Field(default=None, description="Without a request: the row's time, if it has one.")
    value: float | None = Field(default=None, description="Of a regression, in original units.")
    label: str | None = Field(default=None, min_length=1, max_length=LONGEST, description="Of a classification.")
    known_at: AwareDatetime | None = Field(
        default=None, description="When it was established; of several labels the one known last counts. Default: now."
    )

    @model_validator(mode="after")
    def _belongs_to_a_prediction(self) -> Self:
        if self.request_id is None and (self.entity is None or self.row is not None):
            raise ValueError("request_id with row or entity, or entity (with time, if rows have one) alone")
        if self.request_id is not None and ((self.row is None) == (self.entity is None) or self.time is not None):
            raise ValueError("request_id with either row or entity, and no time")
        return self

    def stored(self) -> Label:
        """Return the label as the log keeps it."""
        return Label(
            value=self.value,
            label=self.label,
            request_id=self.request_id,
            request_row=self.row,
            entity_id=None if self.entity is None else str(self.entity),
            event_timestamp=self.time,
            known_at=self.known_at,
        )


class FeedbackRequest(StrictRequest):
    """Labels for predictions of one model."""

    model: str | None = Field(default=None, description="A served model; by default the default one.")
    id: str | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST,
        description="Under one id labels count once. Default: they do until others contradict them.",
    )
    labels: list[LabelForm] = Field(min_length=1)


def routes(service: PredictionService, settings: Settings) -> APIRouter:
    """Return the route."""
    stage = Stage("feedback", waiting=WAITING, deadline_s=settings.limits.deadline_s, threads=THREADS)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        stage.close()

    router = APIRouter(tags=["predictions"], lifespan=lifespan)

    @router.post("/feedback", openapi_extra=described_body(FeedbackRequest))
    async def feedback(request: Request) -> Response:
        """Take what turned out to be true for predictions of a tabular model."""
        asked = await service.reader.read(request, FeedbackRequest)
        name = service.model(asked.model).name
        return Response(to_json(await stage.run(_kept, name, asked, settings)), media_type=JSON)

    return router


def _kept(name: str, asked: FeedbackRequest, settings: Settings) -> dict[str, Any]:
    """Write the labels and return what became of them.

    Raises:
        ServingError: 409 for a model that forecasts, 422 for labels that cannot be of its predictions, 503 if the disk
            refuses.
    """
    config = load_experiment(name, settings=settings)
    if config.task == "forecast":
        message = f"model {name!r} forecasts, and what comes true of it are rows of its dataset; ingest these instead"
        raise ServingError(409, "no_labels", message)
    _check(asked.labels, config)
    now = dt.datetime.now(dt.UTC)
    try:
        feedback_id, is_new = keep_labels(settings, name, [each.stored() for each in asked.labels], now, asked.id)
    except OSError as error:
        message = f"the labels for {name!r} could not be written ({error.strerror}); repeat the request"
        raise ServingError(503, "feedback_not_kept", message, headers={"retry-after": "1"}) from error
    return {"model": name, "feedback_id": feedback_id, "labels": len(asked.labels), "new": is_new}


def _check(labels: Sequence[LabelForm], config: ExperimentConfig) -> None:
    wanted, other = ("label", "value") if config.task == "classification" else ("value", "label")
    findings: list[ErrorDetail] = []
    seen = set[tuple[Any, ...]]()
    for number, each in enumerate(labels):
        found, surplus = getattr(each, wanted), getattr(each, other)
        if found is None or surplus is not None or (isinstance(found, float) and not math.isfinite(found)):
            expected = f"a {wanted} for task {config.task}, and no {other}"
            findings.append(_finding(number, wanted, shown(found), expected))
        if each.request_id is None and config.dataset.entity_column is None:
            expected = f"request_id and row: rows of dataset {config.dataset.name!r} have no entity that names them"
            findings.append(_finding(number, "entity", shown(each.entity), expected))
        elif each.request_id is None and (each.time is None) == (config.dataset.time_column is not None):
            expected = "the row's time" if each.time is None else "none: rows of the dataset have no time"
            findings.append(_finding(number, "time", shown(each.time and str(each.time)), expected))
        # As the log calls them: entities are text there, and rows that name none are called by their numbers.
        key = (each.request_id, str(each.entity if each.row is None else each.row), each.time)
        if key in seen:
            expected = "one label for each, all rows of a request named by row or all by entity"
            findings.append(_finding(number, "row", "a second label for one prediction", expected))
        seen.add(key)
        if len(findings) > MAX_DETAILS:
            break
    if findings:
        raise invalid("invalid_labels", findings)


def _finding(label: int, field: str, found: str, expected: str) -> ErrorDetail:
    return ErrorDetail(
        field=f"labels[{label}].{field}", row=label, found=found, expected=expected, action="correct the label"
    )


def example(name: str, served: Served) -> dict[str, Any] | None:
    """Return a request with a label for the first row of a request; `None` for a model that forecasts."""
    contract = served.pair.contract
    if contract.task == "forecast":
        return None
    truth = {"label": contract.classes[0]} if contract.task == "classification" else {"value": 1.0}
    return {"model": name, "labels": [{"request_id": "as-answered", "row": 0, **truth}]}
