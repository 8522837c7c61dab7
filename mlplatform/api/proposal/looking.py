"""A look at a CSV file: how it is written, and what its columns seem to be."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlplatform.api.proposal.times import NUMBER, Times, read_times
from mlplatform.data import DataError

if TYPE_CHECKING:
    import pandas as pd

SNIFFED_BYTES = 65_536
# So many rows are looked at; more would change nothing but the time it takes.
ROWS = 200_000
ENCODINGS = ("utf-8-sig", "utf-16", "cp1252")
FEW_CATEGORIES = 50
NULLS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "-", "?")

Kind = Literal["time", "number", "text", "empty"]


@dataclass(frozen=True)
class Column:
    """A column as it seems.

    Attributes:
        distinct: how many different values.
        is_whole: whether its numbers are whole.
    """

    name: str
    kind: Kind
    missing: float
    distinct: int
    lowest: float | None = None
    highest: float | None = None
    is_whole: bool = False


@dataclass(frozen=True)
class Look:
    """A file as it seems.

    Attributes:
        cells: all cells as text, missing ones as None.
        times: of each column of times.
        is_cut: whether the file has more rows than were looked at.
    """

    path: Path
    encoding: str
    delimiter: str
    decimal: str
    columns: tuple[Column, ...]
    cells: pd.DataFrame
    times: dict[str, Times] = field(default_factory=dict)
    is_cut: bool = False

    def named(self, name: str) -> Column:
        """Return the column that is called so.

        Raises:
            DataError: if there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise DataError(
            f"{self.path} has no column {name!r}; it has {', '.join(column.name for column in self.columns)}"
        )


def look_at(path: Path) -> Look:
    """Look at a delimited text file with a header line.

    Raises:
        DataError: if it is not there, or is no such file.
    """
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path} is not a file; name a CSV file")
    encoding, head = _decoded(path)
    if not head.strip() or "\0" in head:
        raise DataError(f"{path} is not a CSV file: it is {'binary' if head.strip() else 'empty'}")
    delimiter = _delimiter(head)
    try:
        cells = pd.read_csv(
            path, sep=delimiter, encoding=encoding, dtype=str, keep_default_na=False, na_values=list(NULLS),
            skipinitialspace=True, nrows=ROWS + 1, index_col=False,
        )  # fmt: skip
    except (pd.errors.ParserError, UnicodeError) as error:
        raise DataError(f"{path} is not a readable CSV file: {' '.join(str(error).split())}") from error
    if not len(cells):
        raise DataError(f"{path} has a header and no rows")
    is_cut, cells = len(cells) > ROWS, cells.iloc[:ROWS]
    decimal = _decimal(cells, delimiter)
    times = {str(name): found for name in cells if (found := read_times(cells[name])) is not None}
    columns = tuple(_column(str(name), cells[name], decimal, is_time=name in times) for name in cells)
    return Look(
        path, "utf-8" if encoding == "utf-8-sig" else encoding, delimiter, decimal, columns, cells, times, is_cut
    )


def _decoded(path: Path) -> tuple[str, str]:
    """Return the first encoding that reads the whole beginning, and what it reads there."""
    with path.open("rb") as file:
        head = file.read(SNIFFED_BYTES)
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ENCODINGS:
        if (encoding == "utf-16") != wide:
            continue
        try:
            # A cut may go through the middle of a character.
            return encoding, head[: len(head) - len(head) % 2].decode(encoding) if wide else _text(head, encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path} is not a CSV file: its text cannot be decoded as {', '.join(ENCODINGS)}")


def _text(head: bytes, encoding: str) -> str:
    whole = head if len(head) < SNIFFED_BYTES else head[: head.rfind(b"\n") + 1] or head
    return whole.decode(encoding)


def _delimiter(head: str) -> str:
    lines = [line for line in head.splitlines()[:50] if line.strip()]
    try:
        return csv.Sniffer().sniff("\n".join(lines), delimiters=",;\t|").delimiter
    except csv.Error:
        return max(",;\t|", key=lines[0].count) if lines else ","


def _decimal(cells: pd.DataFrame, delimiter: str) -> str:
    """Return what stands before the decimals: a comma only where it cannot be what separates columns."""
    if delimiter == ",":
        return "."
    sample = cells.head(1_000)
    texts: Sequence[str] = [cell for name in sample for cell in sample[name].dropna() if NUMBER.fullmatch(cell)]
    return "," if sum("," in text for text in texts) > sum("." in text for text in texts) else "."


def _column(name: str, cells: pd.Series, decimal: str, *, is_time: bool) -> Column:
    import pandas as pd

    present = cells.dropna()
    missing, distinct = float(cells.isna().mean()), int(present.nunique())
    if is_time:
        return Column(name, "time", missing, distinct)
    if present.empty:
        return Column(name, "empty", missing, distinct)
    numbers = pd.to_numeric(present.str.replace(decimal, ".", regex=False), errors="coerce")
    # A leading zero is a sign of a name: a number would lose it.
    is_name = present.str.fullmatch(r"0\d+").any()
    if numbers.notna().mean() < 0.95 or is_name:
        return Column(name, "text", missing, distinct)
    whole = bool((numbers.dropna() % 1 == 0).all())
    return Column(name, "number", missing, distinct, float(numbers.min()), float(numbers.max()), whole)
