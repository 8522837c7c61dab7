"""A batch of raw rows to a table of answers, as the registered forecaster gives it: a bad series costs itself alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import ns_of, times_of
from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.datamodule import Panel, may_end, to_utc_ns
from mlplatform.registry.fallback import FallbackPolicy, complete, judge
from mlplatform.registry.forecaster import Contract, Forecaster
from mlplatform.registry.interval_scale import scales_of_model
from mlplatform.registry.marks import InputRules, why_broken
from mlplatform.registry.observation import Bools, rows_or_missing
from mlplatform.registry.tables import answer_table, input_panel
from mlplatform.settings import Settings

logger = logging.getLogger(__name__)

OBSERVED, FALLBACK, SKIPPED = "observed", "is_fallback", "skipped"
SHOWN = 10

Reasons = dict[Any, str]


def answer_batch(forecaster: Forecaster, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the answers to raw rows, in any order.

    Of a forecast, steps without a row are gaps, as in the feature table. Series that cannot be answered are left out:
    those too short for the contract and its policy, with times that are missing, repeated or off the grid, without a
    row of the future for every step that the pair reads, measured less than the contract's `min_observed` asks for with
    nothing to fall back on, or for which the model answers no number. They are logged as a warning and stand in
    `attrs["skipped"]` of the table, reason by id as text. The
    column `observed` has the share of the lookback that was measured, `is_fallback` whether something else stands in
    for the model's forecast; a target with one of these names keeps its own column.

    Raises:
        ValueError: if a column is missing, or no series can be answered.
    """
    contract = forecaster.contract
    scales = scales_of_model(Settings.from_env(), contract.experiment, forecaster.model)
    forecaster = replace(forecaster, interval_scales=scales)
    if contract.task != "forecast":
        panel = input_panel(contract, rows)
        return answer_table(contract, panel, forecaster.answer(panel))
    skipped = _unusable(rows) if {ENTITY, TIMESTAMP} <= set(rows) else {}
    panel = input_panel(contract, rows[~rows[ENTITY].isin(skipped)] if skipped else rows)
    policy = FallbackPolicy.of_contract(contract)
    panel, missed = _on_grid(panel, contract, policy)
    skipped |= missed
    shares, replaced, refused = judge(panel, contract, policy)
    is_refused = np.array([why is not None for why in refused], dtype=bool)
    for entity in np.flatnonzero(is_refused):
        found = f"{shares[entity]:.1%} of the lookback was measured, and min_observed is {contract.min_observed:.1%}"
        if refused[entity] == "short_window":
            found = policy.short_series.why(contract)
        skipped[panel.entity_ids.tolist()[entity]] = found
    if is_refused.all():
        raise ValueError(f"no series can be answered: {_named(skipped)}")
    panel = panel.take(np.repeat(~is_refused, np.diff(panel.offsets)))
    kept = tuple(why for why, is_out in zip(replaced, is_refused, strict=True) if not is_out)
    completed = complete(panel, contract, policy, kept, forecaster.answer)
    answers, falls_back, shares = completed.answers, completed.is_fallback, shares[~is_refused]
    is_broken = answers.is_broken(falls_back)
    if is_broken.any():
        ids, marks = panel.entity_ids.tolist(), InputRules.of_pair_alone(forecaster).marks(panel, contract)
        skipped |= {ids[place]: why_broken(marks[place]) for place in np.flatnonzero(is_broken)}
        panel = panel.take(np.repeat(~is_broken, np.diff(panel.offsets)))
        answers = answers.map(lambda values: values[~is_broken])
        falls_back, shares = falls_back[~is_broken], shares[~is_broken]
    if not len(shares):
        raise ValueError(f"no series can be answered: {_named(skipped)}")
    if skipped:
        logger.warning("%d series are not answered: %s", len(skipped), _named(skipped))
    table = answer_table(contract, panel, answers)
    table = with_observation(table, contract, shares, falls_back)
    table.attrs[SKIPPED] = {str(entity): reason for entity, reason in skipped.items()}
    return table


