"""Keeping the part files few, and no longer than asked for.

Servers leave a part file every ten seconds. Those of past days are joined here, in steps between which a kill leaves a
log that reads the same:

1. the compacted part is written under a temporary name,
2. its manifest, the list of the parts it replaces, is written,
3. the compacted part gets its name: from here on it counts, and what it replaces does not,
4. the replaced parts are deleted, once no reader is among them,
5. the manifest is deleted.

The next run ends what a killed one began, before it does anything else in that folder. Servers that still write parts
of a past day are not disturbed: parts that no manifest names count.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.locks import FileLock
from mlplatform.monitoring.prediction_log.parts import (
    BATCH_ROWS,
    COMPACTED,
    days,
    live_parts,
    manifest_of,
    read_manifest,
    read_part,
    readers_lock,
)
from mlplatform.monitoring.prediction_log.rows import PREDICTIONS, LogFormat
from mlplatform.storage import ABANDONED_AFTER_S, StorageError, atomic_file

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

# Rows of a compacted part. What has half of them stays as it is.
COMPACTED_ROWS = 5_000_000
# How long the deletion waits for readers, in seconds; what it leaves is left to the next run.
READERS_WAIT_S = 10.0


class _BrokenPartError(Exception):
    """A part that cannot be read to its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


@dataclass
class Upkeep:
    """What a run did.

    Attributes:
        replaced_files: part files whose rows are in fewer files now.
        deleted_days: days of files that were older than the log is kept.
        deleted_rows: the same in rows, of a database.
    """

    replaced_files: int = 0
    deleted_days: int = 0
    deleted_rows: int = 0


def compact_parts(folder: Path, today: dt.date, retention_days: int | None, form: LogFormat = PREDICTIONS) -> Upkeep:
    """Join the part files of past days of a log, and delete days that are older than it is kept.

    Does nothing while another process does it.

    Parameters:
        folder: of the experiment's log.
        today: the day in UTC, which is left to the servers.
        retention_days: how many days before `today` are kept; `None` for all.

    Raises:
        OSError: if the disk refuses; the log reads as before then.
    """
    done = Upkeep()
    lock = FileLock(folder / ".compaction.lock", wait_s=0)
    if not folder.is_dir() or not lock.acquire():
        return done
    try:
        for date, day in list(days(folder)):
            if retention_days is not None and (today - date).days > retention_days:
                done.deleted_days += _delete_day(day)
            elif date < today and _delete_replaced(day):
                _delete_abandoned(day)
                for group in _groups(day, form):
                    done.replaced_files += _join(day, group, form)
    finally:
        lock.release()
    return done


def _groups(day: Path, form: LogFormat) -> Iterator[list[Path]]:
    """Yield parts to join, in the order they were written."""
    sizes: dict[Path, int] = {}
    for path in sorted(live_parts(day), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        rows = _rows(path, form)
        if rows is not None and rows < COMPACTED_ROWS // 2:
            sizes[path] = rows
    group: list[Path] = []
    rows = 0
    for path, count in sizes.items():
        if rows + count > COMPACTED_ROWS:
            yield group
            group, rows = [], 0
        group.append(path)
        rows += count
    if len(group) > 1:
        yield group


def _rows(path: Path, form: LogFormat) -> int | None:
    """Return how many rows a part has; `None` of what cannot be read whole and so is left alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        logger.warning("left %s as it is: not a readable file of the log (%s)", path, error)
        return None
    names = set(metadata.schema.to_arrow_schema().names)
    # A later version may have written more columns; they would be lost.
    return metadata.num_rows if set(form.required) <= names <= set(form.schema().names) else None


def _join(day: Path, group: Sequence[Path], form: LogFormat) -> int:
    """Replace some parts by one; return how many. Those that turn out to be broken are left alone."""
    while len(group) > 1:
        compacted = day / f"{COMPACTED}{uuid.uuid4().hex}.parquet"
        try:
            with atomic_file(compacted) as temporary:
                _write_joined(group, temporary, form)
                with atomic_file(manifest_of(compacted)) as listing:
                    listing.write_text(json.dumps([path.name for path in group]))
        except _BrokenPartError as error:
            logger.warning("left %s as it is: not a readable file of the log (%s)", error.path, error.__cause__)
            group = [path for path in group if path != error.path]
        else:
            _delete_replaced(day)
            return len(group)
    return 0


def _write_joined(group: Sequence[Path], target: Path, form: LogFormat) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(target, form.schema()) as writer:
        for rows in _row_groups((batch for path in group for batch in _whole_part(path, form)), form):
            writer.write_table(rows)
    expected, found = (sum(pq.read_metadata(path).num_rows for path in paths) for paths in (group, [target]))
    if expected != found:
        raise StorageError(
            f"{target.parent}: joining {len(group)} parts of {expected} rows made {found} rows; nothing was changed"
        )


def _whole_part(path: Path, form: LogFormat) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        yield from read_part(path, form.schema().names, form=form)
    except (pa.ArrowException, OSError) as error:
        raise _BrokenPartError(path) from error


def _row_groups(batches: Iterator[pa.RecordBatch], form: LogFormat) -> Iterator[pa.Table]:
    """Yield tables of about as many rows as readers take at once."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= BATCH_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting = []
    yield pa.Table.from_batches(waiting, form.schema())


def _delete_replaced(day: Path) -> bool:
    """Delete the parts that compacted ones replace; return whether none is left."""
    manifests = list(day.glob(f"{COMPACTED}*.json"))
    if not manifests:
        return True
    lock = readers_lock(day.parent, wait_s=READERS_WAIT_S)
    if not lock.acquire():
        return False
    try:
        for manifest in manifests:
            compacted = manifest.with_suffix(".parquet")
            # Without its compacted part, it is from a run that failed before anything changed.
            for name in read_manifest(compacted) if compacted.exists() else ():
                (day / name).unlink(missing_ok=True)
            manifest.unlink()
    finally:
        lock.release()
    return True


def _delete_abandoned(day: Path) -> None:
    """Delete what killed servers and runs left half written."""
    for path in day.glob(".*"):
        # A server may just be done with it.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                path.unlink()


def _delete_day(day: Path) -> bool:
    lock = readers_lock(day.parent, wait_s=READERS_WAIT_S)
    if not lock.acquire():
        return False
    try:
        # Compacted parts after those that they replace, which would count again without them.
        for path in sorted(day.iterdir(), key=lambda path: (path.name.startswith(COMPACTED), path.suffix == ".json")):
            path.unlink(missing_ok=True)
        # A server may just have written there, late; the next run looks again.
        with contextlib.suppress(OSError):
            day.rmdir()
    finally:
        lock.release()
    return True
