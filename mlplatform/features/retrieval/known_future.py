"""What stored windows say about the future: the rows after the last one in which a target was observed.

Here: telling such rows at the end of a window from the past. Not here: what a request says about the future.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.datamodule import Panel, last_observed, may_end
from mlplatform.features.errors import ShortWindowError

Ahead = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Known:
    """What a forecast knows beforehand.

    Attributes:
        columns: those whose values over the horizon are known.
        targets: columns that are forecast.
        ahead: steps of the horizon.
        planned: columns that may be stored ahead although nobody asks for that, read or not: rows that have nothing
            but these are not of the past.
    """

    columns: tuple[str, ...]
    targets: tuple[str, ...]
    ahead: int
    planned: tuple[str, ...] = ()


NOTHING = Known((), (), 0)


def split_future(panel: Panel, steps: int, known: Known, present: np.datetime64 | None = None) -> tuple[Panel, Ahead]:
    """Return the past of windows, and what they say about the steps after it.

    The past of an entity ends with the last row in which one of the targets was observed, as it does where history is
    split; without any such row it is the whole window.

    Parameters:
        panel: windows of the same length.
        steps: rows per entity of the past.
        known: the targets, and what is asked for after the past.
        present: rows up to it are of the past whether or not a target was observed, unless they only have what is
            planned; by default none are.

    Returns:
        The past, and for every known column its values of shape (entities, steps ahead), missing where nothing is.

    Raises:
        ShortWindowError: if windows are too short for both.
    """
    count = len(panel.entity_ids)
    length = int(panel.offsets[1]) if count else 0

    def has_any(names: Iterable[str]) -> npt.NDArray[np.bool_]:
        found = np.zeros((count, length), dtype=bool)
        for name in names:
            found |= pd.notna(panel.columns[name]).reshape(count, length)
        return found

    observed = has_any(known.targets)
    if present is not None:
        is_past = panel.timestamps.reshape(count, length) <= present
        others = (name for name in panel.columns if name not in known.planned)
        reads_plans = all(name in panel.columns for name in known.planned)
        observed |= is_past & may_end(has_any(others), has_any(known.planned) if reads_plans else None)
    last = last_observed(observed)
    short = np.flatnonzero(last < steps - 1)
    if len(short):
        ids = panel.entity_ids.tolist()
        raise ShortWindowError([ids[place] for place in short], int(last[short[0]]) + 1, steps)
    starts = panel.offsets[:-1]
    rows = (starts + last)[:, None] + np.arange(1 - steps, 1)
    past = Panel(
        columns={name: values[rows].reshape(-1) for name, values in panel.columns.items()},
        timestamps=panel.timestamps[rows].reshape(-1),
        entity_ids=panel.entity_ids,
        offsets=np.arange(count + 1, dtype=np.int64) * steps,
    )
    places = last[:, None] + np.arange(1, known.ahead + 1)
    inside = places < length
    chosen = starts[:, None] + np.where(inside, places, 0)
    return past, {name: _where(inside, panel.columns[name][chosen]) for name in known.columns}


def _where(inside: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values, missing where the mask is false."""
    missing: Any = None if values.dtype == object else np.nan
    return np.where(inside, values, np.array(missing, dtype=values.dtype))
