"""How much of what a forecast looks at was measured, and what was measured last.

Preprocessing fills gaps before the model sees them, so a window with one measured step looks as sound as any other. The
shares here are counted before that, on raw rows, by the pyfunc and by the servers alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.datamodule import Float32, Panel
from mlplatform.registry.forecaster import Contract

Bools = npt.NDArray[np.bool_]


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


def are_short(panel: Panel, contract: Contract) -> Bools:
    """Return which series begin inside the lookback, more than a tenth of it late, of shape (entities,).

    A series begins with its first row that has a value; gaps later on do not make it short.

    Parameters:
        panel: as for `observed_shares`.
    """
    ends = panel.offsets[1:] - contract.future_rows
    has_value = np.zeros(panel.rows, dtype=bool)
    for name in contract.columns:
        has_value |= pd.notna(panel.columns[name])
    counted = np.concatenate([[0], np.cumsum(has_value)])
    starts = ends - contract.lookback + contract.lookback // 10
    # Rows before the lookback say as well that the series is older than it.
    first: Bools = np.asarray(counted[np.minimum(np.maximum(starts + 1, panel.offsets[:-1]), ends)])
    is_short: Bools = np.asarray(first == counted[panel.offsets[:-1]])
    return is_short


def rows_or_missing(values: npt.NDArray[np.generic], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
    """Return the values of the rows; -1 is a row without a value."""
    missing = np.array(None if values.dtype == object else np.nan, dtype=values.dtype)
    return np.where(rows < 0, missing, values[rows])


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
