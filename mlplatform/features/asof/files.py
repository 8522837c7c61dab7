"""Where the Parquet files of a Feast `FileSource` are: on disk, or under any address that fsspec has a driver for.

A source is one file or a folder of files. A folder is listed once per query and its link, if it is one, is followed
before that, so a query reads one state of it even while the link moves on.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa
    from feast.infra.offline_stores.file_source import FileSource

SUFFIX = ".parquet"
INT64 = range(-(2**63), 2**63)
# The name that Hive and its successors give to the folder of a missing value.
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Place:
    """A file or folder.

    Attributes:
        path: its path in its file system, with links followed.
        filesystem: an fsspec file system; `None` for the local disk. Left out of `repr`, for it may hold credentials.
    """

    path: str
    filesystem: Any = field(default=None, repr=False)

    @property
    def exists(self) -> bool:
        """Whether anything is there."""
        return Path(self.path).exists() if self.filesystem is None else bool(self.filesystem.exists(self.path))

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder; object stores have one where they have objects below the name."""
        return Path(self.path).is_dir() if self.filesystem is None else bool(self.filesystem.isdir(self.path))

    def files(self) -> tuple[str, ...]:
        """Return the paths of its Parquet files in the order of their names.

        As for Feast and Spark, names that begin with a dot or an underscore are not data.

        Raises:
            FileNotFoundError: if there are none.
        """
        if not self.exists:
            raise FileNotFoundError(f"there is no Parquet file or folder {self.path}")
        if not self.is_folder:
            return (self.path,)
        found = sorted(path for path in self._below() if path.endswith(SUFFIX) and not _is_hidden(self.inside(path)))
        if not found:
            raise FileNotFoundError(f"the folder {self.path} holds no {SUFFIX} file")
        return tuple(found)

    def inside(self, path: str) -> PurePosixPath:
        """Return the path of one of its files relative to it."""
        return PurePosixPath(path).relative_to(self.path)

    def child(self, name: str) -> Place:
        """Return a place below it."""
        return Place(f"{self.path.rstrip('/')}/{name}", self.filesystem)

    def address(self, path: str) -> str:
        """Return what DuckDB opens one of its files by."""
        return path if self.filesystem is None else str(self.filesystem.unstrip_protocol(path))

    def schema(self, paths: tuple[str, ...] | None = None) -> pa.Schema:
        """Return the columns of its first file, followed by those that stand in its paths; `paths`: its files."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        paths = paths or self.files()
        try:
            schema = pq.read_schema(paths[0], filesystem=self.filesystem)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{paths[0]} is not a readable Parquet file: {error}") from error
        for name, kind in partition_columns(map(self.inside, paths)):
            schema = schema.append(pa.field(name, pa.int64() if kind == "BIGINT" else pa.string()))
        return schema

    @contextlib.contextmanager
    def written(self) -> Iterator[Path]:
        """Yield a local path; what was written there becomes the content of this file, whole or not at all."""
        if self.filesystem is None:
            with atomic_file(Path(self.path)) as temporary:
                yield temporary
            return
        # An object store shows an upload once it is complete.
        with tempfile.TemporaryDirectory(prefix="asof-") as folder:
            temporary = Path(folder) / "upload"
            yield temporary
            self.filesystem.put_file(str(temporary), self.path)

    def _below(self) -> Iterable[str]:
        if self.filesystem is None:
            return (str(path) for path in Path(self.path).rglob(f"*{SUFFIX}") if path.is_file())
        found: list[str] = self.filesystem.find(self.path)
        return found


@dataclass(frozen=True)
class Files:
    """The files of a source at one moment.

    Attributes:
        addresses: what DuckDB opens them by.
        partitions: the columns that stand in their paths, each with its SQL type.
        schema: all columns.
    """

    addresses: tuple[str, ...]
    partitions: tuple[tuple[str, str], ...]
    schema: pa.Schema


class Listing:
    """The files of the sources of one query. Each is listed once, so that all its uses read the same state."""

    def __init__(self, repo_path: Path | str | None) -> None:
        self._repo_path = repo_path
        self._listed: dict[tuple[str, str, str], Files] = {}
        self._filesystems: dict[str, Any] = {}

    @property
    def filesystems(self) -> tuple[Any, ...]:
        """The file systems, other than the local disk, of the sources so far."""
        return tuple(self._filesystems.values())

    def files(self, source: FileSource) -> Files:
        """List a source.

        Raises:
            FileNotFoundError: if it has no Parquet file.
            ValueError: if its address cannot be opened, or another source has other credentials for such an address.
        """
        key = (source.path, source.s3_endpoint_override or "", str(source.connection_ref))
        if key not in self._listed:
            self._listed[key] = self._list(source_place(source, self._repo_path))
        return self._listed[key]

    def _list(self, place: Place) -> Files:
        paths = place.files()
        if place.filesystem is not None:
            address = place.address(paths[0])
            protocol = address.partition("://")[0]
            if self._filesystems.setdefault(protocol, place.filesystem) != place.filesystem:
                raise ValueError(f"one query cannot read {protocol} addresses of different servers or credentials")
        partitions = partition_columns(map(place.inside, paths))
        return Files(tuple(map(place.address, paths)), partitions, place.schema(paths))


def source_place(source: FileSource, repo_path: Path | str | None) -> Place:
    """Return where a source is; a relative path starts at the folder of `feature_store.yaml`.

    Raises:
        ValueError: if there is no fsspec driver for the address, or the driver lacks a package.
    """
    credentials: Mapping[str, str] = source.resolve_credentials() or {}
    return place(source.path, repo_path, endpoint=source.s3_endpoint_override, credentials=credentials)


def place(
    uri: str, repo_path: Path | str | None, *, endpoint: str | None = None, credentials: Mapping[str, str] | None = None
) -> Place:
    """Return where a path or an address is.

    Parameters:
        uri: a path, or an address such as `s3://bucket/folder`.
        repo_path: where a relative path starts.
        endpoint: address of an S3-compatible server, for `s3` only.
        credentials: the `AWS_*` values that Feast resolved for `s3`; otherwise the driver finds its own.

    Raises:
        ValueError: if there is no fsspec driver for the address, or the driver lacks a package.
    """
    protocol, separator, rest = uri.partition("://")
    if not separator:
        return Place(str((Path(repo_path or ".") / uri).resolve()))
    if protocol in ("file", "local"):
        return Place(str(Path(rest).resolve()))
    import fsspec

    options = _s3_options(endpoint, credentials or {}) if protocol in ("s3", "s3a") else {}
    try:
        filesystem, path = fsspec.core.url_to_fs(uri, **options)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{uri} cannot be opened: {error}") from error
    return Place(path.rstrip("/"), filesystem)


def partition_columns(paths: Iterable[PurePosixPath]) -> tuple[tuple[str, str], ...]:
    """Return the columns that stand in paths as `column=value`, each with its SQL type.

    Like in Feast's own stores, a column is a whole number if all its values are, and text otherwise; text also where
    numbers would make one value of two, such as `007` and `7`.
    """
    values: dict[str, set[str]] = {}
    for path in paths:
        for name, separator, value in (part.partition("=") for part in path.parts[:-1]):
            if separator:
                values.setdefault(unquote(name), set()).add(unquote(value))
    return tuple((name, "BIGINT" if _are_whole(found - {HIVE_NULL}) else "VARCHAR") for name, found in values.items())


def _are_whole(values: set[str]) -> bool:
    if not values or not all(value.removeprefix("-").isdecimal() for value in values):
        return False
    numbers = {int(value) for value in values}
    return len(numbers) == len(values) and all(number in INT64 for number in numbers)


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith((".", "_")) and "=" not in part for part in path.parts)


def _s3_options(endpoint: str | None, credentials: Mapping[str, str]) -> dict[str, Any]:
    client = {"endpoint_url": endpoint, "region_name": credentials.get("AWS_DEFAULT_REGION")}
    options = {
        "key": credentials.get("AWS_ACCESS_KEY_ID"),
        "secret": credentials.get("AWS_SECRET_ACCESS_KEY"),
        "token": credentials.get("AWS_SESSION_TOKEN"),
        "client_kwargs": {name: value for name, value in client.items() if value},
    }
    return {name: value for name, value in options.items() if value}
