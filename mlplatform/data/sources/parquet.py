"""Parquet files: one, or a growing folder of them, on the local disk or under any address that fsspec knows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pydantic import Field, field_validator

from mlplatform.config import SECRET_NAME, DatasetConfig, Frozen
from mlplatform.data.columns import require_columns, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.base import Batch, IncrementalSource, Position
from mlplatform.data.sources.cells import arrow_frame
from mlplatform.data.sources.filesets import DataFile, FileSet, open_file_set
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


class ParquetParams(Frozen):
    """How files are read.

    `batch_rows` rows are in memory at a time, or one row group if that is larger. `storage_options` go to fsspec for
    remote files, for example an endpoint; credentials belong in the environment variables of the storage's own client.
    """

    batch_rows: int = Field(default=131_072, ge=1)
    storage_options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("storage_options")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        secret = [name for name in value if SECRET_NAME.search(name) or name == "key"]
        if secret:
            raise ValueError(
                f"{', '.join(secret)} may be a secret; credentials belong in the environment variables of the "
                "storage's own client"
            )
        return value


@SOURCES.register("parquet")
class ParquetSource(IncrementalSource[ParquetParams]):
    """One Parquet file, read whole, or a folder or glob of files, of which those are read that are new or changed.

    Only the dataset's columns are read. The parts `key=value` of a path below the folder are columns as well.
    """

    Params = ParquetParams
    operational = frozenset({"batch_rows", "storage_options"})

    def is_incremental(self, dataset: DatasetConfig, settings: Settings) -> bool:
        """Return whether the URI names a folder or a glob."""
        return self._file_set(dataset, settings).is_many

    def read_batches(self, dataset: DatasetConfig, settings: Settings) -> Iterator[pd.DataFrame]:
        """Read everything, `batch_rows` rows at a time; see `Source.read_batches`."""
        files = self._file_set(dataset, settings)
        listed = files.files()
        self._check(listed, files, dataset)
        for file in listed:
            yield from self._frames(file, files, dataset)

    def read_since(self, dataset: DatasetConfig, settings: Settings, position: Position | None) -> Iterator[Batch]:
        """Read the files that are new or changed since `position`; see `IncrementalSource.read_since`.

        Nothing is read before every one of them has been found complete. A file counts as read with its last batch.
        """
        files = self._file_set(dataset, settings)
        listed = files.files()
        known = _known_files(position, dataset)
        fresh = [file for file in listed if known.get(file.name) != [file.size, file.version]]
        self._check(fresh, files, dataset)
        done = {file.name: known[file.name] for file in listed if file not in fresh}
        for file in fresh:
            frames = self._frames(file, files, dataset)
            frame = next(frames, None)
            while frame is not None:
                following = next(frames, None)
                if following is None:
                    done = {**done, file.name: [file.size, file.version]}
                yield Batch(frame, {"files": done})
                frame = following

    def fingerprint(self, dataset: DatasetConfig, settings: Settings) -> str:
        """Return a digest of the files' names, sizes and times of change; see `Source.fingerprint`."""
        files = self._file_set(dataset, settings)
        if not files.is_many and dataset.source.sha256 is not None:
            return dataset.source.sha256
        listed = sorted((file.name, file.size, file.version) for file in files.files())
        return hashlib.sha256(repr(listed).encode()).hexdigest()

    def _file_set(self, dataset: DatasetConfig, settings: Settings) -> FileSet:
        return open_file_set(dataset, settings, "parquet", self.params.storage_options)

    def _check(self, listed: list[DataFile], files: FileSet, dataset: DatasetConfig) -> None:
        """Read the files' footers and refuse what is not complete, lacks a column or has it in another type."""
        kinds: dict[str, tuple[str, str, str]] = {}
        for file in listed:
            with self._opened(file, files, dataset) as opened:
                schema = opened.schema_arrow
            partitions = _partitions(file)
            found = [*schema.names, *(name for name in partitions if name not in schema.names)]
            require_columns(found, dataset, f"Parquet file {file.path}")
            for name in source_columns(dataset):
                if name not in schema.names or (kind := _kind(schema.field(name).type)) is None:
                    continue
                first = kinds.setdefault(name, (kind, str(schema.field(name).type), file.path))
                if first[0] != kind:
                    raise DataError(
                        f"dataset {dataset.name!r}: column {name!r} is {first[1]} in {first[2]}, but "
                        f"{schema.field(name).type} in {file.path}; write the files with one schema"
                    )

    def _frames(self, file: DataFile, files: FileSet, dataset: DatasetConfig) -> Iterator[pd.DataFrame]:
        import pyarrow as pa

        partitions = _partitions(file)
        with self._opened(file, files, dataset) as opened:
            inside = [name for name in source_columns(dataset) if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(self.params.batch_rows, columns=inside):
                frame = arrow_frame(pa.Table.from_batches([batch]))
                for name in source_columns(dataset):
                    if name not in inside:
                        frame[name] = partitions[name]
                yield frame[list(source_columns(dataset))]
        if not files.is_unchanged(file):
            raise DataError(
                f"dataset {dataset.name!r}: {file.path} was written again while it was read; try again when it is "
                "complete, and let its writer rename finished files into place"
            )

    @contextmanager
    def _opened(self, file: DataFile, files: FileSet, dataset: DatasetConfig) -> Iterator[pq.ParquetFile]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # As nanoseconds, the times of Spark's older files (INT96) wrap around before 1678 and after 2261.
            with files.opened(file) as place, pq.ParquetFile(place, coerce_int96_timestamp_unit="us") as opened:
                yield opened
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(
                f"dataset {dataset.name!r}: {file.path} ({file.size} bytes) is not a readable Parquet file: {error}. "
                "Write it again, wait until its writer has finished, or let source.uri end with the suffix of what the "
                "file is"
            ) from error


def _known_files(position: Position | None, dataset: DatasetConfig) -> dict[str, Any]:
    if position is None:
        return {}
    if not isinstance(position.get("files"), dict):
        raise DataError(
            f"dataset {dataset.name!r}: the stored position {position} does not list files; read the dataset in full"
        )
    return dict(position["files"])


def _partitions(file: DataFile) -> dict[str, str | None]:
    """Return the columns that the folders of a path stand for, as Hive writes them: `year=2024/month=7/`."""
    found = (part.partition("=") for part in file.name.split("/")[:-1] if "=" in part)
    return {unquote(key): None if value == NULL_PARTITION else unquote(value) for key, _, value in found}


def _kind(column_type: pa.DataType) -> str | None:
    """Return what a column holds, whatever its width or unit; `None` if it holds nothing but missing values."""
    import pyarrow.types as types

    if types.is_null(column_type):
        return None
    if types.is_dictionary(column_type):
        return _kind(column_type.value_type)
    if types.is_floating(column_type) or types.is_integer(column_type) or types.is_decimal(column_type):
        return "number"
    if types.is_string(column_type) or types.is_large_string(column_type):
        return "text"
    return "time" if types.is_timestamp(column_type) or types.is_date(column_type) else str(column_type)
