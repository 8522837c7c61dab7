"""How much of what a forecast looks at was measured, and what was measured last.

Preprocessing fills gaps before the model sees them, so a window with one measured step looks as sound as any other. The
shares here are counted before that, on raw rows, by the pyfunc and by the servers alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
