"""Datasets as frames: read whole from their source, and made into feature tables without a stored raw table."""

from __future__ import annotations

import uuid
from pathlib import Path

import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data import entity_spans, read_removals
from mlplatform.data.columns import require_columns
from mlplatform.data.sources import open_source
from mlplatform.datamodule import to_utc_ns
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.tables.feature_table import TableReport, update_from
from mlplatform.settings import Settings
from mlplatform.snapshots import split_periods


def read_source(dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
    """Read a dataset whole through the source that its URI names.

    Raises:
        ConfigError: if no source reads the URI, or the source refuses `source.options`.
        DataError: if the source is not there, is not what it claims to be, or lacks a column.
    """
    frame = open_source(dataset).read(dataset, settings)
    require_columns(frame.columns, dataset, repr(dataset.source.uri))
    return frame


def write_feature_table(
    raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings, removals: pd.DataFrame | None = None
) -> TableReport:
    """Write the feature table of a dataset from a raw frame instead of the stored raw table.

    Parameters:
        raw: with `entity_id` (whole numbers or text), `event_timestamp` and the dataset's columns.
        removals: as `data.read_removals` gives them.

    Raises:
        FeatureStoreError: if `raw` is empty, lacks a column, or has rows off the grid or twice.
    """
    return update_from(FrameRows(raw, dataset, removals), dataset, settings)


class FrameRows:
    """The rows of a frame with `entity_id`, `event_timestamp` and the dataset's columns, in any order.

    Raises:
        FeatureStoreError: if the frame is empty or lacks a column.
    """

    def __init__(self, frame: pd.DataFrame, dataset: DatasetConfig, removals: pd.DataFrame | None = None) -> None:
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
        self.removals = read_removals(Path()) if removals is None else removals

    def read(self, period: str) -> pd.DataFrame:
        """Return the rows of a period, ordered by entity and time."""
        return self._periods[period]
