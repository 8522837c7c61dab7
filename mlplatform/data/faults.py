"""The ledger of what is wrong with which row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


class Faults:
    """Collects reasons per row; a row with at least one reason is bad.

    Parameters:
        rows: number of rows of the source.
    """

    def __init__(self, rows: int) -> None:
        self.is_bad: Bool = np.zeros(rows, dtype=bool)
        self._entries: list[tuple[str, Int64, Sequence[str] | None]] = []

    def add(self, kind: str, is_faulty: Bool) -> None:
        """Note one kind of fault for the rows where the mask, of shape (rows,), is true."""
        self.add_rows(kind, np.flatnonzero(is_faulty))

    def add_rows(self, kind: str, rows: Int64, texts: Sequence[str] | None = None) -> None:
        """Note one kind of fault for rows by number, with a text for each row where it says more than the kind."""
        if len(rows):
            self.is_bad[rows] = True
            self._entries.append((kind, rows, texts))

    def having(self, kind: str) -> Bool:
        """Return the rows with a kind of fault, of shape (rows,)."""
        found: Bool = np.zeros(len(self.is_bad), dtype=bool)
        for noted, rows, _ in self._entries:
            if noted == kind:
                found[rows] = True
        return found

    def counts(self) -> dict[str, int]:
        """Return the number of rows per kind of fault, in the order they were noted. A row can count several times."""
        counts: dict[str, int] = {}
        for kind, rows, _ in self._entries:
            counts[kind] = counts.get(kind, 0) + len(rows)
        return counts

    def reasons(self, rows: Int64) -> list[str]:
        """Return the joined reasons of the given rows."""
        wanted = np.zeros(len(self.is_bad), dtype=bool)
        wanted[rows] = True
        collected: dict[int, list[str]] = {int(row): [] for row in rows}
        for kind, faulty, texts in self._entries:
            for position in np.flatnonzero(wanted[faulty]):
                collected[int(faulty[position])].append(kind if texts is None else texts[int(position)])
        return ["; ".join(parts) for parts in collected.values()]
