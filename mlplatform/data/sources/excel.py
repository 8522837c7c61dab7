"""Workbooks: one sheet with a header row, of Excel (`xlsx`, `xlsm`, `xlsb`, `xls`) or OpenDocument (`ods`).

A cell is what the workbook holds, not what it shows: a number with all its digits, a time, or text. A formula is its
last result, and an error such as #DIV/0! is a missing cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mlplatform.config import DatasetConfig
from mlplatform.data.columns import LINE, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.cells import cell_frame
from mlplatform.data.sources.file_tables import FileTable, column_names, text_frame
from mlplatform.data.sources.written_cells import WrittenParams, read_written
from mlplatform.plugins import SOURCES

if TYPE_CHECKING:
    import pandas as pd

INSTALL = "pip install 'mlplatform[excel]'"


class ExcelParams(WrittenParams):
    """Where in the workbook the table is, and how cells of text are written.

    Attributes:
        sheet: its name; needed where more than one sheet has cells.
        header_row: the row of the names, counted from 1 as the sheet shows it; by default the first that is not empty.
    """

    sheet: str | None = None
    header_row: int | None = Field(default=None, ge=1)


@SOURCES.register("xlsx")
@SOURCES.register("xlsm")
@SOURCES.register("xlsb")
@SOURCES.register("xls")
@SOURCES.register("ods")
class ExcelSource(FileTable[ExcelParams]):
    """One sheet of a workbook, or of several workbooks."""

    Params = ExcelParams
    kind = "workbook"

    @classmethod
    def guess(cls, path: Path) -> dict[str, Any]:
        """Return the first sheet with cells, if there are others; see `FileTable.guess`."""
        filled = list(_filled_sheets(path, str(path)))
        return {"sheet": filled[0]} if len(filled) > 1 else {}

    def cells(self, path: Path, rows: int) -> pd.DataFrame:
        """Return the first rows as text; see `FileTable.cells`."""
        names, table, _ = self._table(path, str(path))
        return text_frame(names, [dict(zip(names, row, strict=True)) for row in table[:rows]])

    def columns(self, path: Path, dataset: DatasetConfig) -> Sequence[str]:
        """Return the names in the header row; see `FileTable.columns`."""
        return self._table(path, f"dataset {dataset.name!r}")[0]

    def frames(self, path: Path, dataset: DatasetConfig) -> Iterator[pd.DataFrame]:
        """Yield the whole sheet; see `FileTable.frames`."""
        names, table, lines = self._table(path, f"dataset {dataset.name!r}")
        places = {name: names.index(name) for name in source_columns(dataset)}
        cells = {name: [_present(row[place]) for row in table] for name, place in places.items()}
        yield read_written(cell_frame(cells, dataset), dataset, self.params).assign(**{LINE: lines})

    def _table(self, path: Path, subject: str) -> tuple[list[str], list[list[Any]], list[int]]:
        """Return the names, the rows that are not empty, and where in the sheet these are."""
        filled = _filled_sheets(path, subject, self.params.sheet)
        if len(filled) != 1:
            what = "holds no cells" if not filled else f"has {len(filled)} sheets with cells: {', '.join(filled)}"
            raise DataError(f"{subject}: the workbook {path} {what}; name one of them in source.options.sheet")
        ((_, rows),) = filled.items()
        numbered = [(line, row) for line, row in enumerate(rows, start=1) if any(cell != "" for cell in row)]
        first = self.params.header_row or numbered[0][0]
        header = next((row for line, row in numbered if line == first), None)
        if header is None:
            raise DataError(f"{subject}: row {first} of {path} is empty; set source.options.header_row to another")
        names = column_names([_present(cell) for cell in header])
        table = [(line, row) for line, row in numbered if line > first]
        return names, [row for _, row in table], [line for line, _ in table]


def _filled_sheets(path: Path, subject: str, sheet: str | None = None) -> dict[str, list[list[Any]]]:
    """Return the cells of every sheet that has any, or of the one of a name."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook, SheetTypeEnum
    except ImportError as error:
        raise DataError(
            f"{subject}: reading {path} needs the package python-calamine; install it: {INSTALL}"
        ) from error
    try:
        with CalamineWorkbook.from_path(str(path)) as book:
            names = [each.name for each in book.sheets_metadata if each.typ == SheetTypeEnum.WorkSheet]
            if sheet is not None and sheet not in names:
                raise DataError(
                    f"{subject}: the workbook {path} has no sheet {sheet!r}; it has {', '.join(names)}. Correct "
                    "source.options.sheet"
                )
            chosen = names if sheet is None else [sheet]
            read = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in chosen}
    except CalamineError as error:
        raise DataError(
            f"{subject}: {path} ({path.stat().st_size} bytes) is not a readable workbook: {error}. Save it again "
            "without a password, or let source.uri say what the file is"
        ) from error
    return {name: rows for name, rows in read.items() if any(cell != "" for row in rows for cell in row)}


def _present(cell: Any) -> Any:
    return None if isinstance(cell, str) and cell == "" else cell
