"""A batch of raw rows to a table of answers, as the registered forecaster gives it: a bad series costs itself alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import ns_of, times_of
from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.datamodule import Panel, to_utc_ns
from mlplatform.registry.fallback import FallbackPolicy, complete, judge
from mlplatform.registry.forecaster import Contract, Forecaster
from mlplatform.registry.interval_scale import scales_of_model
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
    step of the future that the pair reads, or measured less than the contract's `min_observed` asks for with nothing to
    fall back on. They are logged as a warning and stand in `attrs["skipped"]` of the table, reason by id as text. The
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
    panel, missed = _on_grid(panel, contract)
    skipped |= missed
    policy = FallbackPolicy.of_contract(contract)
    shares, replaced, refused = judge(panel, contract, policy)
    is_refused = np.array([why is not None for why in refused], dtype=bool)
    for entity in np.flatnonzero(is_refused):
        found = f"{shares[entity]:.1%} of the lookback was measured, and min_observed is {contract.min_observed:.1%}"
        if refused[entity] == "short_window":
            found = f"begins inside the {contract.lookback} steps that a forecast looks at"
        skipped[panel.entity_ids.tolist()[entity]] = found
    if is_refused.all():
        raise ValueError(f"no series can be answered: {_named(skipped)}")
    if skipped:
        logger.warning("%d series are not answered: %s", len(skipped), _named(skipped))
    panel = panel.take(np.repeat(~is_refused, np.diff(panel.offsets)))
    kept = tuple(why for why, is_out in zip(replaced, is_refused, strict=True) if not is_out)
    completed = complete(panel, contract, policy, kept, forecaster.answer)
    table = answer_table(contract, panel, completed.answers)
    table = with_observation(table, contract, shares[~is_refused], completed.is_fallback)
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


def _on_grid(panel: Panel, contract: Contract) -> tuple[Panel, Reasons]:
    """Return the steps that a forecast looks at of every series that has them, gaps filled with rows without values.

    The others are returned with the reason.
    """
    needed, calendar = contract.input_rows + contract.future_rows, contract.calendar
    taken: list[npt.NDArray[np.int64]] = []
    kept, ends = [], []
    skipped: Reasons = {}
    for number, entity in enumerate(panel.entity_ids.tolist()):
        rows = np.arange(panel.offsets[number], panel.offsets[number + 1])
        moments = ns_of(panel.timestamps[rows])
        before, is_on = calendar.between(moments[-1], moments)
        back = -before
        places = np.full(needed, -1, dtype=np.int64)
        is_near = back < needed
        places[needed - 1 - back[is_near]] = rows[is_near]
        if not is_on.all():
            skipped[entity] = f"times that are not whole steps of {calendar.length} apart"
        elif back[0] + 1 < (needed if contract.short in ("", "refuse") else contract.future_rows + 1):
            skipped[entity] = f"{back[0] + 1} steps, but a forecast needs {needed}"
        elif (places[contract.input_rows :] < 0).any():
            skipped[entity] = f"no row for some of the {contract.future_rows} steps of the future"
        else:
            taken.append(places)
            kept.append(number)
            ends.append(panel.timestamps[rows[-1]])
    chosen = np.concatenate(taken) if taken else np.zeros(0, dtype=np.int64)
    last: npt.NDArray[np.datetime64] = np.array(ends, dtype="datetime64[ns]")
    times = times_of(calendar.window(ns_of(last), needed))
    return (
        Panel(
            columns={name: rows_or_missing(values, chosen) for name, values in panel.columns.items()},
            timestamps=times.reshape(-1),
            entity_ids=panel.entity_ids[kept],
            offsets=np.arange(len(kept) + 1, dtype=np.int64) * needed,
        ),
        skipped,
    )


def _named(skipped: Reasons) -> str:
    shown = [f"{entity!r} ({reason})" for entity, reason in list(skipped.items())[:SHOWN]]
    more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
    return ", ".join(shown) + more