def with_observation(
    table: pd.DataFrame, contract: Contract, shares: npt.NDArray[np.float64], falls_back: Bools
) -> pd.DataFrame:
    """Return a table of forecasts with the columns `observed` and `is_fallback`, given per entity."""
    columns: Mapping[str, npt.NDArray[Any]] = {OBSERVED: shares, FALLBACK: falls_back}
    # A target with one of these names keeps its own column.
    return table.assign(
        **{name: np.repeat(values, contract.horizon) for name, values in columns.items() if name not in table}
    )


def _unusable(rows: pd.DataFrame) -> Reasons:
    """Return the series in which a row does not say whose it is and when, or says it twice."""
    ids, times = rows[ENTITY], to_utc_ns(rows[TIMESTAMP])
    repeated = pd.DataFrame({ENTITY: ids.to_numpy(), TIMESTAMP: times}).duplicated().to_numpy()
    faults: Mapping[str, Bools] = {
        "a row without an entity id": ids.isna().to_numpy(),
        "a row without a time": np.isnat(times),
        "two rows of one time": repeated,
    }
    found: Reasons = {}
    for reason, is_faulty in faults.items():
        for entity in ids[is_faulty].unique().tolist():
            found.setdefault(entity, reason)
    return found


def _on_grid(panel: Panel, contract: Contract, policy: FallbackPolicy) -> tuple[Panel, Reasons]:
    """Return the steps that a forecast looks at of every series that has them, gaps filled with rows without values.

    The past of a series ends where it does in a request: of a pair that knows columns beforehand with the last row in
    which any other column has a value, and otherwise before rows that only have what is planned, or nothing at all if
    the pair does not read every planned column.

    The others are returned with the reason.
    """
    needed, calendar = contract.input_rows + contract.future_rows, contract.calendar
    least = 1 if policy.short_series.takes_few_rows else contract.least_rows
    says_more, says_plan = (
        _has_any(panel, [name for name in contract.columns if (name in contract.ahead) == is_plan])
        for is_plan in (False, True)
    )
    taken: list[npt.NDArray[np.int64]] = []
    kept, presents = [], []
    skipped: Reasons = {}
    for number, entity in enumerate(panel.entity_ids.tolist()):
        rows = np.arange(panel.offsets[number], panel.offsets[number + 1])
        moments = ns_of(panel.timestamps[rows])
        plan = says_plan[rows] if contract.reads_plans else None
        is_past = says_more[rows] if contract.known else may_end(says_more[rows], plan)
        present = int(moments[np.flatnonzero(is_past)[-1] if is_past.any() else -1])
        ahead, is_on = calendar.between(present, moments)
        at = ahead + contract.input_rows - 1
        places = np.full(needed, -1, dtype=np.int64)
        is_near = (at >= 0) & (at < needed)
        places[at[is_near]] = rows[is_near]
        steps = 1 - int(ahead[0])
        if not is_on.all():
            skipped[entity] = f"times that are not whole steps of {calendar.length} apart"
        elif steps < least:
            skipped[entity] = f"{steps} steps, but a forecast needs {contract.least_rows}"
        elif (places[contract.input_rows :] < 0).any():
            skipped[entity] = (
                f"no row for some of the {contract.future_rows} steps after the last one that has more than "
                f"{', '.join(contract.known)}"
            )
        else:
            taken.append(places)
            kept.append(number)
            presents.append(present)
    chosen = np.concatenate(taken) if taken else np.zeros(0, dtype=np.int64)
    ends = calendar.shift(np.array(presents, dtype=np.int64), contract.future_rows)
    times = times_of(calendar.window(ends, needed))
    return (
        Panel(
            columns={name: rows_or_missing(values, chosen) for name, values in panel.columns.items()},
            timestamps=times.reshape(-1),
            entity_ids=panel.entity_ids[kept],
            offsets=np.arange(len(kept) + 1, dtype=np.int64) * needed,
        ),
        skipped,
    )


def _has_any(panel: Panel, names: Sequence[str]) -> Bools:
    """Return the rows in which any of the columns has a value, of shape (rows,)."""
    found: Bools = np.zeros(panel.rows, dtype=bool)
    for name in names:
        found |= pd.notna(panel.columns[name])
    return found


def _named(skipped: Reasons) -> str:
    shown = [f"{entity!r} ({reason})" for entity, reason in list(skipped.items())[:SHOWN]]
    more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
    return ", ".join(shown) + more
