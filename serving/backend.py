"""What the routes need from whoever computes the answers: the `Backend` protocol and the values it exchanges.

Two backends exist: `serving.local` computes in the web server's process, `serving.ray_backend` asks deployments on Ray
Serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Answers, observed_shares, with_fallback
from mlplatform.registry.pairs import PRODUCTION, PairInfo
from serving.batching import Slice
from serving.rules import Mark, RowRules
from serving.timing import StageTimes

EntityId = int | str


@dataclass(frozen=True)
class Choice:
    """Which pair of an experiment is to answer: the one behind an alias, or a version."""

    alias: str = PRODUCTION
    version: int | None = None

    @property
    def is_default(self) -> bool:
        """Whether that is the pair in production."""
        return self.version is None and self.alias == PRODUCTION

    @property
    def ref(self) -> str:
        """As the registry understands it."""
        return self.alias if self.version is None else str(self.version)


DEFAULT = Choice()


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
        is_fallback: of shape (n,): whether the last measured value stands in for the model's forecast.
        is_stale: of shape (n,): whether that is beyond the experiment's limit. Never so for rows of the request itself.
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
    is_fallback: npt.NDArray[np.bool_]

    def part(self, where: Slice) -> Prediction:
        """Return the answers of the entities of a slice."""
        chosen = slice(where.start, where.stop)
        return Prediction(
            pair=self.pair,
            entity_ids=self.entity_ids[chosen],
            origins=self.origins[chosen],
            answers=where.of(self.answers),
            event_times=self.event_times[chosen],
            ages=self.ages[chosen],
            is_stale=self.is_stale[chosen],
            marks=self.marks[chosen],
            observed=self.observed[chosen],
            is_fallback=self.is_fallback[chosen],
        )

    @property
    def outputs(self) -> Float32:
        """The point predictions."""
        return self.answers.point

    @classmethod
    def of(
        cls,
        pair: PairInfo,
        panel: FeaturePanel,
        answers: Answers,
        rules: RowRules,
        falls_back: npt.NDArray[np.bool_],
    ) -> Prediction:
        """Return the prediction made from the last row of the past of every entity of `panel`.

        Parameters:
            falls_back: of shape (n,), which forecasts the last measured value replaces.
        """
        is_forecast = pair.contract.task == "forecast"
        whole = np.ones(len(panel.entity_ids))
        last = panel.timestamps[panel.offsets[1:] - 1 - pair.contract.future_rows]
        return cls(
            pair=pair,
            entity_ids=panel.entity_ids,
            origins=last if is_forecast else panel.event_times,
            answers=with_fallback(panel, pair.contract, answers, falls_back),
            event_times=panel.event_times,
            ages=panel.ages,
            is_stale=panel.is_stale,
            marks=rules.marks(panel, pair.contract),
            observed=observed_shares(panel, pair.contract) if is_forecast else whole,
            is_fallback=falls_back,
        )


@dataclass(frozen=True)
class Served:
    """What answers now, as far as clients are told.

    Attributes:
        types: `float` or `category` per input column.
        max_age: age beyond which features are stale, as the configuration has it; `None` without a limit.
        coverage: of the prediction intervals; `None` without intervals.
        example: raw rows that the pair answers, as a client would send them: enough for one prediction each of a few
            entities, or a few rows of a table.
        inference: how the model answers, in words: as fitted, or in a faster form with the same bits.
    """

    pair: PairInfo
    types: Mapping[str, str]
    max_age: str | None
    coverage: float | None
    example: tuple[dict[str, Any], ...] = ()
    inference: str = "as fitted"


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
    ) -> Prediction:
        """Predict for entities of the feature store.

        Parameters:
            time_point: `now`, or a moment of the past.
            future: rows over the horizon, of a model that reads columns known beforehand.
        """

    async def predict_rows(self, rows: Sequence[dict[str, Any]], choice: Choice = DEFAULT) -> Prediction:
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
