"""Rows without values before the beginning of series, so that all samples reach back equally far.

A sample needs its lookback; the history before that, which an experiment may name, is read as far as it is there. Not
here: the windows of the online store, which begin without values by themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from mlplatform.calendars import Calendar
from mlplatform.config import ENTITY, TIMESTAMP, ExperimentConfig
from mlplatform.datamodule.folds import group_column
from mlplatform.datamodule.panel import entity_starts, to_utc_ns

if TYPE_CHECKING:
    import pandas as pd

CONTEXT_COLUMN = "is_context"


def padding_of(config: ExperimentConfig) -> int:
    """Return the rows before the first of every series: those of a history that may begin behind the lookback."""
    return max(0, config.reach - config.lookback) if config.task == "forecast" else 0


def padded_for(config: ExperimentConfig, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a split part as an experiment's data module takes them, padded by what its history needs."""
    rows = padding_of(config)
    if not rows:
        return frame
    # What is still for a series is told from any of its rows, and so are groups.
    kept = (*config.features.static, *([] if (group := group_column(config.split.cv)) is None else [group]))
    return padded(frame, config.dataset.calendar, rows, kept)


def padded(frame: pd.DataFrame, calendar: Calendar, rows: int, kept: Collection[str] = ()) -> pd.DataFrame:
    """Return the rows with so many without values before the first of every series, on its grid.

    They may be looked at but not forecast.

    Parameters:
        frame: rows in canonical form, ordered by entity and time.
        kept: columns that have the value of the first row.
    """
    import pandas as pd

    if not rows or frame.empty:
        return frame
    starts = entity_starts(frame[ENTITY].to_numpy())
    times = to_utc_ns(frame[TIMESTAMP])
    back = np.arange(-rows, 0, dtype=np.int64)
    before = calendar.shift(times[starts].view(np.int64)[:, None], back[None, :]).reshape(-1)
    added = frame.iloc[np.repeat(starts, rows)].copy()
    moments = pd.Series(pd.to_datetime(before, unit="ns", utc=True), index=added.index)
    added[TIMESTAMP] = moments.astype(frame[TIMESTAMP].dtype)
    for name in added.columns:
        if name == CONTEXT_COLUMN:
            added[name] = True
        elif name not in (ENTITY, TIMESTAMP, *kept):
            is_number = pd.api.types.is_numeric_dtype(frame[name]) or pd.api.types.is_bool_dtype(frame[name])
            added[name] = np.float32(np.nan) if is_number else None
    lengths = np.diff(np.append(starts, len(frame)))
    owners = np.concatenate([np.repeat(np.arange(len(starts)), rows), np.repeat(np.arange(len(starts)), lengths)])
    order = np.argsort(owners, kind="stable")
    return pd.concat([added, frame], ignore_index=True).iloc[order].reset_index(drop=True)
