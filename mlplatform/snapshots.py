"""Tables in time partitions: a folder of Parquet files, one per period, that changes from one snapshot to the next.

A table is a link to a snapshot folder. An update begins with hard links to all files of the current snapshot, replaces
the files it changes and swings the link, so it costs what it changes and not what is stored. Rows, bookkeeping and
whatever else lies in the folder change together: a reader finds the snapshot before or the one after, and a process
that is killed leaves the one before. Replaced snapshots stay a while for readers that have one open.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlplatform.config import Period
from mlplatform.locks import FileLock
from mlplatform.storage import atomic_folder

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_FOLDER = "rows"
STATE_FILE = "state.json"
SUFFIX = ".parquet"
KEEP_PREVIOUS_S = 600.0
ROW_GROUP_ROWS = 131_072

Times = npt.NDArray[np.datetime64]
_UNITS: dict[Period, str] = {"day": "D", "month": "M", "year": "Y"}


@dataclass(frozen=True)
class Snapshot:
    """One state of a table.

    Attributes:
        folder: the snapshot's own folder, not the link to it.
        state: what the writer of the snapshot noted about it.
    """

    folder: Path
    state: dict[str, Any]

    @property
    def rows_folder(self) -> Path:
        """The folder of the periods' files."""
        return self.folder / ROWS_FOLDER

    @property
    def periods(self) -> tuple[str, ...]:
        """Names of the periods that have rows, in time order."""
        return tuple(sorted(path.name.removesuffix(SUFFIX) for path in self.rows_folder.glob(f"*{SUFFIX}")))

    def path(self, period: str) -> Path:
        """Return the file of a period."""
        return self.rows_folder / f"{period}{SUFFIX}"


class Update:
    """A snapshot in the making: the files of the one before, to be replaced one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._next = Snapshot(folder, {})

    def path(self, period: str) -> Path:
        """Return the file of a period."""
        return self._next.path(period)

    def write(self, period: str, table: pa.Table) -> Path:
        """Replace the rows of a period and return their file; without rows, the file goes."""
        path = self.path(period)
        if table.num_rows:
            self.write_file(path.relative_to(self.folder), table)
        else:
            self.remove(period)
        return path

    def remove(self, period: str) -> None:
        """Leave the rows of a period out."""
        self.path(period).unlink(missing_ok=True)

    def write_file(self, name: str | Path, table: pa.Table) -> Path:
        """Write a Parquet file beside or among the rows and return its path."""
        import pyarrow.parquet as pq

        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name may be a hard link: writing to the file itself would change the snapshot before as well.
        path.unlink(missing_ok=True)
        pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS)
        return path

    def remove_file(self, name: str | Path) -> None:
        """Leave a file of the snapshot before out, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def write_state(self, state: dict[str, Any]) -> None:
        """Note what belongs to this snapshot, as JSON."""
        path = self.folder / STATE_FILE
        path.unlink(missing_ok=True)
        path.write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")


def open_snapshot(link: Path) -> Snapshot | None:
    """Return the current snapshot of a table, or `None` if there is none."""
    folder = link.resolve()
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Snapshot(folder, state)


@contextlib.contextmanager
def table_lock(link: Path) -> Iterator[None]:
    """Hold the right to update a table, between threads and processes."""
    with FileLock(link.parent / f"{link.name}.lock"):
        yield


@contextlib.contextmanager
def update_table(link: Path, base: Snapshot | None) -> Iterator[Update]:
    """Yield an update that starts from `base` (`None`: from nothing); the table changes when the block ends well.

    The caller holds `table_lock`.
    """
    with atomic_folder(link, keep_previous_s=KEEP_PREVIOUS_S) as folder:
        if base is not None:
            _link_files(base.folder, folder)
        (folder / ROWS_FOLDER).mkdir(exist_ok=True)
        yield Update(folder)


def split_periods(times: Times, period: Period) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Yield every period that times fall into, in time order, with the positions of its times in their order."""
    if not len(times):
        return
    numbers = times.astype(f"datetime64[{_UNITS[period]}]").astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=numbers[order[0]] - 1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield _name(numbers[order[start]], period), order[start:end]


def period_bounds(name: str) -> tuple[int, int]:
    """Return the first moment of a period and of the one after it, in nanoseconds since 1970 UTC."""
    start = np.datetime64(name)  # a name has the resolution of its period
    return _nanoseconds(start), _nanoseconds(start + 1)


def periods_between(first_ns: int, last_ns: int, period: Period) -> list[str]:
    """Return the names of all periods from the one of `first_ns` to the one of `last_ns`."""
    unit = f"datetime64[{_UNITS[period]}]"
    first, last = (int(np.datetime64(moment, "ns").astype(unit).astype(np.int64)) for moment in (first_ns, last_ns))
    return [_name(number, period) for number in range(first, last + 1)]


def _name(number: int | np.int64, period: Period) -> str:
    return str(np.int64(number).astype(f"datetime64[{_UNITS[period]}]"))


def _nanoseconds(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[ns]").astype(np.int64))


def _link_files(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            name = target / path.relative_to(source)
            name.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, name)
