"""The log's part files: `<predictions_dir>/<experiment>/date=YYYY-MM-DD/<name>.parquet`."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.monitoring.prediction_log.rows import FIRST_COLUMNS, log_schema, utc
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

logger = logging.getLogger(__name__)

# Rows that are in memory at once while a file is read, times the few batches read ahead.
BATCH_ROWS = 65_536


def write_part(folder: Path, date: dt.date, name: str, rows: pa.Table) -> None:
    """Write a part file with rows that were served on a day. Written again under its name, it replaces itself.

    Raises:
        OSError: if the disk refuses; nothing is left there then.
    """
    import pyarrow.parquet as pq

    with atomic_file(folder / f"date={date:%Y-%m-%d}" / f"{name}.parquet") as temporary:
        pq.write_table(rows, temporary)


def part_batches(
    folder: Path, since: dt.datetime | None, until: dt.datetime | None, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield rows of the log, of part after part; only folders of the asked days are opened, and only `columns` read.

    What cannot be read of a part file is left out with a warning that names it.
    """
    import pyarrow as pa

    condition = _condition(since, until)
    for path in _parts(folder, since, until):
        try:
            yield from _batches(path, columns, condition)
        except (pa.ArrowException, OSError) as error:
            logger.warning("skipped %s: not a readable prediction log file (%s)", path, error)


def _parts(folder: Path, since: dt.datetime | None, until: dt.datetime | None) -> Iterator[Path]:
    first = dt.date.min if since is None else utc(since).date()
    last = dt.date.max if until is None else utc(until).date()
    for day in sorted(folder.glob("date=*")):
        if first <= dt.date.fromisoformat(day.name.removeprefix("date=")) <= last:
            yield from sorted(day.glob("*.parquet"))


def _condition(since: dt.datetime | None, until: dt.datetime | None) -> ds.Expression | None:
    import pyarrow as pa
    import pyarrow.dataset as ds

    condition, served_at = ds.scalar(True), ds.field("served_at")
    moment = pa.timestamp("ns", tz="UTC")
    if since is not None:
        condition &= served_at >= pa.scalar(utc(since), moment)
    if until is not None:
        condition &= served_at < pa.scalar(utc(until), moment)
    return None if since is until is None else condition


def _batches(path: Path, columns: Sequence[str], condition: ds.Expression | None) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    part = ds.ParquetFileFormat().make_fragment(str(path), LocalFileSystem())
    if missing := [name for name in FIRST_COLUMNS if name not in part.physical_schema.names]:
        raise pa.ArrowInvalid(f"it has no {', '.join(missing)}")
    # The schema gives columns that came later their type in files without them, all null.
    scanner = part.scanner(
        schema=log_schema(), columns=list(columns), filter=condition, batch_size=BATCH_ROWS, batch_readahead=1
    )
    yield from scanner.to_batches()
