"""History: the rows of a time series that something was observed in, told from those that only lay the grid.

Here: where the history of targets ends, and whether a part of a split was observed at all. Not here: which rows belong
to which part.
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
    observed = history.loc[is_observed(history, targets), TIMESTAMP]
    return history if observed.empty else history[history[TIMESTAMP] <= observed.max()]


def is_observed(rows: pd.DataFrame, targets: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return whether any of the columns is there, of shape (rows,); without names, any that is no key."""
    names = list(targets) or [name for name in rows.columns if name not in (ENTITY, TIMESTAMP)]
    return np.asarray(rows[names].notna().to_numpy().any(axis=1))
