"""Champion and challenger: which of an experiment's two pairs answers an entity, the same on every route and server.

What a challenger cannot answer, in time and finite, production answers. A request with entities of both arms is
answered in two parts, each by one pair; every entity of the answer says which one that was.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client.core import CounterMetricFamily, Metric

from mlplatform.datamodule import Int64
from mlplatform.features import NOW
from mlplatform.registry import Answers, Why
from mlplatform.registry.pairs import PRODUCTION, PairInfo
from serving.answers import refuse_missing_numbers
from serving.assignment import entity_key, entity_name, keys_of_rows, place_of
from serving.backend import (
    CHALLENGER,
    DEFAULT,
    MIXED,
    REQUESTED,
    Backend,
    Challenger,
    Choice,
    EntityId,
    Part,
    Prediction,
    Served,
)
from serving.breaker import CircuitBreaker
from serving.errors import ServingError
from serving.shadow import Shadow, ShadowQuestion
from serving.stages import Deadline

Rows = Sequence[dict[str, Any]]
_PAUSED = "challenger_paused"
# What production is asked about instead; what is wrong with the features is wrong for both.
_FAILURES: set[Why | None] = {"model_failed", "not_finite"}
# Asks one pair about the entities at some places of the request, all of them without any.
Ask = Callable[[Choice, Int64 | None], Awaitable[Prediction]]


@dataclass
class ArmCounts:
    """What the challengers of all experiments did.

    Attributes:
        fallbacks: requests that production answered instead, by experiment and reason.
        shadows: by experiment and outcome.
    """

    fallbacks: Counter[tuple[str, str]] = field(default_factory=Counter)
    shadows: Counter[tuple[str, str]] = field(default_factory=Counter)

    def families(self, looks: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
        """Yield the metrics.

        Parameters:
            looks: by experiment, how the looks for its challenger ended.
        """
        looked = {(name, outcome): count for name, counts in looks.items() for outcome, count in counts.items()}
        for name, text, label, counts in (
            ("fallbacks", "Requests that production answered instead of the challenger.", "reason", self.fallbacks),
            ("shadow_requests", "Requests copied to a challenger in shadow mode.", "outcome", self.shadows),
            ("looks", "Looks which pair is the challenger, by outcome.", "outcome", looked),
        ):
            family = CounterMetricFamily(f"mlplatform_challenger_{name}", text, labels=("experiment", label))
            for values, count in counts.items():
                family.add_metric(values, count)
            yield family


class Arms:
    """Routes the requests of one experiment.

    Parameters:
        backend: has both pairs.
        counts: shared with the other experiments.
        log: keeps a challenger's shadow answer.
        is_busy: whether shadows should be dropped.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        counts: ArmCounts,
        log: Callable[[Prediction, str, dt.datetime], None],
        is_busy: Callable[[], bool],
    ) -> None:
        self._name, self._backend, self._counts, self._log = name, backend, counts, log
        self._breaker = CircuitBreaker()
        self._shadow = Shadow(self._log_shadow, self._count_shadow, is_busy)

    async def close(self) -> None:
        """Stop what works in the background."""
        await self._shadow.close()

    async def from_rows(
        self, rows: Rows, choice: Choice, request_id: str, explain: bool, places: Int64 | None = None
    ) -> Prediction:
        """Return the prediction for raw rows; raises what the backend raises.

        Parameters:
            places: which of the rows of the request these are; `None` if they are all.
        """
        challenger = self._backend.challenger()
        if challenger is None or choice != DEFAULT:
            prediction = await self._backend.predict_rows(rows, choice, explain)
            return self._labelled(_placed(prediction, places, None), choice)
        served = self._sharing(challenger)
        units, of_row = _units(keys_of_rows(rows, served) if served else None, served)
        has_ids = served is not None and entity_name(rows[0], served) is not None

        async def ask(which: Choice, chosen: Int64 | None) -> Prediction:
            if chosen is None:
                prediction = await self._backend.predict_rows(rows, which, _explains(explain, which, challenger))
                return _placed(prediction, places, None)
            wanted = set(chosen.tolist())
            part = [row for row, place in zip(rows, of_row, strict=True) if place in wanted]
            prediction = await self._backend.predict_rows(part, which, _explains(explain, which, challenger))
            # Rows without ids are told by their numbers in the request.
            told = prediction if has_ids else replace(prediction, entity_ids=chosen)
            return _placed(told, places, chosen)

        return await self._answered(ask, units, challenger, request_id, len(rows))

    async def from_entities(
        self,
        entities: Sequence[EntityId],
        time_point: str,
        future: Rows,
        choice: Choice,
        request_id: str,
        explain: bool,
    ) -> Prediction:
        """Return the prediction for entities of the feature store; raises what the backend raises."""
        challenger = self._backend.challenger()
        if challenger is None or choice != DEFAULT or time_point != NOW:
            prediction = await self._backend.forecast_entities(entities, time_point, future, choice, explain)
            return self._labelled(prediction, choice)
        places: list[bytes] | None = None
        of_future: list[bytes] = []
        if (served := self._sharing(challenger)) is not None:
            places = [entity_key(entity) for entity in entities]
            keys = keys_of_rows(future, served) if future else []
            # Rows that belong to nobody asked for are found where all are read.
            places = None if keys is None or not set(keys) <= set(places) else places
            of_future = keys or []

        async def ask(which: Choice, chosen: Int64 | None) -> Prediction:
            explains = _explains(explain, which, challenger)
            if chosen is None or places is None:
                return await self._backend.forecast_entities(entities, time_point, future, which, explains)
            part = [entities[place] for place in chosen.tolist()]
            wanted = {places[place] for place in chosen.tolist()}
            ahead = [row for row, key in zip(future, of_future, strict=True) if key in wanted]
            return await self._backend.forecast_entities(part, time_point, ahead, which, explains)

        return await self._answered(ask, places, challenger, request_id, len(entities) + len(future))

    def _sharing(self, challenger: Challenger) -> Served | None:
        """Return what is served while the challenger takes part; `None` while it does not."""
        return None if challenger.served is None else self._backend.served()

    async def _answered(
        self, ask: Ask, keys: Sequence[bytes] | None, challenger: Challenger, request_id: str, rows: int
    ) -> Prediction:
        share = challenger.config.share
        chosen = np.array([place_of(self._name, key) < share for key in keys or ()], dtype=bool)
        if not chosen.any():
            return await ask(DEFAULT, None)
        places = None if chosen.all() else np.flatnonzero(chosen)
        if challenger.config.mode == "split":
            return await self._split(ask, chosen, places, challenger)
        prediction = await ask(DEFAULT, None)
        shadow, now = partial(self._challenged, ask, places, challenger), dt.datetime.now(dt.UTC)
        self._shadow.offer(ShadowQuestion(shadow, rows, request_id, now))
        return prediction

    async def _split(
        self, ask: Ask, chosen: npt.NDArray[np.bool_], places: Int64 | None, challenger: Challenger
    ) -> Prediction:
        """Return the answer of both pairs; where one of them has none, production is asked about the whole request.

        Findings name rows and entities of the whole request, so none of a part is told.
        """
        others = np.flatnonzero(~chosen)
        asked: list[Awaitable[Prediction]] = [self._challenged(ask, places, challenger)]
        if places is not None:
            asked.append(ask(DEFAULT, others))
        tried, *rest = await asyncio.gather(*asked, return_exceptions=True)
        if isinstance(tried, ServingError):
            self._counts.fallbacks[self._name, _reason(tried)] += 1
        if any(isinstance(result, BaseException) for result in (tried, *rest)):
            return await ask(DEFAULT, None)
        assert isinstance(tried, Prediction)
        if places is None:
            return tried
        (production,) = rest
        assert isinstance(production, Prediction)
        if production.form != tried.form:
            # For a moment after a promotion of a pair that answers otherwise.
            self._counts.fallbacks[self._name, "form"] += 1
            return await ask(DEFAULT, None)
        return joined(Part(production, others), Part(tried, places))

    async def _challenged(self, ask: Ask, places: Int64 | None, challenger: Challenger) -> Prediction:
        """Return the challenger's answer.

        Raises:
            ServingError: if there is none in time, or it is not finite.
        """
        if self._breaker.is_open:
            raise ServingError(503, _PAUSED, "the challenger failed several times and is left alone for a moment")

        async def tried() -> Prediction:
            try:
                async with Deadline("challenger", challenger.config.deadline_s):
                    prediction = await ask(CHALLENGER, places)
            except ServingError:
                raise
            except Exception as error:
                raise ServingError(500, "challenger_failed", f"{type(error).__name__}: {error}") from error
            refuse_missing_numbers(prediction)
            if _FAILURES & set(prediction.fallback_reasons):
                raise ServingError(500, "challenger_failed", "something stands in for the challenger's answers")
            return replace(prediction, arm=challenger.config.alias)

        return await self._breaker.call(tried)

    @staticmethod
    def _labelled(prediction: Prediction, choice: Choice) -> Prediction:
        return prediction if choice.is_default else replace(prediction, arm=REQUESTED)

    def _count_shadow(self, outcome: str) -> None:
        self._counts.shadows[self._name, outcome] += 1

    def _log_shadow(self, prediction: Prediction, question: ShadowQuestion) -> None:
        self._log(prediction, question.request_id, question.asked_at)


