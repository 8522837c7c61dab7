"""Where rows of an ingest stand in their files, by their number in the source."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.data.columns import FILE, LINE

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Stretch:
    """Rows of one batch, all of one file; `lines` is `None` where each is one line after the other."""

    first_line: int
    file: str
    lines: Int64 | None


@dataclass
class Places:
    """Files and lines of the rows of several batches, for the few that turn out bad later."""

    _starts: list[int] = field(default_factory=list)
    _stretches: list[_Stretch] = field(default_factory=list)

    def add(self, frame: pd.DataFrame, first_row: int) -> None:
        """Note a batch of the source, whose first row has a number; one that is of no file is left out."""
        if FILE not in frame or LINE not in frame or frame.empty:
            return
        lines = frame[LINE].to_numpy(dtype=np.int64)
        is_even = bool((np.diff(lines) == 1).all())
        self._starts.append(first_row)
        self._stretches.append(_Stretch(int(lines[0]), str(frame[FILE].iloc[0]), None if is_even else lines))

    def named(self, rows: pd.DataFrame, numbers: Int64) -> pd.DataFrame:
        """Return rows, by their numbers, with the columns `FILE` and `LINE`, if the source has files."""
        if not self._starts:
            return rows
        found = [self._place(int(number)) for number in numbers]
        rows = rows.copy()
        rows[FILE], rows[LINE] = [file for file, _ in found], [line for _, line in found]
        return rows

    def _place(self, number: int) -> tuple[str, int]:
        at = bisect.bisect_right(self._starts, number) - 1
        stretch, offset = self._stretches[at], number - self._starts[at]
        return stretch.file, int(stretch.first_line + offset if stretch.lines is None else stretch.lines[offset])
