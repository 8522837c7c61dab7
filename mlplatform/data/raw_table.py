"""The stored raw table of a dataset: its layout, its bookkeeping, and reading it.

A snapshot holds the rows by period (each file ordered by entity and time), `entities.parquet` with the first and last
time of every entity, the quarantine with one file per ingest that found bad rows, and the state.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig, Frozen
from mlplatform.data.errors import DataError
from mlplatform.data.removals import read_removals
from mlplatform.data.sources import source_identity
from mlplatform.data.validation import Basis
from mlplatform.settings import Settings
from mlplatform.snapshots import Snapshot, open_snapshot

if TYPE_CHECKING:
    import pyarrow as pa

SPANS_FILE = "entities.parquet"
QUARANTINE_FOLDER = "quarantine"
FIRST, LAST = "first", "last"
FORMAT = 1


class ColumnStats(Frozen):
    """Statistics of one column in one period; numbers only where the column has any.

    Attributes:
        nulls: missing values.
        min, max, sum: of a numeric column, in float64.
        categories: the distinct values of a categorical column, sorted.
    """

    nulls: int
    min: float | None = None
    max: float | None = None
    sum: float = 0.0
    categories: tuple[str, ...] = ()


class PeriodState(Frozen):
    """What is known about one period without reading it; `sha256` is the digest of its file."""

    rows: int
    sha256: str
    columns: dict[str, ColumnStats]


class RawState(Frozen):
    """The bookkeeping of a raw table.

    Attributes:
        shape: what the table was made from and how; an increment must agree with it.
        basis: what the first rows settled for all later ones.
        position: where an incremental source goes on; `None` for others.
        removed: entities that the source has removed; their rows stay.
        ingests: number of ingests that changed the table since it was last read whole.
        rows_read, quarantined, out_of_order_rows, reasons: totals over these ingests.
    """

    format: int = FORMAT
    shape: dict[str, Any]
    basis: Basis
    position: dict[str, Any] | None
    ingests: int
    rows_read: int
    quarantined: int
    out_of_order_rows: int
    reasons: dict[str, int]
    periods: dict[str, PeriodState]
    removed: int = 0


@dataclass(frozen=True)
class RawTable:
    """A snapshot of a raw table with its state."""

    snapshot: Snapshot
    state: RawState

    @property
    def spans(self) -> pd.DataFrame:
        """First and last time of every entity: `entity_id`, `first`, `last` (int64, ns since 1970 UTC), by entity."""
        return pd.read_parquet(self.snapshot.folder / SPANS_FILE)

    @functools.cached_property
    def removals(self) -> pd.DataFrame:
        """Entities that the source has removed; see `removals.read_removals`."""
        return read_removals(self.snapshot.folder)

    @property
    def digests(self) -> dict[str, str]:
        """The digest of every period's file; equal rows have equal digests."""
        return {name: period.sha256 for name, period in self.state.periods.items()}

    @property
    def digest(self) -> str:
        """One digest of all rows."""
        return hashlib.sha256(json.dumps(self.digests, sort_keys=True).encode()).hexdigest()

    def read(self, period: str) -> pd.DataFrame:
        """Return the rows of a period, ordered by entity and time."""
        return pd.read_parquet(self.snapshot.path(period))


def raw_link(dataset: DatasetConfig, settings: Settings) -> Path:
    """Return where the raw table of a dataset is: a link to its current snapshot."""
    return settings.raw_dir / dataset.name


def open_raw(dataset: DatasetConfig, settings: Settings) -> RawTable | None:
    """Return the current raw table of a dataset, or `None` if there is none that this version reads."""
    snapshot = open_snapshot(raw_link(dataset, settings))
    if snapshot is None or snapshot.state.get("format") != FORMAT:
        return None
    return RawTable(snapshot, RawState.model_validate(snapshot.state))


