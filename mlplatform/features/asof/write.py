"""Writing of the as-of store: rows appended to a source, logged features, saved datasets.

What is written appears whole or not at all: a file is written under a hidden name, then renamed. A folder gets a file
more, at the cost of the new rows; a source that is one file is rewritten.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlplatform.features.asof.engine import BATCH_ROWS
from mlplatform.features.asof.files import HIVE_NULL, SUFFIX, Place, partition_columns
from mlplatform.locks import FileLock


def append_rows(place: Place, rows: pa.Table) -> None:
    """Append rows to a source; in a folder with partitions, to the partitions that their values name.

    Raises:
        ValueError: if the columns of `rows` are not those of the source, in its order, or have other types.
        FileNotFoundError: if the source is not there.
    """
    schema = place.schema()
    if rows.column_names != schema.names:
        raise ValueError(f"the rows have columns {rows.column_names}, but {place.path} has {schema.names}")
    try:
        rows = rows.cast(schema)
    except pa.ArrowException as error:
        raise ValueError(f"the rows do not have the types of {place.path}: {error}") from error
    if place.is_folder:
        append_files(place, rows, [name for name, _ in partition_columns(map(place.inside, place.files()))])
    elif place.filesystem is None:
        # Of two that rewrite a file at once, the second would drop the rows of the first.
        with FileLock(Path(place.path).with_name(f".{Path(place.path).name}.lock")):
            _rewrite(place, rows)
    else:
        _rewrite(place, rows)


def append_files(folder: Place, rows: pa.Table, partitions: list[str]) -> None:
    """Add rows to a folder: one file, or one per combination of values of `partitions`."""
    for path, part in _partitioned(rows, partitions):
        target = folder.child("/".join([*path, f"{uuid.uuid4().hex}{SUFFIX}"]))
        with target.written() as temporary:
            pq.write_table(part, temporary, row_group_size=BATCH_ROWS)


def write_dataset(place: Place, rows: pa.RecordBatchReader) -> None:
    """Write batches of rows to a Parquet file, or to a folder if the name does not end in `.parquet`.

    What was there is replaced. A folder on disk is moved away for that, so there is a moment without it; below a remote
    address, old files are deleted after the new one is complete.
    """
    if place.path.endswith(SUFFIX):
        _write_batches(place, rows)
    elif place.filesystem is None:
        _replace_folder(Path(place.path), rows)
    else:
        old = place.filesystem.find(place.path) if place.exists else []
        _write_batches(place.child(f"{uuid.uuid4().hex}{SUFFIX}"), rows)
        for path in old:
            place.filesystem.rm_file(path)


def _rewrite(place: Place, rows: pa.Table) -> None:
    with (
        pq.ParquetFile(place.path, filesystem=place.filesystem) as present,
        place.written() as temporary,
        pq.ParquetWriter(temporary, present.schema_arrow) as writer,
    ):
        for batch in present.iter_batches(BATCH_ROWS):
            writer.write_batch(batch)
        writer.write_table(rows)


def _write_batches(place: Place, rows: pa.RecordBatchReader) -> None:
    with place.written() as temporary, pq.ParquetWriter(temporary, rows.schema) as writer:
        for batch in rows:
            writer.write_batch(batch)


def _replace_folder(target: Path, rows: pa.RecordBatchReader) -> None:
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    retired = staged.with_name(f"{staged.name}.old")
    try:
        _write_batches(Place(str(staged / f"part-0{SUFFIX}")), rows)
        if target.exists():
            target.rename(retired)
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(retired, ignore_errors=True)


def _partitioned(rows: pa.Table, partitions: list[str]) -> Iterable[tuple[list[str], pa.Table]]:
    """Yield the rows of every combination of values, without those columns, and the folders that stand for it."""
    if not partitions:
        yield [], rows
        return
    for values in rows.select(partitions).group_by(partitions).aggregate([]).to_pylist():
        mask = pa.array([True] * rows.num_rows) if rows.num_rows else None
        for name, value in values.items():
            column = rows.column(name)
            equal = pc.is_null(column) if value is None else pc.equal(column, value)
            mask = pc.and_(mask, pc.fill_null(equal, False))
        yield [_folder(name, value) for name, value in values.items()], rows.filter(mask).drop_columns(partitions)


def _folder(name: str, value: object) -> str:
    from urllib.parse import quote

    return f"{quote(name, safe='')}={HIVE_NULL if value is None else quote(str(value), safe='')}"
