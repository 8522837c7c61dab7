"""The raw rows that a feature table is made from: the stored raw table, or a frame."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Protocol

import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data import entity_spans, require_raw
from mlplatform.datamodule import to_utc_ns
from mlplatform.features.errors import FeatureStoreError
from mlplatform.settings import Settings
from mlplatform.snapshots import split_periods


class RawRows(Protocol):
    """Raw rows by period."""

    @property
    def digests(self) -> Mapping[str, str]:
        """A text per period that has rows; the same text stands for the same rows."""

    @property
    def spans(self) -> pd.DataFrame:
        """First and last time of every entity: `entity_id`, `first`, `last` (int64, ns since 1970 UTC), by entity."""

    @property
    def count(self) -> int:
        """Number of rows."""

    def read(self, period: str) -> pd.DataFrame:
        """Return the rows of a period, ordered by entity and time."""


class StoredRows:
    """The rows of the stored raw table, as one snapshot.

    Raises:
        DataError: if there is none, or it has other columns than the dataset now.
    """

    def __init__(self, dataset: DatasetConfig, settings: Settings) -> None:
        self._table = require_raw(dataset, settings)
        self.digests = self._table.digests
        self.count = sum(period.rows for period in self._table.state.periods.values())
        if not self.count:
            raise FeatureStoreError(f"dataset {dataset.name!r}: the raw table has no rows; ingest the dataset first")
        self.spans = self._table.spans

    def read(self, period: str) -> pd.DataFrame:
        """Return the rows of a period, ordered by entity and time."""
        return self._table.read(period)


class FrameRows:
    """The rows of a frame with `entity_id`, `event_timestamp` and the dataset's columns, in any order.

    Raises:
        FeatureStoreError: if the frame is empty or lacks a column.
    """

    def __init__(self, frame: pd.DataFrame, dataset: DatasetConfig) -> None:
        missing = [name for name in (ENTITY, TIMESTAMP, *dataset.columns) if name not in frame.columns]
        if missing:
            raise FeatureStoreError(
                f"dataset {dataset.name!r}: the raw frame lacks {missing}; it has {list(frame.columns)}"
            )
        if frame.empty:
            raise FeatureStoreError(f"dataset {dataset.name!r}: the raw frame has no rows; ingest the dataset first")
        rows = frame.sort_values([ENTITY, TIMESTAMP], kind="stable", ignore_index=True)
        self._periods = {
            name: rows.iloc[positions] for name, positions in split_periods(to_utc_ns(rows[TIMESTAMP]), dataset.period)
        }
        self.digests = {name: uuid.uuid4().hex for name in self._periods}
        self.count = len(rows)
        self.spans = entity_spans(rows)

    def read(self, period: str) -> pd.DataFrame:
        """Return the rows of a period, ordered by entity and time."""
        return self._periods[period]
