"""A chunk of entities through the production pair: what is answered, and who is left out and why.

Reading, judging and answering are the calls that the servers make, so the numbers are theirs bit for bit. Where a
server refuses a request because of an entity, a batch leaves that entity out and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ExperimentConfig
from mlplatform.features import NOW, ShortWindowError, TimePoint, UnknownEntityError
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.forecasts.scenario import apply_scenario
from mlplatform.registry import (
    Answers,
    FallbackPolicy,
    Forecaster,
    InputRules,
    Judged,
    Mark,
    complete,
    judge,
    read_features,
    scales_of_pair,
    unknown_ahead,
    why_broken,
    with_ahead,
)
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform.settings import Settings

Reason = Literal["unknown", "short", "stale", "unknown_future", "too_little_observed", "not_finite"]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LeftOut:
    """An entity without a forecast, and why: a word to count by, and what was found."""

    entity: Any
    reason: Reason
    found: str


@dataclass(frozen=True)
class Answered:
    """The answers for n entities, in original units.

    Attributes:
        panel: what was read, the known future included.
        answers: points and bounds, something that stands in for them where `is_fallback`.
        origins: of shape (n,), datetime64[ns] in UTC: the last moment each answer looked at; NaT of rows without time.
        observed: of shape (n,): the share of the lookback that was measured.
        is_fallback: of shape (n,).
        marks: of shape (n,): what is unusual in the rows behind each answer.
    """

    panel: FeaturePanel
    answers: Answers
    origins: npt.NDArray[np.datetime64]
    observed: npt.NDArray[np.float64]
    is_fallback: Bools
    marks: tuple[tuple[Mark, ...], ...]


@dataclass(frozen=True)
class Answering:
    """The pair, the experiment's policies and the moment of one run.

    Attributes:
        scenario: known-future rows that stand in the place of what the store knows; see `apply_scenario`.
    """

    config: ExperimentConfig
    forecaster: Forecaster
    settings: Settings
    time_point: TimePoint
    scenario: pd.DataFrame | None = None

    @classmethod
    def of_pair(
        cls,
        config: ExperimentConfig,
        store: PairStore,
        pair: PairInfo,
        settings: Settings,
        time_point: TimePoint,
        scenario: pd.DataFrame | None = None,
    ) -> Answering:
        """Return what answers with a registered pair, its intervals scaled as they are now.

        Raises:
            PairIntegrityError: if an artifact of it is not what was registered.
        """
        scales = scales_of_pair(settings, config.name, pair.pair_id)
        return cls(config, replace(store.load(pair), interval_scales=scales), settings, time_point, scenario)

    def answer(self, entities: Sequence[Any]) -> tuple[Answered | None, list[LeftOut]]:
        """Return the answers of the entities that have one, in their order, and the others."""
        left_out: list[LeftOut] = []
        panel = self._read(entities, left_out)
        for sort_out in (self._without_stale, self._with_future):
            panel = sort_out(panel, left_out) if panel is not None else None
        return (None, left_out) if panel is None else self._answered(panel, left_out)

    def _read(self, entities: Sequence[Any], left_out: list[LeftOut]) -> FeaturePanel | None:
        """Return what the store has; an entity that it does not have, or too little of, is asked for only once."""
        staleness = self.config.staleness.model_copy(update={"action": "flag"})
        contract, dataset = self.forecaster.contract, self.config.dataset
        wanted = list(entities)
        while wanted:
            try:
                return read_features(contract, dataset, staleness, wanted, self.time_point, self.settings)
            except (UnknownEntityError, ShortWindowError) as error:
                gone = set(error.entities)
                reason: Reason = "short" if isinstance(error, ShortWindowError) else "unknown"
                found = {"short": "fewer stored rows than a forecast reads", "unknown": self._unknown()}[reason]
                left_out += [LeftOut(entity, reason, found) for entity in wanted if entity in gone]
                before, wanted = len(wanted), [entity for entity in wanted if entity not in gone]
                if len(wanted) == before:
                    raise
        return None

    def _unknown(self) -> str:
        if self.time_point == NOW:
            return "not in the online store: the entity is unknown, or online_features is to be materialised"
        return f"no row that was known at {self.time_point}"

    def _without_stale(self, panel: FeaturePanel, left_out: list[LeftOut]) -> FeaturePanel | None:
        policy = self.config.staleness
        is_refusing = policy.limit is not None and policy.action == "refuse"
        if not is_refusing or not panel.is_stale.any() or self.config.serving.fallback != "none":
            return panel
        return _kept(panel, panel.is_stale, "stale", self._ages(panel), left_out)

    def _ages(self, panel: FeaturePanel) -> list[str]:
        """Return what is wrong with the age of every entity's features."""
        found = [
            "features of unknown age" if np.isnat(age) else f"features of {time}Z, {pd.Timedelta(age)} old"
            for time, age in zip(panel.event_times.astype("datetime64[s]"), panel.ages, strict=True)
        ]
        return [f"{text}; at most {self.config.staleness.max_age} is allowed" for text in found]

    def _with_future(self, panel: FeaturePanel, left_out: list[LeftOut]) -> FeaturePanel | None:
        """Return the panel with the known future behind the past."""
        contract = self.forecaster.contract
        if not contract.known:
            return panel
        if self.scenario is not None:
            panel = apply_scenario(panel, self.scenario, contract)
        missing = unknown_ahead(panel)
        names = ", ".join(contract.known)
        texts = [f"no values of {names} for step {_listed(np.flatnonzero(steps) + 1)}" for steps in missing]
        is_unknown: Bools = np.asarray(missing.any(axis=1))
        kept = _kept(panel, is_unknown, "unknown_future", texts, left_out)
        return None if kept is None else with_ahead(kept, kept.known_ahead, contract)

    def _answered(self, panel: FeaturePanel, left_out: list[LeftOut]) -> tuple[Answered | None, list[LeftOut]]:
        contract, policy = self.forecaster.contract, FallbackPolicy.of(self.config)
        judged = judge(panel, contract, policy, panel.is_stale)
        is_refused: Bools = np.array([why is not None for why in judged.refused], dtype=bool)
        kept = panel
        refusals: tuple[tuple[Reason, list[str]], ...] = (
            ("stale", self._ages(panel)),
            ("too_little_observed", _shares(judged, policy)),
        )
        begins = policy.short_series.why(contract)
        is_short: Bools = np.array([why == "short_window" for why in judged.refused], dtype=bool)
        _note(panel, is_short, "short", [begins] * len(is_short), left_out)
        for why, texts in refusals:
            is_out: Bools = np.array([found == why for found in judged.refused], dtype=bool)
            _note(panel, is_out, why, texts, left_out)
        if is_refused.any():
            if is_refused.all():
                return None, left_out
            kept = _without(panel, is_refused)
        replaced = tuple(why for why, is_out in zip(judged.replaced, is_refused, strict=True) if not is_out)
        completed = complete(kept, contract, policy, replaced, self.forecaster.answer)
        is_broken = completed.answers.is_broken(completed.is_fallback)
        rules = InputRules.of_pair(self.forecaster, self.config.dataset)
        texts = list(map(why_broken, rules.marks(kept, contract))) if is_broken.any() else []
        panel_left = _kept(kept, is_broken, "not_finite", texts, left_out)
        if panel_left is None:
            return None, left_out
        is_whole = ~is_broken
        is_forecast = contract.task == "forecast"
        answered = Answered(
            panel=panel_left,
            answers=completed.answers.map(lambda values: values[is_whole]),
            origins=completed.origins[is_whole] if is_forecast else panel_left.event_times,
            observed=judged.shares[~is_refused][is_whole],
            is_fallback=completed.is_fallback[is_whole],
            marks=rules.marks(panel_left, contract),
        )
        return answered, left_out


