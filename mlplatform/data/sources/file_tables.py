"""Tables in files that are read whole: one file, a list or a pattern of several, each compressed or not.

Here: which files those are, that all of them have the columns, and where each row stands. Each kind of file says how
one is read. Files of which only what is new is read are in `filesets`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from mlplatform.config import DatasetConfig, source_scheme
from mlplatform.data.columns import FILE, require_columns, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.base import Source
from mlplatform.data.sources.files import WILDCARDS, local_places, locate_file
from mlplatform.data.sources.filesets import is_data, split_glob
from mlplatform.data.sources.written_cells import WrittenParams
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

P = TypeVar("P", bound=WrittenParams)


class FileTable(Source[P]):
    """A table in one file or several.

    Class attributes:
        kind: what people call such a file.
    """

    takes_lists = True
    kind: ClassVar[str]

    @classmethod
    def guess(cls, path: Path) -> dict[str, Any]:  # noqa: ARG003 (for subclasses)
        """Return the options with which a file can be read, without those that say what is in its cells.

        Raises:
            DataError: if it is no such file.
        """
        return {}

    @abstractmethod
    def cells(self, path: Path, rows: int) -> pd.DataFrame:
        """Return all columns of the first rows of a file, each cell as CSV would have it: text, empty where missing.

        Raises:
            DataError: if it is no such file.
        """

    @abstractmethod
    def columns(self, path: Path, dataset: DatasetConfig) -> Sequence[str]:
        """Return the names of a file's columns.

        Raises:
            DataError: if it is no such file.
        """

    @abstractmethod
    def frames(self, path: Path, dataset: DatasetConfig) -> Iterator[pd.DataFrame]:
        """Yield the dataset's columns of one file that has them, and the column `LINE`, whole or in parts.

        Raises:
            DataError: if the file cannot be read.
        """

    def hint(self, columns: Sequence[str]) -> str:  # noqa: ARG002 (for subclasses)
        """Return what could be wrong with a file that has other columns than it should."""
        return ""

    def read(self, dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
        """Read all files; see `Source.read`. The columns `FILE` and `LINE` say where each row stands."""
        import pandas as pd

        frames = list(self.read_batches(dataset, settings))
        if len(frames) == 1:
            return frames[0]
        return pd.concat(frames, ignore_index=True)

    def read_batches(self, dataset: DatasetConfig, settings: Settings) -> Iterator[pd.DataFrame]:
        """Read one file after the other, once all of them are known to have the columns; see `Source.read_batches`."""
        import pandas as pd

        paths = table_files(dataset, settings)
        self._check(paths, dataset)
        for path in paths:
            for frame in self.frames(path, dataset):
                frame[FILE] = pd.Categorical.from_codes([0] * len(frame), pd.Index([str(path)]))
                yield frame

    def fingerprint(self, dataset: DatasetConfig, settings: Settings) -> str:
        """Return the files' sizes and times of change, or the digest if that is set; see `Source.fingerprint`."""
        if dataset.source.sha256 is not None:
            return dataset.source.sha256  # no other content is ever read
        paths = table_files(dataset, settings)
        states = [f"{found.st_size} {found.st_mtime_ns}" for found in map(Path.stat, paths)]
        if len(paths) == 1:
            return states[0]
        listed = "\n".join(f"{path} {state}" for path, state in zip(paths, states, strict=True))
        return hashlib.sha256(listed.encode()).hexdigest()

    def _check(self, paths: Sequence[Path], dataset: DatasetConfig) -> None:
        lacking = {}
        for path in paths:
            found = self.columns(path, dataset)
            missing = [name for name in source_columns(dataset) if name not in found]
            if len(paths) == 1 or not missing:
                require_columns(found, dataset, f"{self.kind} {path}", self.hint(found))
            else:
                lacking[path] = missing
        if lacking:
            listed = "".join(f"\n  {path}: {', '.join(map(repr, names))}" for path, names in lacking.items())
            raise DataError(
                f"dataset {dataset.name!r}: {len(lacking)} of the {len(paths)} files of {dataset.source.uri!r} lack "
                f"columns of the dataset:{listed}\nFiles of one table have the same names for them. Write these files "
                "again, or leave them out of source.uri"
            )


def table_files(dataset: DatasetConfig, settings: Settings) -> list[Path]:
    """Return the files that `source.uri` names: in the order of a list, those of a pattern by name.

    Raises:
        DataError: if a file is not there, or a pattern fits none.
    """
    found = [path for uri in dataset.source.uris for path in _files(uri, dataset, settings)]
    twice = sorted({str(path) for path in found if found.count(path) > 1})
    if twice:
        raise DataError(f"dataset {dataset.name!r}: source.uri names {', '.join(twice)} more than once")
    return found


def _files(uri: str, dataset: DatasetConfig, settings: Settings) -> list[Path]:
    scheme, separator, path = uri.partition("://")
    local = path if separator and scheme in SOURCES.names() else uri
    if not WILDCARDS & set(local) or any(place.is_file() for place in local_places(local, settings)):
        source = dataset.source.model_copy(update={"uri": local})
        return [locate_file(dataset.model_copy(update={"source": source}), settings)]
    if dataset.source.sha256 is not None:
        raise DataError(
            f"dataset {dataset.name!r}: source.sha256 is the digest of one file, but {uri!r} is a pattern; remove it"
        )
    places = local_places(local, settings)
    for place in places:
        base, pattern = split_glob(place)
        files = sorted(path for path in base.glob(pattern) if path.is_file() and is_data(path.relative_to(base)))
        if files:
            return files
    looked = ", ".join(str(place) for place in places)
    raise DataError(
        f"dataset {dataset.name!r}: no file is called as {uri!r} says; looked for: {looked}. Put files there, or set "
        "MLPLATFORM_DATA_DIR to the folder that a relative path starts from"
    )


def open_table(uri: str, path: Path) -> FileTable[Any] | None:
    """Return what reads a file behind a URI, as far as its looks tell; `None` if it is no table that is read whole.

    Raises:
        DataError: if the file is not what the URI says.
    """
    scheme = source_scheme(uri)
    plugin = SOURCES.get(scheme) if scheme in SOURCES.names() else None
    if not (isinstance(plugin, type) and issubclass(plugin, FileTable)):
        return None
    return cast("FileTable[Any]", plugin(plugin.Params.model_validate(plugin.guess(path))))


def column_names(header: Sequence[Any]) -> list[str]:
    """Return the names in a header as text; a column without one is called as pandas would, by its place from 0."""
    names = [as_text(name) for name in header]
    return [name if name.strip() else f"Unnamed: {place}" for place, name in enumerate(names)]


def as_text(cell: Any) -> str:
    """Return a cell as CSV would have it, empty where missing."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 2**53 else repr(cell)
    if isinstance(cell, dt.datetime):
        return cell.isoformat(sep=" ")
    return cell.isoformat() if isinstance(cell, dt.date) else str(cell)


def text_frame(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a frame of text."""
    import pandas as pd

    return pd.DataFrame({name: [as_text(row.get(name)) for row in rows] for name in names}, dtype=object)