def served_pairs(backend: Backend) -> dict[str, PairInfo]:
    """Return the pairs that answer now, by arm."""
    served, challenger = backend.served(), backend.challenger()
    pairs = {PRODUCTION: served.pair} if served else {}
    if challenger is not None and challenger.served is not None:
        pairs[challenger.config.alias] = challenger.served.pair
    return pairs


def joined(first: Part, second: Part) -> Prediction:
    """Return one prediction of what two pairs, whose answers have the same form, answered of a request."""
    one, other = first.prediction, second.prediction
    order = np.argsort(np.concatenate([first.places, second.places]))

    def both(name: str) -> Any:
        return np.concatenate([getattr(one, name), getattr(other, name)])[order]

    # Just promoted, the challenger is production: then one pair answered all.
    is_one = one.pair.pair_id == other.pair.pair_id
    marks, explained = [*one.marks, *other.marks], [*one.explanations, *other.explanations]
    reasons = [*one.fallback_reasons, *other.fallback_reasons]
    return Prediction(
        pair=one.pair,
        entity_ids=both("entity_ids"),
        origins=both("origins"),
        answers=Answers.joined([one.answers, other.answers]).map(lambda values: values[order]),
        event_times=both("event_times"),
        ages=both("ages"),
        is_stale=both("is_stale"),
        marks=tuple(marks[place] for place in order),
        observed=both("observed"),
        fallback_reasons=tuple(reasons[place] for place in order),
        arm=one.arm if is_one else MIXED,
        parts=() if is_one else (first, second),
        explanations=tuple(explained[place] for place in order) if explained else (),
        places=None if one.places is None or other.places is None else both("places"),
    )


