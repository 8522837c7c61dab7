"""What every protocol asks for: predictions of a served experiment, admitted, counted and logged.

A route of any protocol reads its own form of a request, asks here, and writes its own form of the answer.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from fastapi import Request

from mlplatform.features import NOW
from mlplatform.monitoring import PredictionLog
from serving.admission import Admission
from serving.alias_look import AliasLook
from serving.answers import ages_seconds, refuse_missing_numbers, served_predictions
from serving.arms import ArmCounts, Arms
from serving.backend import DEFAULT, Backend, Choice, EntityId, Prediction
from serving.bodies import BodyReader
from serving.errors import ErrorDetail, ServingError, StaleFeaturesRefusedError, invalid, shown, unknown_model
from serving.metrics import ServingMetrics
from serving.names import KeyNames
from serving.schemas import MAX_ENTITIES, StrictRequest

T = TypeVar("T")
RequestT = TypeVar("RequestT", bound=StrictRequest)

# Above this size writing an answer takes longer than handing it to a thread.
_SMALL_ANSWER_VALUES = 4_096


@dataclass(frozen=True)
class ServedModel:
    """An experiment that this server answers for."""

    name: str
    backend: Backend
    log: PredictionLog
    alias_look: AliasLook


@dataclass(frozen=True)
class Missing:
    """Why an entity of a request has no answer."""

    entity: EntityId
    code: str
    message: str


# Which of the entities that cannot be answered are left out of an answer that has others: all of them, those that the
# experiment's policy leaves out, or none.
LeavesOut = Literal["all", "policy", "none"]


class Asked(Protocol):
    """What a request asks a model."""

    def ids(self, names: KeyNames, /) -> list[EntityId]:
        """Return the entities that it asks about, each once.

        Parameters:
            names: what rows may call their entity.
        """

    def without(self, entities: Set[EntityId], names: KeyNames) -> Self:
        """Return the same without some of its entities."""

    async def answer(self) -> Prediction:
        """Return the prediction; raises what the backend raises."""


@dataclass(frozen=True)
class AskedRows:
    """Raw rows to predict from.

    Attributes:
        places: of shape (rows,), which of the rows of the request these are; `None` if they are all.
    """

    arms: Arms
    request_id: str
    choice: Choice
    explain: bool
    rows: Sequence[dict[str, Any]]
    places: npt.NDArray[np.int64] | None = None

    def ids(self, names: KeyNames, /) -> list[EntityId]:
        """Return the entities of the rows, in order of appearance."""
        return list(dict.fromkeys(names.entity_of(row) for row in self.rows))

    def without(self, entities: Set[EntityId], names: KeyNames) -> Self:
        """Return the same without the rows of some entities."""
        stays = np.array([names.entity_of(row) not in entities for row in self.rows], dtype=bool)
        kept = np.flatnonzero(stays)
        places = kept if self.places is None else self.places[kept]
        return replace(self, rows=[self.rows[place] for place in kept.tolist()], places=places)

    async def answer(self) -> Prediction:
        """Return the prediction; raises what the backend raises."""
        return await self.arms.from_rows(self.rows, self.choice, self.request_id, self.explain, self.places)


@dataclass(frozen=True)
class AskedEntities:
    """Entities of the feature store to predict for.

    Attributes:
        future: rows of the columns that are known beforehand.
    """

    arms: Arms
    request_id: str
    choice: Choice
    explain: bool
    entities: Sequence[EntityId]
    time_point: str
    future: Sequence[dict[str, Any]]

    def ids(self, _: KeyNames, /) -> list[EntityId]:
        """Return the entities, in the order of the request."""
        return list(self.entities)

    def without(self, entities: Set[EntityId], names: KeyNames) -> Self:
        """Return the same without some entities, and what is known of their future."""
        return replace(
            self,
            entities=[entity for entity in self.entities if entity not in entities],
            # Of what is no id, the reading of the rows tells.
            future=[row for row in self.future if not _is_of(names.entity_of(row), entities)],
        )

    async def answer(self) -> Prediction:
        """Return the prediction; raises what the backend raises."""
        return await self.arms.from_entities(
            self.entities, self.time_point, self.future, self.choice, self.request_id, self.explain
        )


class PredictionService:
    """The served experiments, behind one admission.

    Parameters:
        models: by name, the default one first.

    Attributes:
        reader: reads the bodies of requests.
    """

    def __init__(
        self, models: Mapping[str, ServedModel], admission: Admission, reader: BodyReader, metrics: ServingMetrics
    ) -> None:
        self.models = models
        self.admission, self.reader, self.metrics = admission, reader, metrics
        self.arm_counts = ArmCounts()
        self._arms = {name: self._arms_of(model) for name, model in models.items()}

    @property
    def default(self) -> ServedModel:
        """What answers where a request names no model."""
        return next(iter(self.models.values()))

    def model(self, name: str | None) -> ServedModel:
        """Return a served model.

        Raises:
            ServingError: 404 with the known names.
        """
        if name is None:
            return self.default
        if name not in self.models:
            raise unknown_model(name, list(self.models))
        return self.models[name]

    async def read(self, request: Request, form: type[RequestT]) -> RequestT:
        """Return the body of a request for predictions; one that would not be admitted is not read.

        Raises:
            ServingError: 408, 413, 415, 422 or 429.
            ClientDisconnect: if the client left before its body was complete.
        """
        await self.admission.require_place()
        return await self.reader.read(request, form)

    async def parsed(self, request: Request, parse: Callable[[bytes], T]) -> T:
        """Return what `parse` makes of the body of such a request, for protocols with bodies of their own.

        Raises:
            ServingError: 408, 413, 415, 429, and what `parse` raises.
            ClientDisconnect: if the client left before its body was complete.
        """
        await self.admission.require_place()
        return await self.reader.parsed(request, parse)

    async def from_rows(
        self,
        request: Request,
        model: ServedModel,
        rows: Sequence[dict[str, Any]],
        choice: Choice = DEFAULT,
        *,
        explain: bool = False,
    ) -> tuple[Prediction, list[Missing]]:
        """Return the prediction for raw rows, which is finite, and which of their entities the policy leaves out.

        Raises:
            ServingError: what keeps the request from having an answer.
            ClientDisconnect: if the client left first.
        """
        asked = AskedRows(self._arms[model.name], request.state.request_id, choice, explain, rows)
        return await self._answered(request, model, asked, "policy")

    async def from_entities(
        self,
        request: Request,
        model: ServedModel,
        entities: Sequence[EntityId],
        *,
        time_point: str = NOW,
        future: Sequence[dict[str, Any]] = (),
        choice: Choice = DEFAULT,
        leaves_out: LeavesOut = "policy",
        explain: bool = False,
    ) -> tuple[Prediction, list[Missing]]:
        """Return the prediction for entities of the feature store, and which of them have none.

        Parameters:
            leaves_out: which entities that cannot be answered are left out, instead of failing the request.

        Raises:
            ServingError: what keeps the request, or every entity of it, from having an answer.
            ClientDisconnect: if the client left first.
        """
        _check_entities(entities)
        arms, request_id = self._arms[model.name], request.state.request_id
        asked = AskedEntities(arms, request_id, choice, explain, entities, time_point, future)
        prediction, missing = await self._answered(request, model, asked, leaves_out)
        # What was never asked of the present says nothing about how the present is served.
        if time_point == NOW:
            self._count(model, prediction)
        return prediction, missing

    async def _answered(
        self, request: Request, model: ServedModel, asked: Asked, leaves_out: LeavesOut
    ) -> tuple[Prediction, list[Missing]]:
        """Return the answer to a request, without the entities that it may go without."""
        missing: list[Missing] = []
        while True:
            try:
                prediction = await self._admitted(request, model, asked.answer)
                refuse_missing_numbers(prediction)
            except ServingError as error:
                self._count_refusal(model, error)
                if not (leaves_out == "all" or (leaves_out == "policy" and error.is_left_out)):
                    raise
                served, blamed = model.backend.served(), set(error.entities)
                names = KeyNames() if served is None else served.names
                entities = asked.ids(names)
                gone = [entity for entity in entities if entity in blamed]
                if not 0 < len(gone) < len(entities):
                    raise
                missing += [Missing(entity, error.code, _about(error, entity)) for entity in gone]
                asked = asked.without(blamed, names)
            else:
                return prediction, missing

    async def _admitted(
        self, request: Request, model: ServedModel, work: Callable[[], Coroutine[Any, Any, Prediction]]
    ) -> Prediction:
        request.state.experiment = model.name
        with self.metrics.in_flight(model.name):
            return await self.admission.admit(request.receive, work)

    async def written(
        self,
        request: Request,
        model: ServedModel,
        prediction: Prediction,
        write: Callable[[Prediction], bytes],
        *,
        is_logged: bool = True,
    ) -> bytes:
        """Return what `write` makes of a prediction, and log it; large ones are written in a thread."""
        now = dt.datetime.now(dt.UTC)
        request_id: str = request.state.request_id

        def finish() -> bytes:
            content = write(prediction)
            if is_logged:
                _log(model, prediction, request_id, now)
            return content

        small = prediction.outputs.size <= _SMALL_ANSWER_VALUES
        content = finish() if small else await self.reader.stage.run(finish)
        for part in prediction.by_pair:
            self.metrics.observe_fallbacks(model.name, part.fallback_reasons)
            self.metrics.observe_predictions(model.name, part.arm, part.pair.version, len(part.outputs))
        return content

    async def close(self) -> None:
        """Stop what works in the background."""
        for arms in self._arms.values():
            await arms.close()

    def _arms_of(self, model: ServedModel) -> Arms:
        # Half of the places: a shadow is the first to go.
        return Arms(
            model.name,
            model.backend,
            self.arm_counts,
            partial(_log, model),
            lambda: 2 * self.admission.in_flight > self.admission.limit,
        )

    def _count(self, model: ServedModel, prediction: Prediction) -> None:
        oldest = max((age for age in ages_seconds(prediction) if age is not None), default=None)
        self.metrics.observe_feature_age(model.name, oldest)
        self.metrics.observe_stale(model.name, "flagged", int(prediction.is_stale.sum()))

    def _count_refusal(self, model: ServedModel, error: ServingError) -> None:
        if isinstance(error, StaleFeaturesRefusedError):
            self.metrics.observe_feature_age(model.name, error.oldest_seconds)
            self.metrics.observe_stale(model.name, "refused", len(error.entities))


def _log(model: ServedModel, prediction: Prediction, request_id: str, now: dt.datetime) -> None:
    for part in prediction.by_pair:
        model.log.append(served_predictions(part, request_id, now))


def _is_of(entity: Any, entities: Set[EntityId]) -> bool:
    return type(entity) in (int, str) and entity in entities


def _check_entities(entities: Sequence[EntityId]) -> None:
    if len(entities) > MAX_ENTITIES:
        message = f"the request has {len(entities)} entities, but at most {MAX_ENTITIES} are allowed; split it"
        raise ServingError(413, "too_many_entities", message)
    repeated = [entity for entity, times in Counter(entities).items() if times > 1]
    if repeated:
        details = [
            ErrorDetail(
                field="entities", found=f"{shown(entity)} more than once", expected="ids once", action="drop it"
            )
            for entity in repeated
        ]
        raise invalid("invalid_request", details)


def _about(error: ServingError, entity: EntityId) -> str:
    """Return what an error that names several entities says about one of them."""
    name = shown(entity)
    for detail in error.details:
        if detail.found == name or name in (detail.found.partition(":")[0], detail.found.rpartition(" ")[2]):
            return f"found {detail.found}, expected {detail.expected}; {detail.action}"
    return error.message
