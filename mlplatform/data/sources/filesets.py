"""Sets of data files behind one URI: a file, a folder or a glob, on the local disk or wherever fsspec reaches."""

from __future__ import annotations

import contextlib
import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from mlplatform.config import DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.sources.files import WILDCARDS, local_places, locate_file
from mlplatform.settings import Settings

# What file systems call the time of a file's last change, and what they have instead of it.
CHANGED_KEYS = ("mtime", "LastModified", "last_modified", "updated", "created")
VERSION_KEYS = ("ETag", "etag", "md5Hash", "content_md5", *CHANGED_KEYS)


@dataclass(frozen=True)
class DataFile:
    """One file as it was when it was listed.

    Attributes:
        name: path below the folder, parts separated by slashes.
        path: what opens it.
        size: bytes.
        version: changes when the file is written again; for local files the time of the last change in ns since 1970.
        changed: orders files by their last change.
    """

    name: str
    path: str
    size: int
    version: int | str
    changed: int | str


class FileSet(ABC):
    """The files behind a dataset's URI.

    Attributes:
        is_many: whether the URI names a folder or a glob rather than one file.
    """

    is_many: bool

    @abstractmethod
    def files(self) -> list[DataFile]:
        """Return the files there are now, in the order in which they were last changed.

        Raises:
            DataError: if there are none.
        """

    @abstractmethod
    def opened(self, file: DataFile) -> contextlib.AbstractContextManager[Any]:
        """Open a file for reading as pyarrow takes it: as a path or a binary file object."""

    @abstractmethod
    def is_unchanged(self, file: DataFile) -> bool:
        """Return whether the file is still the one that was listed."""


def open_file_set(dataset: DatasetConfig, settings: Settings, suffix: str, storage_options: dict[str, Any]) -> FileSet:
    """Return the files that `source.uri` names: a path, `<suffix>://` and a folder, or an address that fsspec knows.

    Parameters:
        suffix: file name ending, without a dot, that a file in a folder must have.
        storage_options: for fsspec.

    Raises:
        DataError: if the URI's protocol is not installed, or a digest is set for more than one file.
    """
    scheme, separator, rest = dataset.source.uri.partition("://")
    if separator and scheme != suffix:
        found: FileSet = _RemoteFiles(dataset, suffix, storage_options)
    else:
        found = _LocalFiles(dataset, settings, suffix, rest if separator else scheme)
    if found.is_many and dataset.source.sha256 is not None:
        raise DataError(
            f"dataset {dataset.name!r}: source.sha256 is the digest of one file, but {dataset.source.uri!r} names a "
            "folder; remove it"
        )
    return found


class _LocalFiles(FileSet):
    def __init__(self, dataset: DatasetConfig, settings: Settings, suffix: str, path: str) -> None:
        self.dataset = dataset
        self.settings = settings
        self.suffix = suffix
        self.places = local_places(path, settings)
        first = next((place for place in self.places if place.exists()), None)
        is_folder = "://" in dataset.source.uri or (first is not None and first.is_dir())
        self.is_many = is_folder or bool(WILDCARDS & set(path))

    def files(self) -> list[DataFile]:
        if not self.is_many:
            return [_local_file(locate_file(self.dataset, self.settings), None)]
        for place in self.places:
            base, pattern = split_glob(place, f"**/*.{self.suffix}")
            listed = [_local_file(path, base) for path in base.glob(pattern) if path.is_file()]
            found = [file for file in listed if is_data(PurePosixPath(file.name))]
            if found:
                return sorted(found, key=lambda file: (file.changed, file.name))
        raise _nothing_found(self.dataset, self.suffix, ", ".join(str(place) for place in self.places))

    def opened(self, file: DataFile) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext(file.path)

    def is_unchanged(self, file: DataFile) -> bool:
        path = Path(file.path)
        return path.is_file() and (path.stat().st_size, path.stat().st_mtime_ns) == (file.size, file.version)