def require_raw(dataset: DatasetConfig, settings: Settings) -> RawTable:
    """Return the current raw table of a dataset.

    Raises:
        DataError: if nothing is stored, or what is stored has other columns than the dataset now.
    """
    table = open_raw(dataset, settings)
    if table is None:
        link = raw_link(dataset, settings)
        raise DataError(f"dataset {dataset.name!r}: there is no {link}; materialise {dataset.name}/raw first")
    stored = {name: column["type"] for name, column in table.state.shape["columns"].items()}
    expected = {name: column.type for name, column in dataset.columns.items()}
    if stored != expected or table.state.shape["period"] != dataset.period:
        raise DataError(
            f"dataset {dataset.name!r}: {table.snapshot.folder} has the columns {_listed(stored)} by "
            f"{table.state.shape['period']}, but the configuration now asks for {_listed(expected)} by "
            f"{dataset.period}; materialise {dataset.name}/raw again"
        )
    return table


def read_raw(dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
    """Return the stored raw frame of a dataset, ordered by entity and time.

    Raises:
        DataError: if nothing is stored, or what is stored has other columns than the dataset now.
    """
    table = require_raw(dataset, settings)
    rows = pd.concat([table.read(period) for period in table.snapshot.periods], ignore_index=True)
    rows = rows.sort_values(ENTITY, kind="stable", ignore_index=True)
    return rows[[ENTITY, TIMESTAMP, *dataset.columns]]


def raw_shape(dataset: DatasetConfig) -> dict[str, Any]:
    """Return what rows stored earlier must have in common with new ones."""
    columns = {name: column.model_dump(exclude={"unit", "description"}) for name, column in dataset.columns.items()}
    shape = {
        "kind": dataset.kind,
        "source": source_identity(dataset),
        "time_column": dataset.time_column,
        "entity_column": dataset.entity_column,
        "frequency": dataset.frequency if dataset.kind != "timeseries" else dataset.calendar.frequency,
        "period": dataset.period,
        "columns": columns,
    }
    # What came later stands there only if it says something, so that tables of before agree.
    shape |= dataset.model_dump(mode="json", include={"timezone", "weekmask", "holidays"})
    # Tables stored before there were the settings were made as their defaults make them.
    if dataset.entity_type != "auto":
        shape["entity_type"] = dataset.entity_type
    if dataset.time_unit is not None:
        shape["time_unit"] = dataset.time_unit
    if dataset.removed_column is not None:
        shape["removed_column"] = dataset.removed_column
    return shape


def settled_ids(dataset: DatasetConfig, settings: Settings) -> bool | None:
    """Return whether the ids of the stored table are text; `None` if there is none, or the configuration is to decide.

    A table that is read anew keeps the kind of ids that features, windows and clients know.
    """
    table = open_raw(dataset, settings)
    if table is None:
        return None
    shape, keys = raw_shape(dataset), ("kind", "entity_column", "entity_type")
    return table.state.basis.text_ids if all(shape.get(key) == table.state.shape.get(key) for key in keys) else None


def raw_schema(dataset: DatasetConfig, basis: Basis) -> pa.Schema:
    """Return the types by configuration: inferred ones would change with the data, as where all is missing."""
    import pyarrow as pa

    fields = [
        (ENTITY, pa.string() if basis.text_ids else pa.int64()),
        (TIMESTAMP, pa.timestamp("ns", tz="UTC")),
        *((name, pa.float32() if column.type == "float" else pa.string()) for name, column in dataset.columns.items()),
    ]
    return pa.schema(fields)


def entity_spans(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `entity_id`, `first` and `last` (int64, ns since 1970 UTC) of rows ordered by entity and time."""
    ids = rows[ENTITY].to_numpy()
    times = rows[TIMESTAMP].to_numpy(dtype="datetime64[ns]").astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]])) if len(ids) else np.zeros(0, np.int64)
    ends = np.append(starts[1:], len(ids)) - 1 if len(ids) else starts
    return pd.DataFrame({ENTITY: ids[starts], FIRST: times[starts], LAST: times[ends]})


def merge_spans(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the spans of entities over several parts, ordered by entity."""
    grouped = pd.concat(parts, ignore_index=True).groupby(ENTITY, sort=True)
    return grouped.agg({FIRST: "min", LAST: "max"}).reset_index()


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items())
