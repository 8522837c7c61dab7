"""What the routes need from whoever computes the answers: the `Backend` protocol and the values it exchanges.

Two backends exist: `serving.local` computes in the web server's process, `serving.ray_backend` asks deployments on Ray
Serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mlplatform.config import ChallengerConfig
from mlplatform.datamodule import Float32, Int64
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Answers, Completed, Contract, Judged, Reasons
from mlplatform.registry.pairs import PRODUCTION, PairInfo
from serving.batching import Slice
from serving.names import KeyNames
from serving.rules import Mark, RowRules
from serving.timing import StageTimes

EntityId = int | str
# One per entity, as `registry.explain` returns them; `None` for what has none.
Explanations = tuple[dict[str, Any] | None, ...]


@dataclass(frozen=True)
class Choice:
    """Which pair of an experiment is to answer: the one behind an alias, or a version.

    Attributes:
        is_named: whether the request says so itself; then no other pair shares the work.
        is_challenger: whether it is the challenger that is loaded beside production.
    """

    alias: str = PRODUCTION
    version: int | None = None
    is_named: bool = False
    is_challenger: bool = False

    @property
    def is_default(self) -> bool:
        """Whether that is the pair in production."""
        return self.version is None and self.alias == PRODUCTION and not self.is_challenger

    @property
    def ref(self) -> str:
        """As the registry understands it."""
        return self.alias if self.version is None else str(self.version)


DEFAULT = Choice()
CHALLENGER = Choice(is_challenger=True)
# The arm of answers that a request has chosen a pair for, and of answers that several arms share.
REQUESTED, MIXED = "requested", "mixed"


class ToldBy(NamedTuple):
    """Which arm, and which version in it, one answer is of."""

    arm: str
    version: int


@dataclass(frozen=True)
class Prediction:
    """The answer to one request, in original units, and the pair that made all of it.

    Attributes:
        pair: the pair that answered.
        entity_ids: of shape (n,).
        origins: of shape (n,), datetime64[ns] in UTC: the last moment that each answer looked at; NaT if its
            row has no time.
        answers: point predictions, forecast (n, horizon, targets), regression (n,), classification probabilities
            (n, classes), with the bounds of their prediction intervals if the model was calibrated.
        event_times: of shape (n,), datetime64[ns] in UTC: the newest row that each answer was made from; NaT if it has
            no time.
        ages: of shape (n,), timedelta64[ns]: how old that row was when it was read; NaT if it has no time.
        marks: of shape (n,): what is unusual in the rows that each answer was made from.
        observed: of shape (n,): the share of each forecast's lookback that was measured; 1 for tabular answers.
        fallback_reasons: of shape (n,): why something stands in for the model's forecast; `None` where nothing does.
        is_stale: of shape (n,): whether that is beyond the experiment's limit. Never so for rows of the request itself.
        arm: which of the pairs that share the traffic answered.
        parts: of an answer that several arms share, what each of them answered and for which entities; `pair` is that
            of the first. Empty if one pair answered all.
        explanations: of shape (n,); empty if nobody asked for them.
        places: of shape (n,), which of the rows of the request each answer is of; `None` if it answers all in order.
    """

    pair: PairInfo
    entity_ids: npt.NDArray[np.generic]
    origins: npt.NDArray[np.datetime64]
    answers: Answers
    event_times: npt.NDArray[np.datetime64]
    ages: npt.NDArray[np.timedelta64]
    is_stale: npt.NDArray[np.bool_]
    marks: tuple[tuple[Mark, ...], ...]
    observed: npt.NDArray[np.float64]
    fallback_reasons: Reasons
    arm: str = PRODUCTION
    parts: tuple[Part, ...] = ()
    explanations: Explanations = ()
    places: npt.NDArray[np.int64] | None = None

    @property
    def form(self) -> tuple[Any, ...]:
        """As `Served.form`."""
        return form_of(self.pair.contract, self.answers.coverages)

    @cached_property
    def is_fallback(self) -> npt.NDArray[np.bool_]:
        """Whether something stands in for the model's forecast, of shape (n,)."""
        return np.array([why is not None for why in self.fallback_reasons], dtype=bool)

    @cached_property
    def is_broken(self) -> npt.NDArray[np.bool_]:
        """Whether a number of an answer is none that can be told, of shape (n,)."""
        return self.answers.is_broken(self.is_fallback)

    @cached_property
    def times_ahead(self) -> npt.NDArray[np.datetime64]:
        """The moments that are forecast, of shape (n, horizon)."""
        return self.pair.contract.moments_ahead(self.origins)

    @property
    def by_pair(self) -> Sequence[Prediction]:
        """What each pair answered, one prediction per pair."""
        return [part.prediction for part in self.parts] or [self]

    @property
    def told_by(self) -> list[ToldBy]:
        """Which arm and version answered for each entity."""
        told = [ToldBy(self.arm, self.pair.version)] * len(self.entity_ids)
        for prediction, places in self.parts:
            for place in places.tolist():
                told[place] = ToldBy(prediction.arm, prediction.pair.version)
        return told

    def part(self, where: Slice, *, is_numbered: bool = False) -> Prediction:
        """Return the answers of the entities of a slice.

        Parameters:
            is_numbered: whether they are called by their numbers in the slice, as rows without ids are.
        """
        chosen = slice(where.start, where.stop)
        part = replace(
            self,
            entity_ids=np.arange(where.stop - where.start) if is_numbered else self.entity_ids[chosen],
            origins=self.origins[chosen],
            answers=where.of(self.answers),
            event_times=self.event_times[chosen],
            ages=self.ages[chosen],
            is_stale=self.is_stale[chosen],
            marks=self.marks[chosen],
            observed=self.observed[chosen],
            fallback_reasons=self.fallback_reasons[chosen],
        )
        # Worked out once for all that were answered together.
        vars(part)["is_fallback"] = self.is_fallback[chosen]
        vars(part)["is_broken"] = self.is_broken[chosen]
        if self.pair.contract.task == "forecast":
            vars(part)["times_ahead"] = self.times_ahead[chosen]
        return part

    @property
    def outputs(self) -> Float32:
        """The point predictions."""
        return self.answers.point

    @classmethod
    def of(
        cls,
        pair: PairInfo,
        panel: FeaturePanel,
        completed: Completed,
        judged: Judged,
        rules: RowRules,
    ) -> Prediction:
        """Return the prediction made from the last row of the past of every entity of `panel`."""
        is_forecast = pair.contract.task == "forecast"
        return cls(
            pair=pair,
            entity_ids=panel.entity_ids,
            origins=completed.origins if is_forecast else panel.event_times,
            answers=completed.answers,
            event_times=panel.event_times,
            ages=panel.ages,
            is_stale=panel.is_stale,
            marks=rules.marks(panel, pair.contract),
            observed=judged.shares,
            fallback_reasons=completed.replaced,
        )