class _RemoteFiles(FileSet):
    def __init__(self, dataset: DatasetConfig, suffix: str, storage_options: dict[str, Any]) -> None:
        import fsspec

        self.dataset = dataset
        self.suffix = suffix
        with _remote_errors(dataset):
            self.system, self.root = fsspec.core.url_to_fs(dataset.source.uri, **storage_options)
            self.system.invalidate_cache()
            self.is_glob = bool(WILDCARDS & set(self.root))
            self.is_many = self.is_glob or self.system.isdir(self.root)

    def files(self) -> list[DataFile]:
        base, pattern = split_glob(PurePosixPath(self.root), f"**/*.{self.suffix}")
        with _remote_errors(self.dataset):
            if self.is_many:
                found = self.system.glob(str(base / pattern), detail=True)
            else:
                found = {self.root: self.system.info(self.root)}
        listed = [_remote_file(path, info, base) for path, info in found.items() if info["type"] == "file"]
        files = [file for file in listed if not self.is_many or is_data(PurePosixPath(file.name))]
        if not files:
            raise _nothing_found(self.dataset, self.suffix, self.dataset.source.uri)
        return sorted(files, key=lambda file: (file.changed, file.name))

    def opened(self, file: DataFile) -> contextlib.AbstractContextManager[Any]:
        return self._opened(file)

    @contextlib.contextmanager
    def _opened(self, file: DataFile) -> Iterator[Any]:
        with _remote_errors(self.dataset):
            stream = self.system.open(file.path, "rb")
        with stream:
            yield stream

    def is_unchanged(self, file: DataFile) -> bool:
        self.system.invalidate_cache()
        with _remote_errors(self.dataset):
            found = _remote_file(file.path, self.system.info(file.path), PurePosixPath(self.root))
        return (found.size, found.version) == (file.size, file.version)


def split_glob(path: Any, all_files: str = "**/*") -> tuple[Any, str]:
    """Return the folder above the first wildcard, and the rest as a pattern; without one, that of `all_files`."""
    parts = path.parts
    first = next((place for place, part in enumerate(parts) if WILDCARDS & set(part)), None)
    if first is None:
        return path, all_files
    return type(path)(*parts[:first]), "/".join(parts[first:])


def is_data(name: PurePath) -> bool:
    """Tell data from what writers leave beside it, by the path below a folder: temporary, hidden and metadata files."""
    return not any(part.startswith((".", "_")) for part in name.parts)


def _local_file(path: Path, base: Path | None) -> DataFile:
    found = path.stat()
    name = path.name if base is None else path.relative_to(base).as_posix()
    return DataFile(name, str(path), found.st_size, found.st_mtime_ns, found.st_mtime_ns)


def _remote_file(path: str, info: dict[str, Any], base: PurePosixPath) -> DataFile:
    inside = PurePosixPath(path)
    name = inside.relative_to(base).as_posix() if inside.is_relative_to(base) else path
    return DataFile(name, path, int(info["size"] or 0), _first(info, VERSION_KEYS), _first(info, CHANGED_KEYS))


def _first(info: dict[str, Any], keys: tuple[str, ...]) -> str:
    """Return the first value there is, a time in one form: a file system can list it in another than it shows it."""
    value = next((info[key] for key in keys if info.get(key) is not None), "")
    return str(value.timestamp()) if isinstance(value, dt.datetime) else str(value)


def _nothing_found(dataset: DatasetConfig, suffix: str, looked: str) -> DataError:
    return DataError(
        f"dataset {dataset.name!r}: {dataset.source.uri!r} has no file that ends with .{suffix}; looked in: {looked}. "
        "Put files there, or set MLPLATFORM_DATA_DIR to the folder that a relative path starts from"
    )


@contextlib.contextmanager
def _remote_errors(dataset: DatasetConfig) -> Iterator[None]:
    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"dataset {dataset.name!r}: {dataset.source.uri!r} cannot be read: {error}. Check the address and that "
            "fsspec's package for this protocol is installed"
        ) from error
