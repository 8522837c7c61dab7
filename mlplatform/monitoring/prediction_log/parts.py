"""The log's part files: `<predictions_dir>/<experiment>/date=YYYY-MM-DD/<name>.parquet`.

A compacted part `compacted-<id>.parquet` may have a file `compacted-<id>.json` beside it, the list of the parts that it
replaces. From the moment the compacted part has its name these do not count, whether they are still there or not, and
only then are they deleted. Readers share a lock that the deletion needs for itself: what a reader saw in a folder
stays there until it is done.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.locks import FileLock
from mlplatform.monitoring.prediction_log.rows import PREDICTIONS, LogFormat, utc
from mlplatform.state_files import parsed, read_state
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

logger = logging.getLogger(__name__)

# Rows that are in memory at once while a file is read, times the few batches read ahead.
BATCH_ROWS = 65_536
COMPACTED = "compacted-"


def write_part(folder: Path, name: str, rows: pa.Table, form: LogFormat = PREDICTIONS) -> None:
    """Write a part file with rows of one day, at least one.

    Written again under its name, it replaces itself.

    Raises:
        OSError: if the disk refuses; nothing is left there then.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    date = rows[form.moment][0].cast(pa.timestamp("s"), safe=False).as_py().date()
    with atomic_file(folder / f"date={date:%Y-%m-%d}" / f"{name}.parquet") as temporary:
        pq.write_table(rows, temporary)


def part_batches(
    folder: Path,
    since: dt.datetime | None,
    until: dt.datetime | None,
    columns: Sequence[str],
    form: LogFormat = PREDICTIONS,
) -> Iterator[pa.RecordBatch]:
    """Yield rows of the log, of part after part; only folders of the asked days are opened, and only `columns` read.

    What cannot be read of a part file is left out with a warning that names it.
    """
    if not folder.is_dir():
        return
    first = dt.date.min if since is None else utc(since).date()
    last = dt.date.max if until is None else utc(until).date()
    paths = (path for date, day in days(folder) if first <= date <= last for path in live_parts(day))
    yield from batches_of(folder, paths, columns, form, _condition(since, until, form.moment))


def batches_of(
    folder: Path,
    paths: Iterable[Path],
    columns: Sequence[str],
    form: LogFormat = PREDICTIONS,
    condition: ds.Expression | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield rows of some part files of a log, of one after the other.

    What cannot be read of a part file is left out with a warning that names it.

    Parameters:
        paths: iterated over while no part can be deleted.
        condition: that rows fulfil; default: all.
    """
    import pyarrow as pa

    with readers_lock(folder, shared=True):
        for path in paths:
            try:
                yield from read_part(path, columns, condition, form)
            except (pa.ArrowException, OSError) as error:
                logger.warning("skipped %s: not a readable file of the log (%s)", path, error)


def newer_parts(folder: Path, since: dt.datetime, part: Path) -> Iterator[Path]:
    """Yield the part files that may hold rows filed at `since` or later which came after a part, without itself.

    Told by when files were written, without opening them.
    """
    # Rows that were filed after it may still have been written before it.
    written = min(part.stat().st_mtime, since.timestamp())
    for date, day in days(folder):
        if date >= utc(since).date():
            # A part that is deleted meanwhile was replaced by one that is written later.
            yield from (path for path in live_parts(day) if path != part and _is_written_since(path, written))


def _is_written_since(path: Path, moment_s: float) -> bool:
    try:
        return path.stat().st_mtime >= moment_s
    except FileNotFoundError:
        return False


def readers_lock(folder: Path, *, shared: bool = False, wait_s: float | None = None) -> FileLock:
    """Return the lock that readers of a log share, and that whoever deletes parts of it holds alone."""
    return FileLock(folder / ".readers.lock", shared=shared, wait_s=wait_s)


def days(folder: Path) -> Iterator[tuple[dt.date, Path]]:
    """Yield the days of a log and their folders, oldest first."""
    for path in sorted(folder.glob("date=????-??-??")):
        yield dt.date.fromisoformat(path.name.removeprefix("date=")), path


def part_days(folder: Path) -> dict[dt.date, str]:
    """Return the days of a log that have parts, oldest first, each with a text that changes whenever these do."""
    found = {}
    for date, day in days(folder):
        # A part that is deleted meanwhile was replaced: the next look sees another text.
        sizes = [f"{path.name}:{path.stat().st_size}" for path in live_parts(day) if path.exists()]
        if sizes:
            found[date] = hashlib.sha256("\n".join(sizes).encode()).hexdigest()[:16]
    return found


def live_parts(day: Path) -> list[Path]:
    """Return the parts of a day's folder, without those that a compacted one replaces."""
    parts = sorted(day.glob("*.parquet"))
    replaced = {name for path in parts if path.name.startswith(COMPACTED) for name in read_manifest(path)}
    return [path for path in parts if path.name not in replaced]


def manifest_of(compacted: Path) -> Path:
    """Return where the names of the parts are that a compacted part replaces."""
    return compacted.with_suffix(".json")


def read_manifest(compacted: Path) -> list[str]:
    """Return the parts that a compacted part replaces and that may still be there; none, with a warning, if damaged."""
    # Asked for by its path: a listing of the folder may have missed what came while it was made.
    otherwise = "parts that a compacted one replaces may be read beside it; restore the file, or delete them"
    return read_state(manifest_of(compacted), partial(parsed, kind=list[str]), otherwise) or []


def _condition(since: dt.datetime | None, until: dt.datetime | None, column: str) -> ds.Expression | None:
    import pyarrow as pa
    import pyarrow.dataset as ds

    condition, moment_of = ds.scalar(True), ds.field(column)
    moment = pa.timestamp("ns", tz="UTC")
    if since is not None:
        condition &= moment_of >= pa.scalar(utc(since), moment)
    if until is not None:
        condition &= moment_of < pa.scalar(utc(until), moment)
    return None if since is until is None else condition


def read_part(
    path: Path, columns: Sequence[str], condition: ds.Expression | None = None, form: LogFormat = PREDICTIONS
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part file, in its order.

    Raises:
        pyarrow.ArrowException, OSError: if it is no readable part file.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    part = ds.ParquetFileFormat().make_fragment(str(path), LocalFileSystem())
    if missing := [name for name in form.required if name not in part.physical_schema.names]:
        raise pa.ArrowInvalid(f"it has no {', '.join(missing)}")
    # The schema gives columns that came later their type in files without them, all null.
    scanner = part.scanner(
        schema=form.schema(), columns=list(columns), filter=condition, batch_size=BATCH_ROWS, batch_readahead=1
    )
    yield from scanner.to_batches()
