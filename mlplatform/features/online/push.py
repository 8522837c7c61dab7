"""Pushing rows to the online store as they arrive, without waiting for the feature table.

The stored windows of the entities concerned move on by the same code that builds the windows of the table, so once the
same rows have reached the table both are equal bit for bit. Nothing is written offline.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule import to_utc_ns
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.feast import Registered, online_server, registered
from mlplatform.features.online.latest_rows import MergedRows, merge_latest_rows
from mlplatform.features.online.read import check_entity_types
from mlplatform.features.online.rows import CHUNK, read_stored_windows, write_windows
from mlplatform.features.tables import Merged, choose, merge_rows
from mlplatform.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushReport:
    """What `push_rows` did. Every row is counted once.

    Attributes:
        rows: rows given.
        written: entities whose stored features changed and were written.
        added: rows newer than all that was stored of their entity, or of a new entity.
        late: rows that filled a step without values inside a window; time series only.
        replaced: rows that gave other values to a stored step.
        repeated: rows that say nothing new: already stored, or followed by a row for the same step.
        too_old: rows from before the stored window or row; dropped.
        off_grid: rows between two steps of their entity's grid; dropped.
        future: rows from after now; dropped, because they would hide all real rows until then.
        seconds: how long it took.
    """

    rows: int
    written: int
    added: int
    late: int
    replaced: int
    repeated: int
    too_old: int
    off_grid: int
    future: int
    seconds: float

    @property
    def dropped(self) -> int:
        """Rows that left no trace although they said something new."""
        return self.too_old + self.off_grid + self.future


def push_rows(
    dataset: DatasetConfig, rows: pd.DataFrame, settings: Settings, *, now: dt.datetime | None = None
) -> PushReport:
    """Merge rows into the online features of their entities: windows and latest rows, or for tabular data the latter.

    Pushing the same rows again changes nothing, and repeats what a killed process did not finish. Writers wait for each
    other, entity by entity in blocks; readers see the windows before or after, never half of one.

    Parameters:
        rows: `entity_id`, `event_timestamp` (without a zone: UTC) and all columns of the dataset, in any order; other
            columns are ignored. Of rows with the same entity and time the last wins, and it wins over what is stored.
        now: the present (without a zone: UTC); default: the clock.

    Raises:
        FeatureStoreError: if the dataset has not been applied, a column is missing or holds values of another type, or
            the stored windows have another length than the dataset.
        EntityTypeError: if an id has another type than the dataset's.
        StoreUnavailableError: if the online store does not answer.
    """
    began = time.perf_counter()
    known = registered(dataset, settings)
    _check(dataset, rows, known)
    present = pd.to_datetime(now or dt.datetime.now(dt.UTC), utc=True)
    is_future = to_utc_ns(rows[TIMESTAMP]).astype(np.int64) > present.value
    push = _push_rows if known.windows is None else _push_windows
    merged = [push(dataset, block, known, settings) for block in _blocks(rows[~is_future])]
    report = PushReport(
        rows=len(rows),
        written=sum(written for _, written in merged),
        added=sum(counts.added for counts, _ in merged),
        late=sum(counts.late for counts, _ in merged if isinstance(counts, Merged)),
        replaced=sum(counts.replaced for counts, _ in merged),
        repeated=sum(counts.repeated for counts, _ in merged),
        too_old=sum(counts.too_old for counts, _ in merged),
        off_grid=sum(counts.off_grid for counts, _ in merged if isinstance(counts, Merged)),
        future=int(is_future.sum()),
        seconds=time.perf_counter() - began,
    )
    if report.dropped:
        logger.warning(
            "push to %r: dropped %d of %d rows: %d before the window, %d off the grid, %d after now (%s)",
            *(dataset.name, report.dropped, report.rows, report.too_old, report.off_grid, report.future),
            present.isoformat(),
        )
    return report


def _check(dataset: DatasetConfig, rows: pd.DataFrame, known: Registered) -> None:
    lacking = [name for name in (ENTITY, TIMESTAMP, *dataset.columns) if name not in rows.columns]
    if lacking:
        raise FeatureStoreError(f"dataset {dataset.name!r}: the rows lack {lacking}; they have {list(rows.columns)}")
    check_entity_types(dataset, rows[ENTITY].unique().tolist(), known.has_text_ids)
    if rows[TIMESTAMP].isna().any():
        raise FeatureStoreError(f"dataset {dataset.name!r}: rows without {TIMESTAMP}; leave them out")


def _blocks(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows in blocks of so many entities, each entity whole and its rows in their order."""
    codes, entities = pd.factorize(rows[ENTITY])
    numbers: npt.NDArray[np.int64] = codes // CHUNK
    return [rows[numbers == number] for number in range(-(-len(entities) // CHUNK))]


def _push_windows(
    dataset: DatasetConfig, rows: pd.DataFrame, known: Registered, settings: Settings
) -> tuple[Merged, int]:
    with online_server(settings).lock(f"{dataset.name}.write") as confirm:
        ids = np.sort(rows[ENTITY].unique().astype(object if known.has_text_ids else np.int64))
        merged = merge_rows(read_stored_windows(known, dataset, ids, settings), rows, dataset)
        written = int(merged.changed.sum())
        if written:
            confirm()
            write_windows(known, choose(merged.windows, merged.changed), settings)
        return merged, written


def _push_rows(
    dataset: DatasetConfig, rows: pd.DataFrame, known: Registered, settings: Settings
) -> tuple[MergedRows, int]:
    with online_server(settings).lock(f"{dataset.name}.write") as confirm:
        merged = merge_latest_rows(known, dataset, rows, settings, confirm)
        return merged, merged.written
