"""What stands in for a model's forecast, when, and why: the same for servers, batches and the pyfunc.

Something stands in where the features are too old or too little of them was measured, where the model fails, and where
it answers NaN, as far as the experiment's policies say so. It is a rule as simple as a baseline, has no interval, and
says nothing about the model: error drift leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import Float32, Panel
from mlplatform.registry.forecaster import Answers, Contract
from mlplatform.registry.observation import Bools, last_observed, observed_shares
from mlplatform.registry.short_series import ShortSeries

Why = Literal["stale", "short_window", "too_little_observed", "model_failed", "not_finite"]
Kind = Literal["none", "seasonal_naive", "last_forecast"]
Reasons = tuple[Why | None, ...]


class StandIns(NamedTuple):
    """What could stand in for forecasts.

    Attributes:
        values: of shape (entities, horizon, targets), in original units; NaN where there is nothing.
        origins: of shape (entities,): the last moment that each looked at.
    """

    values: Float32
    origins: npt.NDArray[np.datetime64]

    @property
    def is_there(self) -> Bools:
        """Whether there is a value for every step and target, of shape (entities,)."""
        whole: Bools = np.asarray(np.isfinite(self.values.reshape(len(self.values), -1)).all(axis=1))
        return whole


# Returns the last good forecasts for the entities of a panel.
Recall = Callable[[Panel, Contract], StandIns]


@dataclass(frozen=True)
class FallbackPolicy:
    """When something stands in for a forecast, and what.

    Attributes:
        kind: `seasonal_naive`, the value one season earlier; `last_forecast`, as it was made; or `none`: then the last
            measured value stands in where `below_min_observed` says so, and nothing anywhere else.
        season: in steps.
        min_observed: least share of the lookback that must have been measured.
        below_min_observed: `refuse` or `fallback`; with a `kind`, what is below falls back in any case.
        short: what becomes of series that begin inside the lookback, as `ShortSeries` has it; with `naive` the value
            one season earlier stands in, or the `last_forecast`.
        max_age: age beyond which features are refused, as the configuration has it; `None` if none are.
    """

    kind: Kind = "none"
    season: int = 1
    min_observed: float = 0.0
    below_min_observed: str = "refuse"
    max_age: str | None = None
    short: str = ""

    @property
    def short_series(self) -> ShortSeries:
        """What becomes of series that begin inside the lookback."""
        return ShortSeries(self.short)

    @classmethod
    def of(cls, config: ExperimentConfig) -> FallbackPolicy:
        """Return the policy of an experiment."""
        refuses, short = config.staleness.action == "refuse", config.observation.short or ""
        return cls(
            kind=config.serving.fallback,
            season=config.season if config.serving.fallback == "seasonal_naive" or short == "naive" else 1,
            min_observed=config.observation.min_observed,
            below_min_observed=config.observation.action,
            max_age=config.staleness.max_age if refuses else None,
            short=short,
        )

    @classmethod
    def of_contract(cls, contract: Contract) -> FallbackPolicy:
        """Return the policy that a pair was registered with."""
        kind: Kind = "seasonal_naive" if contract.fallback == "seasonal_naive" else "none"
        return cls(kind, contract.season, contract.min_observed, contract.below_min_observed, short=contract.short)


class Judged(NamedTuple):
    """Which forecasts the model is not asked about, each of shape (entities,).

    Attributes:
        shares: of the lookback that was measured, from 0 to 1.
        replaced: why something stands in for a forecast; `None` where nothing does.
        refused: why nothing is answered; `None` where something is.
    """

    shares: npt.NDArray[np.float64]
    replaced: Reasons
    refused: Reasons


class Completed(NamedTuple):
    """The answers of a model with what stands in for some of them.

    Attributes:
        replaced: of shape (entities,): why; `None` where the model answered.
        origins: of shape (entities,): the last moment that each answer looked at.
    """

    answers: Answers
    replaced: Reasons
    origins: npt.NDArray[np.datetime64]

    @property
    def is_fallback(self) -> Bools:
        """Whether something stands in, of shape (entities,)."""
        return np.array([why is not None for why in self.replaced], dtype=bool)


def judge(
    panel: Panel,
    contract: Contract,
    policy: FallbackPolicy,
    is_stale: Bools | None = None,
    recall: Recall | None = None,
) -> Judged:
    """Return what the policy makes of every forecast before the model is asked; rows of a table always pass.

    Parameters:
        is_stale: of shape (entities,): whether features are older than `max_age`.
    """
    count = len(panel.entity_ids)
    nothing: Reasons = (None,) * count
    if contract.task != "forecast":
        return Judged(np.ones(count), nothing, nothing)
    shares = observed_shares(panel, contract)
    is_low: Bools = shares < policy.min_observed
    is_old: Bools = np.zeros(count, bool) if is_stale is None or policy.max_age is None else is_stale
    is_short = policy.short_series.not_for_model(panel, contract)
    if not (is_low | is_old | is_short).any():
        return Judged(shares, nothing, nothing)
    wanted = is_low | is_old if policy.kind != "none" else is_low & (policy.below_min_observed == "fallback")
    # That a series is too short decides before what was measured of it.
    wanted = np.where(is_short & ~is_old, policy.short_series.stands_in, wanted)
    replaced = wanted & stand_ins(panel, contract, policy, recall).is_there if wanted.any() else wanted
    whys = [_why(*each) for each in zip(is_old.tolist(), is_short.tolist(), is_low.tolist(), strict=True)]
    return Judged(
        shares,
        tuple(why if chosen else None for why, chosen in zip(whys, replaced.tolist(), strict=True)),
        tuple(None if chosen else why for why, chosen in zip(whys, replaced.tolist(), strict=True)),
    )


def complete(
    panel: Panel,
    contract: Contract,
    policy: FallbackPolicy,
    replaced: Reasons,
    answer: Callable[[Panel], Answers],
    recall: Recall | None = None,
) -> Completed:
    """Return the model's answers, and what stands in where `replaced` says so, the model fails or answers NaN.

    Raises:
        Exception: what `answer` raises, if nothing can stand in for what it fails at.
    """
    origins = panel.timestamps[panel.offsets[1:] - 1 - contract.future_rows]
    if policy.kind == "none" or contract.task != "forecast":
        answers = answer(panel)
        if not any(replaced):
            return Completed(answers, replaced, origins)
        found = stand_ins(panel, contract, policy, recall)
        return Completed(_replaced(answers, found, replaced), replaced, origins)
    tried = _each(panel, answer)
    whys = list(replaced)
    for place, why in enumerate(tried.failed):
        whys[place] = whys[place] or why
    if not any(whys):
        assert tried.answers is not None
        return Completed(tried.answers, replaced, origins)
    found = stand_ins(panel, contract, policy, recall)
    for place in np.flatnonzero(~found.is_there).tolist():
        if whys[place] == "model_failed" and tried.error is not None:
            raise tried.error
        whys[place] = None
    is_replaced = np.array([why is not None for why in whys])
    origins = np.where(is_replaced, found.origins, origins)
    answers = tried.answers or Answers(found.values)
    return Completed(_replaced(answers, found, tuple(whys)), tuple(whys), origins)


def stand_ins(panel: Panel, contract: Contract, policy: FallbackPolicy, recall: Recall | None = None) -> StandIns:
    """Return what could stand in for every forecast of a panel."""
    if policy.kind == "last_forecast":
        if recall is not None:
            return recall(panel, contract)
        shape = (len(panel.entity_ids), contract.horizon, len(contract.targets))
        return StandIns(np.full(shape, np.nan, np.float32), np.full(shape[0], np.datetime64("NaT", "ns")))
    values = np.repeat(last_observed(panel, contract)[:, None, :], contract.horizon, axis=1)
    if policy.kind == "seasonal_naive" or policy.short_series.stands_in:
        values = _seasonal(panel, contract, policy.season, values)
    return StandIns(contract.clip(values), panel.timestamps[panel.offsets[1:] - 1 - contract.future_rows])


def _seasonal(panel: Panel, contract: Contract, season: int, without: Float32) -> Float32:
    """Return the newest measured value some whole seasons before every step; `without` where there is none."""
    found = np.full_like(without, np.nan)
    ends, starts = panel.offsets[1:] - contract.future_rows, panel.offsets[:-1]
    longest = int((ends - starts).max(initial=0))
    for position, name in enumerate(contract.targets):
        values = panel.columns[name].astype(np.float32)
        for step in range(contract.horizon):
            back: int = season - step % season
            while back <= longest and np.isnan(found[:, step, position]).any():
                rows = ends - back
                known = np.where(rows >= starts, values[np.maximum(rows, 0)], np.nan)
                is_open = np.isnan(found[:, step, position])
                found[is_open, step, position] = known[is_open]
                back += season
    return np.where(np.isfinite(found), found, without).astype(np.float32)


class _Tried(NamedTuple):
    """What a model answered.

    Attributes:
        answers: NaN where it failed; `None` if it failed at all.
        failed: of shape (entities,): why an answer is none.
        error: the last that was raised.
    """

    answers: Answers | None
    failed: Reasons
    error: Exception | None


def _each(panel: Panel, answer: Callable[[Panel], Answers]) -> _Tried:
    """Ask a model; what makes it fail is found by halves, so that it costs the other entities nothing."""
    count = len(panel.entity_ids)
    try:
        answers = answer(panel)
    except Exception as error:
        if count == 1:
            return _Tried(None, ("model_failed",), error)
        half = panel.offsets[count // 2]
        is_first = np.arange(panel.rows) < half
        first, second = (_each(panel.take(rows), answer) for rows in (is_first, ~is_first))
        return _Tried(_joined(first, second), first.failed + second.failed, second.error or first.error)
    is_broken = answers.is_broken().tolist()
    return _Tried(answers, tuple("not_finite" if broken else None for broken in is_broken), None)


def _joined(first: _Tried, second: _Tried) -> Answers | None:
    whole = first.answers or second.answers
    if whole is None:
        return None

    def gap(tried: _Tried) -> Answers:
        return whole.map(lambda values: np.full((len(tried.failed), *values.shape[1:]), np.nan, np.float32))

    return Answers.joined([tried.answers or gap(tried) for tried in (first, second)])


def _replaced(answers: Answers, found: StandIns, replaced: Reasons) -> Answers:
    """Return answers with what stands in; its bounds are NaN, since nothing was calibrated for it."""
    mask = np.array([why is not None for why in replaced])[:, None, None]

    def with_gaps(bounds: Float32) -> Float32:
        return np.where(mask, np.float32(np.nan), bounds).astype(np.float32)

    return answers.map(with_gaps)._replace(point=np.where(mask, found.values, answers.point).astype(np.float32))


def _why(is_old: bool, is_short: bool, is_low: bool) -> Why | None:
    return "stale" if is_old else "short_window" if is_short else "too_little_observed" if is_low else None