def _placed(prediction: Prediction, places: Int64 | None, chosen: Int64 | None) -> Prediction:
    """Return an answer to some rows of a table with their places in the request; a forecast's rows have none.

    Parameters:
        places: of the rows that were to be answered; `None` if they are all of the request.
        chosen: which of these were; `None` for all.
    """
    if prediction.pair.contract.task == "forecast" or (places is None and chosen is None):
        return prediction
    return replace(prediction, places=chosen if places is None else places if chosen is None else places[chosen])


def _units(keys: Sequence[bytes] | None, served: Served | None) -> tuple[list[bytes] | None, list[int]]:
    """Return the keys of what is answered, entities or rows of a table, and which of them each row belongs to."""
    if keys is None or served is None:
        return None, []
    if served.pair.contract.task != "forecast":
        return list(keys), list(range(len(keys)))
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return list(places), [places[key] for key in keys]


def _explains(asked: bool, which: Choice, challenger: Challenger) -> bool:
    """Return whether a pair is to explain its answers: nobody reads those of a shadow."""
    return asked and not (which.is_challenger and challenger.config.mode == "shadow")


def _reason(error: ServingError) -> str:
    """Return why a challenger has no answer, in few words: they become labels of a metric."""
    if error.status < 500:
        return "refused"
    return {"deadline_exceeded": "timeout", "no_challenger": "absent", _PAUSED: "paused"}.get(error.code, "failed")