def _shares(judged: Judged, policy: FallbackPolicy) -> list[str]:
    return [
        f"{share:.1%} of the lookback was measured, and min_observed is {policy.min_observed:.1%}"
        for share in judged.shares
    ]


def chunks(entities: npt.NDArray[np.generic], size: int) -> Iterator[list[Any]]:
    """Yield the entities in their order, at most `size` at a time."""
    for start in range(0, len(entities), size):
        yield entities[start : start + size].tolist()


def _kept(
    panel: FeaturePanel, is_out: Bools, reason: Reason, found: Sequence[str], left_out: list[LeftOut]
) -> FeaturePanel | None:
    """Return the panel without some entities, which are noted as left out; `None` if no other is there."""
    if not is_out.any():
        return panel
    _note(panel, is_out, reason, found, left_out)
    return None if is_out.all() else _without(panel, is_out)


def _note(panel: FeaturePanel, is_out: Bools, reason: Reason, found: Sequence[str], left_out: list[LeftOut]) -> None:
    ids = panel.entity_ids.tolist()
    left_out += [LeftOut(ids[place], reason, found[place]) for place in np.flatnonzero(is_out).tolist()]


def _without(panel: FeaturePanel, is_out: Bools) -> FeaturePanel:
    kept = ~is_out
    part = panel.take(np.repeat(kept, np.diff(panel.offsets)))
    return replace(
        panel,
        columns=part.columns,
        timestamps=part.timestamps,
        entity_ids=part.entity_ids,
        offsets=part.offsets,
        event_times=panel.event_times[kept],
        ages=panel.ages[kept],
        is_stale=panel.is_stale[kept],
        known_ahead={name: values[kept] for name, values in panel.known_ahead.items()},
    )


def _listed(steps: npt.NDArray[np.int64]) -> str:
    shown = ", ".join(map(str, steps[:10].tolist()))
    return f"{shown} and {len(steps) - 10} more" if len(steps) > 10 else shown
