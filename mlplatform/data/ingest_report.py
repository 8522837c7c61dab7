"""What an ingest reports: the stored table in numbers, taken from its bookkeeping without reading the rows again."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlplatform.config import ENTITY, DatasetConfig
from mlplatform.data.raw_table import FIRST, LAST, QUARANTINE_FOLDER, ColumnStats, RawState, RawTable, raw_link
from mlplatform.settings import Settings


@dataclass(frozen=True)
class IngestReport:
    """What is stored after an ingest, and what it changed.

    Attributes:
        path: the raw table: a folder with one Parquet file per period.
        quarantine_path: the folder of bad rows with their reasons; `None` if there are none.
        rows, quarantined: number of good and bad rows stored.
        reasons: bad rows per kind of fault; a row can have several.
        gaps: missing grid steps over all entities.
        out_of_order_rows: rows that were not in time order in the source.
        entities: number of entities.
        removed: those of them that the source has removed.
        start, end: first and last time; `None` without rows.
        sha256: digest of the raw table; equal for equal data, configuration and library versions.
        ranges: per column `min`, `mean`, `max` and `nulls`, or `categories` and `nulls`.
        rows_read: rows that this ingest read.
        periods_written: periods whose rows this ingest changed.
        frequency: the time step, and what people call it; `none` for tabular data.
    """

    path: Path
    quarantine_path: Path | None
    rows: int
    quarantined: int
    reasons: dict[str, int]
    gaps: int
    out_of_order_rows: int
    entities: int
    removed: int
    start: dt.datetime | None
    end: dt.datetime | None
    sha256: str
    ranges: dict[str, dict[str, float | None]]
    rows_read: int
    periods_written: tuple[str, ...]
    frequency: str = "none"


def describe(
    table: RawTable | None, dataset: DatasetConfig, settings: Settings, rows_read: int, written: tuple[str, ...]
) -> IngestReport:
    """Return the report on a table after an ingest that read `rows_read` rows and wrote the periods `written`."""
    if table is None:
        path = raw_link(dataset, settings)
        return IngestReport(path, None, 0, 0, {}, 0, 0, 0, 0, None, None, "", {}, rows_read, written)
    state = table.state
    rows = sum(period.rows for period in state.periods.values())
    spans = table.spans if rows else pd.DataFrame({ENTITY: [], FIRST: [], LAST: []}, dtype=np.int64)
    return IngestReport(
        path=raw_link(dataset, settings) / table.snapshot.rows_folder.name,
        quarantine_path=raw_link(dataset, settings) / QUARANTINE_FOLDER if state.quarantined else None,
        rows=rows,
        quarantined=state.quarantined,
        reasons=state.reasons,
        gaps=_missing_steps(spans, rows, dataset),
        out_of_order_rows=state.out_of_order_rows,
        entities=len(spans),
        removed=state.removed,
        start=pd.Timestamp(spans[FIRST].min(), tz="UTC").to_pydatetime() if rows else None,
        end=pd.Timestamp(spans[LAST].max(), tz="UTC").to_pydatetime() if rows else None,
        sha256=table.digest,
        ranges={
            name: _range([period.columns[name] for period in state.periods.values()], rows) for name in dataset.columns
        },
        rows_read=rows_read,
        periods_written=written,
        frequency=_frequency(dataset),
    )


def _frequency(dataset: DatasetConfig) -> str:
    if dataset.kind != "timeseries":
        return "none"
    calendar = dataset.calendar
    return f"{calendar.frequency} ({calendar.name}, {calendar.zone.name})"


def _missing_steps(spans: pd.DataFrame, rows: int, dataset: DatasetConfig) -> int:
    if dataset.kind != "timeseries":
        return 0
    first, last = (spans[name].to_numpy(dtype=np.int64) for name in (FIRST, LAST))
    return int((dataset.calendar.steps(first, last) + 1).sum()) - rows


def _ranges(state: RawState, rows: int, dataset: DatasetConfig) -> dict[str, dict[str, float | None]]:
    return {name: _range([period.columns[name] for period in state.periods.values()], rows) for name in dataset.columns}


def _range(periods: list[ColumnStats], rows: int) -> dict[str, float | None]:
    nulls = sum(period.nulls for period in periods)
    categories = {category for period in periods for category in period.categories}
    lows = [period.min for period in periods if period.min is not None]
    highs = [period.max for period in periods if period.max is not None]
    if categories:
        return {"categories": len(categories), "nulls": nulls}
    if not lows:
        return {"min": None, "mean": None, "max": None, "nulls": nulls}
    mean = sum(period.sum for period in periods) / (rows - nulls)
    return {"min": min(lows), "mean": mean, "max": max(highs), "nulls": nulls}