def form_of(contract: Contract, coverages: tuple[float, ...]) -> tuple[Any, ...]:
    """Return what the form of answers depends on."""
    steps = (contract.horizon, contract.step_seconds, contract.calendar_text)
    return contract.task, contract.targets, steps, contract.classes, coverages


class Part(NamedTuple):
    """What one pair answered of a request, and where in the request its entities stand."""

    prediction: Prediction
    places: Int64


@dataclass(frozen=True)
class Served:
    """What answers now, as far as clients are told.

    Attributes:
        types: `float` or `category` per input column.
        max_age: age beyond which features are stale, as the configuration has it; `None` without a limit.
        coverages: of the prediction intervals, the main one first; empty without intervals.
        example: raw rows that the pair answers, as a client would send them: enough for one prediction each of a few
            entities, or a few rows of a table.
        inference: how the model answers, in words: as fitted, or in a faster form with the same bits.
        names: what clients may call entity and time.
    """

    pair: PairInfo
    types: Mapping[str, str]
    max_age: str | None
    coverages: tuple[float, ...]
    example: tuple[dict[str, Any], ...] = ()
    inference: str = "as fitted"
    names: KeyNames = field(default_factory=KeyNames)

    @property
    def form(self) -> tuple[Any, ...]:
        """What the form of its answers depends on: two pairs can share a request only if theirs is the same."""
        return form_of(self.pair.contract, self.coverages)


@dataclass(frozen=True)
class Challenger:
    """The second pair of an experiment.

    Attributes:
        served: what answers for it; `None` while production answers everything.
        reason: why that is so.
    """

    config: ChallengerConfig
    served: Served | None
    reason: str | None


@dataclass(frozen=True)
class ReloadReport:
    """What a reload found: the pair now served, and the version served before (`None` if there was none)."""

    pair: PairInfo
    previous_version: int | None

    @property
    def swapped(self) -> bool:
        """Whether the served version changed."""
        return self.pair.version != self.previous_version


@dataclass(frozen=True)
class Status:
    """Whether predictions can be answered: the served pair, and what is missing (`None` when nothing is)."""

    pair: PairInfo | None
    reason: str | None

    @property
    def ready(self) -> bool:
        """Whether nothing is missing."""
        return self.reason is None


class Backend(Protocol):
    """Computes answers. Failures that a client should see are raised as `ServingError`."""

    async def start(self) -> None:
        """Load the production pair if there is one. Does not fail when there is none."""

    async def close(self) -> None:
        """Release everything."""

    async def forecast_entities(
        self,
        entities: Sequence[EntityId],
        time_point: str,
        future: Sequence[dict[str, Any]] = (),
        choice: Choice = DEFAULT,
        explain: bool = False,
    ) -> Prediction:
        """Predict for entities of the feature store.

        Parameters:
            time_point: `now`, or a moment of the past.
            future: rows over the horizon, of a model that reads columns known beforehand.
            explain: whether every answer comes with its explanation.
        """

    async def predict_rows(
        self, rows: Sequence[dict[str, Any]], choice: Choice = DEFAULT, explain: bool = False
    ) -> Prediction:
        """Predict from raw rows."""

    async def reload(self) -> ReloadReport:
        """Serve the pair that is in production now; on failure the pair served so far stays."""

    async def status(self) -> Status:
        """Say whether predictions can be answered."""

    def looks(self) -> Mapping[str, int]:
        """Return how often the server looked for another pair by itself, by outcome."""

    @property
    def times(self) -> StageTimes:
        """How long the stages of requests took."""

    def queues(self) -> Mapping[str, int]:
        """Return how many requests wait for which stage; experiments of one process share their stages."""

    def served(self) -> Served | None:
        """Return what would answer now."""

    def challenger(self) -> Challenger | None:
        """Return what shares the work with it; `None` if the experiment has no challenger."""

    def challenger_looks(self) -> Mapping[str, int]:
        """Return how the looks for the challenger ended, by outcome."""
