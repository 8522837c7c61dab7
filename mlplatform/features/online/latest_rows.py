"""Merging rows into the latest rows of tabular data in the online store: the newest row of an entity wins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule import column_array, to_utc_ns
from mlplatform.features.feast import Lease, Registered, stack_scalars
from mlplatform.features.online.rows import read_stored, write_latest
from mlplatform.features.tables import as_stored, differing
from mlplatform.settings import Settings

SECOND = 1_000_000_000


@dataclass(frozen=True)
class MergedRows:
    """What merging latest rows did. Every row is counted once.

    Attributes:
        added: rows of new entities, or newer than the stored row.
        replaced: rows with the time of the stored row and other values.
        repeated: rows that say nothing new: equal to the stored row, or followed by another for the same entity.
        too_old: rows older than the stored row; dropped.
    """

    added: int
    replaced: int
    repeated: int
    too_old: int

    @property
    def written(self) -> int:
        """Number of entities whose row was written."""
        return self.added + self.replaced


def merge_latest_rows(
    registered: Registered, dataset: DatasetConfig, rows: pd.DataFrame, settings: Settings, lease: Lease
) -> MergedRows:
    """Write those rows that are newer than the stored ones, or as new and different.

    Online stores keep event times in whole seconds, so rows are compared in whole seconds.

    Parameters:
        rows: `entity_id`, `event_timestamp` and the dataset's columns, in any order; of an entity's rows with equal
            times the last wins.
        lease: the lock that the caller holds.

    Raises:
        FeatureStoreError: if a value is not of its column's type.
        StoreUnavailableError: if the online store does not answer.
    """
    times = to_utc_ns(rows[TIMESTAMP]).astype(np.int64)
    order = np.argsort(times, kind="stable")
    newest = np.sort(order[~rows[ENTITY].iloc[order].duplicated(keep="last").to_numpy()])
    rows, times = rows.iloc[newest], times[newest]
    ids = rows[ENTITY].to_numpy()
    columns = {name: as_stored(column_array(rows[name]), name, dataset) for name in dataset.columns}
    stored = read_stored(registered, registered.features, list(dataset.columns), ids.tolist(), settings)
    seconds = times // SECOND
    is_newer = ~stored.known | (seconds > stored.seconds)
    differs = np.zeros(len(ids), dtype=bool)
    for name, column in dataset.columns.items():
        differs |= differing(columns[name], stack_scalars(stored.values[name], is_number=column.type == "float"))
    is_replaced = ~is_newer & (seconds == stored.seconds) & differs
    written = is_newer | is_replaced
    if written.any():
        lease.confirm()
        chosen = {name: values[written] for name, values in columns.items()}
        write_latest(registered, ids[written], times[written], chosen, settings, lease)
    return MergedRows(
        added=int(is_newer.sum()),
        replaced=int(is_replaced.sum()),
        repeated=len(order) - len(newest) + int((~differs & ~is_newer & (seconds == stored.seconds)).sum()),
        too_old=int((~is_newer & (seconds < stored.seconds)).sum()),
    )
