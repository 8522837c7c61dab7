"""The raw table of a dataset: read from its source, validated, and stored in one step or not at all."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.sources import read_source
from mlplatform.data.sources.files import file_sha256
from mlplatform.data.validation import REASON, ROW, Validated, validate
from mlplatform.settings import Settings
from mlplatform.storage import atomic_folder

RAW_FILE = "raw.parquet"
QUARANTINE_FILE = "quarantine.parquet"
ROW_GROUP_ROWS = 131_072

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestReport:
    """What an ingest stored.

    Attributes:
        path: the raw table.
        quarantine_path: the bad rows with their reasons; `None` if there are none.
        rows, quarantined: number of good and bad rows; together they are all rows of the source.
        reasons: bad rows per kind of fault; a row can have several.
        gaps: missing grid steps over all entities.
        out_of_order_rows: rows that were not in time order in the source.
        entities: number of entities.
        start, end: first and last time.
        sha256: digest of the raw table's file; equal for equal data, configuration and library versions.
        ranges: per column `min`, `mean`, `max` and `nulls`, or `categories` and `nulls`.
    """

    path: Path
    quarantine_path: Path | None
    rows: int
    quarantined: int
    reasons: dict[str, int]
    gaps: int
    out_of_order_rows: int
    entities: int
    start: dt.datetime
    end: dt.datetime
    sha256: str
    ranges: dict[str, dict[str, float]]


def ingest(dataset: DatasetConfig, settings: Settings) -> IngestReport:
    """Read, validate and store a dataset; the raw table and its quarantine are replaced together.

    Whatever fails, and wherever the process is stopped, the files of the last good ingest stay as they were.

    Raises:
        ConfigError: if no source reads the dataset's URI, or the source refuses its options.
        DataError: if the source is not what it claims to be, or too many rows are bad.
    """
    validated = validate(read_source(dataset, settings), dataset)
    folder = settings.raw_dir / dataset.name
    with atomic_folder(folder) as new:
        _write(validated.rows, _raw_schema(validated.rows, dataset), new / RAW_FILE)
        if len(validated.quarantine):
            _write(validated.quarantine, _quarantine_schema(validated.quarantine), new / QUARANTINE_FILE)
        digest = file_sha256(new / RAW_FILE)
    report = _report(validated, dataset, folder, digest)
    logger.info("Dataset %s: %d rows stored, %d quarantined", dataset.name, report.rows, report.quarantined)
    return report


def read_raw(dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
    """Return the stored raw frame of a dataset.

    Raises:
        DataError: if nothing is stored, or what is stored has other columns than the dataset now.
    """
    path = settings.raw_dir / dataset.name / RAW_FILE
    if not path.is_file():
        raise DataError(f"dataset {dataset.name!r}: there is no {path}; materialise {dataset.name}/raw first")
    frame = pd.read_parquet(path)
    expected = [ENTITY, TIMESTAMP, *dataset.columns]
    if list(frame.columns) != expected:
        raise DataError(
            f"dataset {dataset.name!r}: {path} has the columns {', '.join(frame.columns)}, but the "
            f"configuration now asks for {', '.join(expected)}; materialise {dataset.name}/raw again"
        )
    return frame


def _write(frame: pd.DataFrame, schema: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS)


def _raw_schema(rows: pd.DataFrame, dataset: DatasetConfig) -> Any:
    """Return the types by configuration: inferred ones would change with the data, as where all is missing."""
    import pyarrow as pa

    fields = [
        (ENTITY, pa.int64() if pd.api.types.is_integer_dtype(rows[ENTITY]) else pa.string()),
        (TIMESTAMP, pa.timestamp("ns", tz="UTC")),
        *((name, pa.float32() if column.type == "float" else pa.string()) for name, column in dataset.columns.items()),
    ]
    return pa.schema(fields)


def _quarantine_schema(quarantine: pd.DataFrame) -> Any:
    import pyarrow as pa

    originals = [name for name in quarantine.columns if name not in (ROW, REASON)]
    return pa.schema([(ROW, pa.int64()), (REASON, pa.string()), *((name, pa.string()) for name in originals)])


def _report(validated: Validated, dataset: DatasetConfig, folder: Path, digest: str) -> IngestReport:
    rows = validated.rows
    return IngestReport(
        path=folder / RAW_FILE,
        quarantine_path=folder / QUARANTINE_FILE if len(validated.quarantine) else None,
        rows=len(rows),
        quarantined=len(validated.quarantine),
        reasons=validated.report["reasons"],
        gaps=validated.report["missing_steps"],
        out_of_order_rows=validated.report["out_of_order_rows"],
        entities=validated.report["entities"],
        start=rows[TIMESTAMP].min().to_pydatetime(),
        end=rows[TIMESTAMP].max().to_pydatetime(),
        sha256=digest,
        ranges={name: _range(rows[name]) for name in dataset.columns},
    )


def _range(values: pd.Series) -> dict[str, float]:
    nulls = int(values.isna().sum())
    if not pd.api.types.is_float_dtype(values):
        return {"categories": int(values.nunique()), "nulls": nulls}
    # float64, because a mean over many float32 values loses digits.
    exact = values.astype("float64")
    return {"min": float(exact.min()), "mean": float(exact.mean()), "max": float(exact.max()), "nulls": nulls}
