"""How much of what a forecast looks at was measured, and what stands in for the forecast where that is too little.

Preprocessing fills gaps before the model sees them, so a window with one measured step looks as sound as any other. The
shares here are counted before that, on raw rows, by the pyfunc and by the servers alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32, Panel
from mlplatform.registry.forecaster import Answers, Contract

Bools = npt.NDArray[np.bool_]


class Observed(NamedTuple):
    """How much of what forecasts look at was measured, and what follows, each of shape (entities,).

    Attributes:
        shares: of the lookback, from 0 to 1.
        falls_back: whether the last measured value stands in for the model's forecast.
        is_refused: whether nothing is answered.
    """

    shares: npt.NDArray[np.float64]
    falls_back: Bools
    is_refused: Bools


def judge_observed(panel: Panel, contract: Contract, min_observed: float, action: str) -> Observed:
    """Return what an observation policy makes of every forecast; answers for rows of a table always pass.

    Parameters:
        min_observed, action: as in `ObservationConfig`.
    """
    if contract.task != "forecast":
        passed = np.zeros(len(panel.entity_ids), dtype=bool)
        return Observed(np.ones(len(passed)), passed, passed)
    shares = observed_shares(panel, contract)
    is_low: Bools = shares < min_observed
    falls_back = is_low & (action == "fallback")
    if falls_back.any():
        falls_back &= can_fall_back(panel, contract)
    return Observed(shares, falls_back, is_low & ~falls_back)


def observed_shares(panel: Panel, contract: Contract) -> npt.NDArray[np.float64]:
    """Return the share of a forecast's lookback that was measured, of shape (entities,), from 0 to 1.

    It is that of the numeric column with the fewest measured steps: a model that reads one filled column among whole
    ones answers from what was filled. A pair without numeric columns has the share 1.

    Parameters:
        panel: raw rows, the past of every entity and `contract.future_rows` of the future; a past shorter than the
            lookback counts as unobserved before its first row.
    """
    shares = np.ones(len(panel.entity_ids))
    ends = panel.offsets[1:] - contract.future_rows
    starts = np.maximum(ends - contract.lookback, panel.offsets[:-1])
    for name in contract.columns:
        values = panel.columns[name]
        if values.dtype == object:
            continue
        counted = np.concatenate([[0], np.cumsum(np.isfinite(values.astype(np.float32)))])
        shares = np.minimum(shares, (counted[ends] - counted[starts]) / contract.lookback)
    return shares


def last_observed(panel: Panel, contract: Contract) -> Float32:
    """Return the last measured value of every target in the past, of shape (entities, targets); NaN without one."""
    rows = np.arange(panel.rows)
    found = np.full((len(panel.entity_ids), len(contract.targets)), np.nan, dtype=np.float32)
    ends = panel.offsets[1:] - contract.future_rows
    for position, name in enumerate(contract.targets):
        values = panel.columns[name].astype(np.float32)
        last = np.maximum.accumulate(np.where(np.isfinite(values), rows, -1))[ends - 1]
        is_own = last >= panel.offsets[:-1]
        found[is_own, position] = values[last[is_own]]
    return found


def with_fallback(panel: Panel, contract: Contract, answers: Answers, replaced: Bools) -> Answers:
    """Return the answers with the last measured value, over the whole horizon, in place of some forecasts.

    Their intervals become NaN: nothing was calibrated for them.

    Parameters:
        replaced: of shape (entities,), which forecasts.
    """
    if not replaced.any():
        return answers
    repeated = np.repeat(last_observed(panel, contract)[:, None, :], contract.horizon, axis=1)
    mask = replaced[:, None, None]
    point = np.where(mask, repeated, answers.point).astype(np.float32)
    lower, upper = (
        None if side is None else np.where(mask, np.float32(np.nan), side).astype(np.float32)
        for side in (answers.lower, answers.upper)
    )
    return Answers(point, lower, upper, answers.coverage)


def can_fall_back(panel: Panel, contract: Contract) -> Bools:
    """Return which entities have a measured value of every target to fall back on, of shape (entities,)."""
    found: Bools = np.asarray(np.isfinite(last_observed(panel, contract)).all(axis=1))
    return found
