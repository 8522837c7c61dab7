"""Reads of what the offline store knew at a moment: no later rows, and no correction that came later.

The rows are read as ever, through Feast's offline store, up to where the entities reached at the moment; then what the
table's journal says stood there otherwise is put in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule import Int64, Panel, column_array, entity_array, to_utc_ns
from mlplatform.features.errors import FeatureStoreError, UnknownEntityError
from mlplatform.features.online import Entities, check_columns
from mlplatform.features.retrieval.freshness import present_of
from mlplatform.features.retrieval.known_future import Ahead, Known, split_future
from mlplatform.features.retrieval.offline import chosen_ranges, read_grid, read_rows
from mlplatform.features.retry import call_store, offline_access
from mlplatform.features.tables import replaced_rows
from mlplatform.settings import Settings

Values = npt.NDArray[np.generic]


def windows_as_known(
    dataset: DatasetConfig,
    entities: Entities,
    moment: pd.Timestamp,
    columns: Sequence[str],
    steps: int,
    settings: Settings,
    known: Known,
) -> tuple[Panel, Ahead]:
    """Return the window of every entity that ended at a moment, as it was known then, and what was known ahead of it.

    A window ends at the entity's last grid time at or before the moment, and at its last row if that is earlier, or
    before rows that only have what is planned; for a forecast that knows columns beforehand, with the last observed
    target. Of later steps nothing is read but these
    columns: where the journal has no word on a row, what they hold now.

    Returns:
        The past, `steps` rows per entity in the order of `entities`, and `known_ahead` as in `FeaturePanel`.

    Raises:
        UnknownEntityError: if an entity had no row that was known at the moment.
        ShortWindowError: if windows are too short for both.
        FeatureStoreError: if a column is unknown or `steps` is not positive.
        StoreUnavailableError: if the files cannot be read.
    """
    check_columns(dataset, columns)
    if steps < 1:
        raise FeatureStoreError(f"steps must be at least 1, but is {steps}")
    is_split = bool(known.columns or known.planned)
    names = tuple(dict.fromkeys((*columns, *(known.targets if is_split else ()))))
    length = max(dataset.window_steps, steps) + known.ahead if is_split else steps

    def read() -> Panel:
        ranges = _born(dataset, entities, moment, settings)
        first, last = (to_utc_ns(ranges[name]).astype(np.int64) for name in ("start", "end"))
        calendar = dataset.calendar
        present = calendar.steps(first, moment.value)
        ends: Int64 = np.minimum(last, calendar.shift(first, present + known.ahead))
        times = calendar.window(ends, length)
        arrays = read_grid(dataset, ranges[ENTITY], ends, names, length, settings)
        for name in names:
            # What was added later in front of an entity's first row was not known, nor was anything after the moment.
            late = times < first[:, None]
            if name not in known.columns:
                late = late | (times > moment.value)
            arrays[name][late] = _missing(arrays[name])
        _put_back(dataset, ranges, times, arrays, moment, known.columns, settings)
        return Panel(
            columns={name: values.reshape(-1) for name, values in arrays.items()},
            timestamps=times.reshape(-1).astype("datetime64[ns]"),
            entity_ids=entity_array(entities),
            offsets=np.arange(len(ends) + 1, dtype=np.int64) * length,
        )

    panel = call_store(read, offline_access(settings))
    if not is_split:
        return panel, {}
    past, ahead = split_future(panel, steps, known, None if known.columns else present_of(moment))
    return past.with_columns({name: past.columns[name] for name in columns}), ahead


def rows_as_known(
    dataset: DatasetConfig,
    entities: Entities,
    moment: pd.Timestamp,
    columns: Sequence[str],
    settings: Settings,
) -> Panel:
    """Return the newest row of every entity at or before a moment, as it was known then.

    Raises:
        UnknownEntityError: if an entity had no row that was known at the moment.
        FeatureStoreError: if a column is unknown or the dataset has not been written and applied.
        StoreUnavailableError: if the files cannot be read.
    """
    check_columns(dataset, columns)

    def read() -> pd.DataFrame:
        ranges = _born(dataset, entities, moment, settings)
        start = ranges["start"].min()
        rows = read_rows(dataset, ranges[ENTITY], columns, start, moment, settings)
        replaced = replaced_rows(dataset, settings, ranges[ENTITY].to_numpy(), moment, start, moment)
        if replaced is not None:
            keys = pd.MultiIndex.from_frame(replaced.rows[[ENTITY, TIMESTAMP]])
            rows = rows[~pd.MultiIndex.from_frame(rows[[ENTITY, TIMESTAMP]]).isin(keys)]
            stood = replaced.rows.loc[replaced.was_there, [ENTITY, TIMESTAMP, *columns]]
            rows = pd.concat([rows, stood.assign(**{name: column_array(stood[name]) for name in columns})])
        own = ranges.drop_duplicates(ENTITY).set_index(ENTITY)
        starts, ends = (rows[ENTITY].map(own[name]) for name in ("start", "end"))
        rows = rows[((starts <= rows[TIMESTAMP]) & (rows[TIMESTAMP] <= ends)).to_numpy()]
        newest = rows.sort_values(TIMESTAMP, kind="stable").drop_duplicates(ENTITY, keep="last").set_index(ENTITY)
        lacking = [entity for entity in ranges[ENTITY].tolist() if entity not in newest.index]
        if lacking:
            raise UnknownEntityError(dataset.name, list(dict.fromkeys(lacking)))
        return newest.loc[ranges[ENTITY].tolist()].reset_index()

    return Panel.from_frame(call_store(read, offline_access(settings)), columns)


def _born(dataset: DatasetConfig, entities: Entities, moment: pd.Timestamp, settings: Settings) -> pd.DataFrame:
    """Return the ranges of entities as they were known at a moment, which had a row by then."""
    ranges = chosen_ranges(dataset, entities, settings, known_at=moment, there_at=moment)
    unborn = ranges.loc[ranges["start"] > moment, ENTITY].tolist()
    if unborn:
        raise UnknownEntityError(dataset.name, list(dict.fromkeys(unborn)))
    return ranges


def _put_back(
    dataset: DatasetConfig,
    ranges: pd.DataFrame,
    times: Int64,
    arrays: dict[str, Values],
    moment: pd.Timestamp,
    known_ahead: Sequence[str],
    settings: Settings,
) -> None:
    """Put what stood at a moment in the place of what was read; arrays and times are of shape (entities, steps)."""
    start, end = (pd.Timestamp(int(time), tz="UTC") for time in (times.min(), times.max()))
    ids, first = ranges[ENTITY], to_utc_ns(ranges["start"]).astype(np.int64)
    replaced = replaced_rows(dataset, settings, ids.to_numpy(), moment, start, end)
    if replaced is None:
        return
    at = to_utc_ns(replaced.rows[TIMESTAMP]).astype(np.int64)
    stood = {name: column_array(replaced.rows[name]) for name in arrays}
    of_entity = pd.Series(at).groupby(replaced.rows[ENTITY].to_numpy()).indices
    for window, entity in enumerate(ids.tolist()):
        rows = of_entity.get(entity, np.zeros(0, dtype=np.intp))
        # A row in front of the first one of then came later, and may have gone again since.
        rows = rows[(at[rows] >= max(times[window, 0], first[window])) & (at[rows] <= times[window, -1])]
        cells = dataset.calendar.steps(times[window, 0], at[rows])
        for name, values in arrays.items():
            is_told = np.ones(len(rows), dtype=bool) if name in known_ahead else at[rows] <= moment.value
            values[window, cells[is_told]] = stood[name][rows[is_told]]


def _missing(values: Values) -> Any:
    return None if values.dtype == object else np.nan
