"""A look at a table in files: how it is written, and what its columns seem to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlplatform.api.proposal.names import clean_names
from mlplatform.api.proposal.times import Times, are_times, read_numbers, read_times
from mlplatform.config import source_scheme
from mlplatform.data import DataError
from mlplatform.data.sources import NUMBER_NULLS, FileTable, number_pattern, open_table, written_numbers
from mlplatform.plugins import SOURCES

if TYPE_CHECKING:
    import pandas as pd

# So many rows are looked at; more would change nothing but the time it takes.
ROWS = 200_000
FEW_CATEGORIES = 50
# Words that some write for a missing number, and that the source has to be told of.
RARE_NULLS = ("-", "--", "?", ".", "n.a.", "k.A.", "\\N", "missing", "unknown")
# What stands before the decimals and between groups of three digits; of equals the first is meant.
FORMS = ((".", None), (",", None), (".", ","), (",", "."), (".", " "), (",", " "), (".", "'"), (",", "'"))
FORM_ROWS = 1_000
ENOUGH = 0.95
# Numbers with a unit, a currency, or in the brackets of an accountant.
SIGNED = r"\(?[-+]?\s?[$€£¥]?\s?[-+]?\d[\d.,' ]*\s?(?:[%$€£¥]|[A-Z]{3})?\)?"

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
    """A table in files as it seems.

    Attributes:
        uris: what the configuration names to read it.
        options: of the source, without the format of the times.
        rename: names in the file that a dataset cannot well have, and what they are here.
        cells: all cells as text, missing ones as None.
        times: of each column of times.
        is_cut: whether there are more rows than were looked at.
        is_ambiguous: whether a comma could as well stand between thousands as before decimals.
        left_out: columns that are not there in every file, or there twice, or that are only the rows' numbers.
    """

    paths: tuple[Path, ...]
    uris: tuple[str, ...]
    options: dict[str, Any]
    rename: dict[str, str]
    columns: tuple[Column, ...]
    cells: pd.DataFrame
    times: dict[str, Times] = field(default_factory=dict)
    is_cut: bool = False
    is_ambiguous: bool = False
    left_out: tuple[str, ...] = ()

    def named(self, name: str) -> Column:
        """Return the column that is called so, here or in the file.

        Raises:
            DataError: if there is none.
        """
        for column in self.columns:
            if column.name in (name, self.rename.get(name)):
                return column
        if name in self.left_out:
            raise DataError(f"{self.where} has the column {name!r} more than once, or not in every file; rename one")
        raise DataError(
            f"{self.where} has no column {name!r}; it has {', '.join(column.name for column in self.columns)}"
        )

    def unread(self, name: str) -> tuple[int, str] | None:
        """Return how many cells of a column of times hold none, and one of them; `None` where all hold one."""
        cells = self.cells[name].dropna()
        unread = cells[self.times[name].values[cells.index].isna()]
        return (len(unread), str(unread.iloc[0])) if len(unread) else None

    def signed(self) -> Iterator[str]:
        """Say which columns are text because of a sign beside their numbers, which no source takes off."""
        for column in self.columns:
            cells = self.cells[column.name].dropna()
            if column.kind == "text" and cells.str.strip().str.fullmatch(SIGNED).mean() >= ENOUGH:
                shown = cells.iloc[0]
                yield f"{column.name!r} is text such as {shown!r}: write its numbers without the sign to have them"

    def with_times(self, name: str, times: Times) -> Look:
        """Return the table with a column of numbers read as times."""
        columns = tuple(
            Column(name, "time", column.missing, column.distinct) if column.name == name else column
            for column in self.columns
        )
        return replace(self, columns=columns, times={**self.times, name: times})

    @property
    def where(self) -> str:
        """The files, for people."""
        return ", ".join(map(str, self.paths[:3])) + (f" and {len(self.paths) - 3} more" if len(self.paths) > 3 else "")


def look_at(paths: Sequence[Path], uris: Sequence[str]) -> Look:
    """Look at a table in files of one kind.

    Parameters:
        uris: what the configuration names to read them.

    Raises:
        DataError: if a file is not there, or is no table that is read whole.
    """
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None or not paths:
        raise DataError(f"{missing or 'nothing'} is not a file; name a CSV, JSON lines or Excel file")
    table, uris = _table(paths[0], uris)
    cells, left_out = _cells(paths, table)
    if not len(cells):
        raise DataError(f"{paths[0]} has a header and no rows")
    is_cut, cells = len(cells) > ROWS, cells.iloc[:ROWS].reset_index(drop=True)
    rename = clean_names(list(cells.columns))
    cells = cells.rename(columns=rename).replace("", None)
    times = {str(name): found for name in cells if (found := read_times(cells[name])) is not None}
    if not times:
        # Beside written times, numbers are more likely to be measured.
        numbers = {str(name): found for name in cells if (found := read_numbers(cells[name])) is not None}
        times = {name: found for name, found in numbers.items() if are_times(name, found)}
    others = cells[[name for name in cells if name not in times]]
    (decimal, thousands), is_ambiguous = _form(others, table)
    nulls: set[str] = set()
    columns = tuple(_column(str(name), cells[name], decimal, thousands, nulls, name in times) for name in cells)
    written = {"decimal": decimal, "thousands": thousands, "nulls": sorted(nulls)}
    usual = table.Params().model_dump()
    said = table.params.model_dump() | {key: value for key, value in written.items() if value}
    options = {key: value for key, value in said.items() if value != usual[key]}
    return Look(
        tuple(paths), tuple(uris), options, rename, columns, cells, times, is_cut, is_ambiguous, tuple(left_out)
    )


def _table(path: Path, uris: Sequence[str]) -> tuple[FileTable[Any], Sequence[str]]:
    """Return what reads the first of the files, and URIs that say so."""
    if source_scheme(uris[0]) not in SOURCES.names():
        uris = [f"csv://{uri}" for uri in uris]
    table = open_table(uris[0], path)
    if table is None:
        raise DataError(
            f"{path} is read by the source {source_scheme(uris[0])!r}; only CSV, JSON lines and Excel files "
            "are looked at. Write its configuration by hand"
        )
    return table, uris


def _cells(paths: Sequence[Path], table: FileTable[Any]) -> tuple[pd.DataFrame, list[str]]:
    """Return the cells of the columns that all files have once, and which other columns there are."""
    import pandas as pd

    parts: list[pd.DataFrame] = []
    for path in paths:
        if sum(map(len, parts)) <= ROWS:
            parts.append(table.cells(path, ROWS + 1))
    names = [[str(name) for name in part.columns] for part in parts]
    counts = Counter(name for each in names for name in each)
    # The rows' numbers, as pandas writes them beside a frame, have no name.
    common = [name for name in names[0] if counts[name] == len(parts) and not name.startswith("Unnamed: ")]
    common = [name for name in common if all(each.count(name) == 1 for each in names)]
    left_out = [name for name in counts if name not in common]
    return pd.concat([part[common] for part in parts], ignore_index=True), left_out


def _form(cells: pd.DataFrame, table: FileTable[Any]) -> tuple[tuple[str, str | None], bool]:
    """Return how most numbers are written, and whether another way would read as many of them."""
    sample = cells.head(FORM_ROWS)
    texts = [cell.strip() for name in sample for cell in sample[name].dropna() if any(map(str.isdigit, cell))]
    delimiter = getattr(table.params, "delimiter", None)
    patterns = {form: number_pattern(*form) for form in FORMS if form[0] != delimiter}
    counts = {form: sum(map(bool, map(pattern.fullmatch, texts))) for form, pattern in patterns.items()}
    best = max(counts, key=lambda form: counts[form])
    other = (".", ",") if best == (",", None) else (",", ".")
    is_ambiguous = best[1] is None and best != (".", None) and counts.get(other) == counts[best]
    return best, is_ambiguous


def _column(name: str, cells: pd.Series, decimal: str, thousands: str | None, nulls: set[str], is_time: bool) -> Column:
    """Return what a column seems to be; words for a missing number that the source has to be told of go to `nulls`."""
    import pandas as pd

    present = cells.dropna()
    if is_time:
        return Column(name, "time", float(cells.isna().mean()), int(present.nunique()))
    said = present[~present.isin([*NUMBER_NULLS, *RARE_NULLS])]
    if said.empty:
        return Column(name, "empty", 1.0, int(present.nunique()))
    numbers = pd.to_numeric(written_numbers(said, decimal, thousands).astype(object), errors="coerce")
    # A leading zero is a sign of a name: a number would lose it.
    is_name = said.str.fullmatch(r"0\d+").any()
    if numbers.notna().mean() < ENOUGH or is_name:
        return Column(name, "text", float(cells.isna().mean()), int(present.nunique()))
    nulls.update(word for word in RARE_NULLS if (present == word).any())
    whole = bool((numbers.dropna() % 1 == 0).all())
    missing = 1 - len(said) / len(cells)
    return Column(name, "number", missing, int(said.nunique()), float(numbers.min()), float(numbers.max()), whole)
