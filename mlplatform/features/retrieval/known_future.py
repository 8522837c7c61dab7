"""What stored windows say about the future: rows in which only columns that are known beforehand have values.

Here: telling such rows at the end of a window from the past. Not here: what a request says about the future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.datamodule import Panel
from mlplatform.features.errors import FeatureStoreError

Ahead = Mapping[str, npt.NDArray[Any]]


def split_future(panel: Panel, steps: int, known: Sequence[str], ahead: int) -> tuple[Panel, Ahead]:
    """Return the past of windows, and what they say about the steps after it.

    The past of an entity ends with its last row that has a value in a column that is not known beforehand; without any
    such row it is the whole window.

    Parameters:
        panel: windows of the same length.
        steps: rows per entity of the past.
        known: columns that are known beforehand.
        ahead: steps after the past.

    Returns:
        The past, and for every known column its values of shape (entities, ahead), missing where nothing is stored.

    Raises:
        FeatureStoreError: if the windows are too short for both.
    """
    count = len(panel.entity_ids)
    length = int(panel.offsets[1]) if count else 0
    unknown = [name for name in panel.columns if name not in known]
    observed = np.zeros((count, length), dtype=bool)
    for name in unknown:
        observed |= pd.notna(panel.columns[name]).reshape(count, length)
    last = np.where(observed.any(axis=1), length - 1 - observed[:, ::-1].argmax(axis=1), length - 1)
    short = np.flatnonzero(last < steps - 1)
    if len(short):
        place = int(short[0])
        raise FeatureStoreError(
            f"the stored window of entity {panel.entity_ids.tolist()[place]!r} has {last[place] + 1} rows before what "
            f"is known of the future, but {steps} are needed; make the dataset's window_steps longer by the steps that "
            "are known beforehand"
        )
    starts = panel.offsets[:-1]
    rows = (starts + last)[:, None] + np.arange(1 - steps, 1)
    past = Panel(
        columns={name: values[rows].reshape(-1) for name, values in panel.columns.items()},
        timestamps=panel.timestamps[rows].reshape(-1),
        entity_ids=panel.entity_ids,
        offsets=np.arange(count + 1, dtype=np.int64) * steps,
    )
    places = last[:, None] + np.arange(1, ahead + 1)
    inside = places < length
    chosen = starts[:, None] + np.where(inside, places, 0)
    return past, {name: _where(inside, panel.columns[name][chosen]) for name in known}


def _where(inside: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values, missing where the mask is false."""
    missing: Any = None if values.dtype == object else np.nan
    return np.where(inside, values, np.array(missing, dtype=values.dtype))
