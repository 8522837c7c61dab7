"""The raw rows that a feature table is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pandas as pd

from mlplatform.config import DatasetConfig
from mlplatform.data import require_raw
from mlplatform.features.errors import FeatureStoreError
from mlplatform.settings import Settings


class RawRows(Protocol):
    """Raw rows by period."""

    @property
    def digests(self) -> Mapping[str, str]:
        """A text per period that has rows; the same text stands for the same rows."""

    @property
    def spans(self) -> pd.DataFrame:
        """First and last time of every entity: `entity_id`, `first`, `last` (int64, ns since 1970 UTC), by entity."""

    @property
    def removals(self) -> pd.DataFrame:
        """Entities that the source has removed, whose rows stay; see `data.read_removals`."""

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
        self.removals = self._table.removals

    def read(self, period: str) -> pd.DataFrame:
        """Return the rows of a period, ordered by entity and time."""
        return self._table.read(period)
