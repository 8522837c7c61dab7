"""History: the rows of a time series that something was observed in, told from those that only lay the grid.

Here: where the history of targets ends, in a table and in a stored window, which columns go on behind it, and whether a
part of a split was observed at all. Not here: which rows belong to which part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP


def observed_history(history: pd.DataFrame, targets: Sequence[str]) -> pd.DataFrame:
    """Return the rows up to the last one with an observed target; those after it are what is known of the future.

    Parameters:
        history: all rows in canonical form.
        targets: columns that are forecast; without any, the history is returned as it is.
    """
    if not targets or history.empty:
        return history
    times, steps = np.unique(history[TIMESTAMP].to_numpy("datetime64[ns]"), return_inverse=True)
    observed = np.zeros(len(times), dtype=bool)
    observed[steps[is_observed(history, targets)]] = True
    return history[steps <= last_observed(observed)]


def planned_columns(history: pd.DataFrame, targets: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that have a value behind the history of all entities: what is planned, or known beforehand.

    Parameters:
        history, targets: as for `observed_history`.
    """
    if not targets or history.empty:
        return ()
    end = observed_history(history, targets)[TIMESTAMP].max()
    ahead = history[history[TIMESTAMP] > end]
    return tuple(
        name for name in history.columns if name not in (ENTITY, TIMESTAMP, *targets) and ahead[name].notna().any()
    )


def may_end(says_more: npt.NDArray[np.bool_], says_plan: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """Return the steps that a past can end with, although no target was observed in them.

    What stands behind the last step that says more than a plan is future if any of it has a plan, and else a gap.

    Parameters:
        says_more: whether a column that is not planned has a value, of shape (..., steps).
        says_plan: whether a planned column has one, of the same shape; `None` where not all of these are read, so that
            nothing tells a plan from a gap: it is taken for a plan.
    """
    behind = ~np.maximum.accumulate(says_more[..., ::-1], axis=-1)[..., ::-1]
    if says_plan is None:
        return np.asarray(~behind)
    has_plan = (behind & says_plan).any(axis=-1, keepdims=True)
    return np.asarray(~(behind & has_plan))


def last_observed(observed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return where history ends along the last axis: at the last observed step, or at the last one if none is.

    Parameters:
        observed: whether any target was observed, of shape (..., steps).
    """
    steps = observed.shape[-1]
    last = steps - 1 - observed[..., ::-1].argmax(axis=-1)
    return np.asarray(np.where(observed.any(axis=-1), last, steps - 1), dtype=np.int64)


def is_observed(rows: pd.DataFrame, targets: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return whether any of the columns is there, of shape (rows,); without names, any that is no key."""
    names = list(targets) or [name for name in rows.columns if name not in (ENTITY, TIMESTAMP)]
    return np.asarray(rows[names].notna().to_numpy().any(axis=1))
