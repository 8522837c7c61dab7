"""Pushed rows in an hour that comes twice, with times that tell no zone: which of the two moments each of them means.

An ingest goes by the rows above. Those of a push that comes row by row are in the stored window of its entity.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import Zone, ns_of, zone_of
from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data import ONE_DAY_NS, are_twice, parse_local_times
from mlplatform.datamodule import Int64, column_array
from mlplatform.features.feast import Registered
from mlplatform.features.online.rows import read_stored_windows
from mlplatform.features.tables import Windows, as_stored, differing
from mlplatform.settings import Settings

Mask = npt.NDArray[np.bool_]


def with_moments(rows: pd.DataFrame, dataset: DatasetConfig, known: Registered, settings: Settings) -> pd.DataFrame:
    """Return the rows with moments in the place of local times that clocks show twice.

    Of an entity that a push brings both hours of, they are told apart as by an ingest of the push alone. Of any other,
    a row that is stored as it is in the earlier hour repeats that one, and the rest follow what its window holds as
    rows of a source follow those above; where its steps are longer, there is no later one. Of a table only the newest
    row of an entity is stored, which says too little: its rows stay.

    Raises:
        FeatureStoreError: if the stored windows have another length than the dataset.
        StoreUnavailableError: if the online store does not answer.
    """
    zone, unit = zone_of(dataset.timezone), dataset.time_unit
    twice = are_twice(rows[TIMESTAMP], zone, unit)
    if known.windows is None or not twice.any():
        return rows
    entities = rows[ENTITY]
    moments = ns_of(parse_local_times(rows[TIMESTAMP], entities, zone, unit=unit).times)
    keys = pd.DataFrame({ENTITY: entities.to_numpy(), "wall": zone.wall(moments)})[twice]
    has_both = keys.loc[keys.duplicated(), ENTITY].unique()
    asked = twice & ~entities.isin(has_both).to_numpy()
    ids = np.sort(entities[asked].unique().astype(object if known.has_text_ids else np.int64))
    if len(ids):
        windows = read_stored_windows(known, dataset, ids, settings)
        walls = zone.wall(moments)
        earlier, later = zone.moments(walls), zone.moments(walls, twice)
        moments[asked] = earlier[asked]
        repeats, has_later = _compared(rows, earlier, later, asked, windows, dataset)
        follow = asked & has_later & ~repeats
        rest = entities.isin(ids).to_numpy() & (follow | ~twice)
        seen = tuple(_seen(windows, zone, dataset))
        told = np.full(len(rows), np.datetime64("NaT"), dtype="datetime64[ns]")
        told[rest] = parse_local_times(rows.loc[rest, TIMESTAMP], entities[rest], zone, seen, unit).times
        moments[follow] = ns_of(told[follow])
    cells = rows[TIMESTAMP].astype(object).to_numpy(copy=True)
    cells[twice] = [pd.Timestamp(moment, tz="UTC") for moment in moments[twice].tolist()]
    return rows.assign(**{TIMESTAMP: cells})


def _compared(
    rows: pd.DataFrame, earlier: Int64, later: Int64, asked: Mask, windows: Windows, dataset: DatasetConfig
) -> tuple[Mask, Mask]:
    """Return of the rows that are asked for, both of shape (rows,), which are stored as they are at the earlier moment,
    and for which the later one is a step of their window.
    """
    places = pd.Index(windows.entity_ids).get_indexer(pd.Index(rows[ENTITY]))
    numbers = np.flatnonzero(asked & (places >= 0))
    ends = windows.ends[places[numbers]]
    has_later = np.zeros(len(rows), dtype=bool)
    has_later[numbers] = dataset.calendar.between(ends, later[numbers])[1]
    back, is_on = dataset.calendar.between(ends, earlier[numbers])
    steps = dataset.window_steps - 1 + back
    inside = is_on & (back <= 0) & (steps >= 0)
    numbers, steps = numbers[inside], steps[inside]
    repeats = np.zeros(len(rows), dtype=bool)
    repeats[numbers] = True
    for name, values in windows.columns.items():
        own = as_stored(column_array(rows[name].iloc[numbers]), name, dataset)
        repeats[numbers] &= ~differing(own, values[places[numbers], steps])
    return repeats, has_later


def _seen(windows: Windows, zone: Zone, dataset: DatasetConfig) -> Iterator[tuple[str, int]]:
    """Yield entities and local times of the stored steps in hours that come twice, of the last day of each window.

    An ingest, too, forgets a night when its source has left it by a day.
    """
    moments = dataset.calendar.window(windows.ends, dataset.window_steps)
    walls = zone.wall(moments)
    held = np.any([pd.notna(values) for values in windows.columns.values()], axis=0)
    held[:, -1] = True  # a window ends with a row, even with one of missing values
    held &= zone.is_twice(walls.reshape(-1)).reshape(walls.shape) & (walls[:, -1:] - walls <= ONE_DAY_NS)
    for entity, step in np.argwhere(held).tolist():
        yield str(windows.entity_ids[entity]), int(walls[entity, step])
