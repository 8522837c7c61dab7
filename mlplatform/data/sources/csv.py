"""CSV files: delimited text with a header line.

Spaces belong to the cell that they are in, as in every other source, unless the header has one after each delimiter:
then that is how the file is written. Numbers are parsed by column. A column with text in it comes back as text, cell by
cell as written, so that validation can quarantine the rows that are at fault and keep the others. Times, entities and
categories always come as written.
"""

from __future__ import annotations

import csv
import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from mlplatform.config import ColumnConfig, DatasetConfig, SourceConfig
from mlplatform.data.columns import LINE, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.compression import open_unpacked
from mlplatform.data.sources.file_tables import FileTable, column_names
from mlplatform.data.sources.text_files import MARKS, count_lines, guess_encoding, open_text
from mlplatform.data.sources.written_cells import (
    NUMBER_NULLS,
    WrittenParams,
    without_nulls,
    written_numbers,
    written_times,
)
from mlplatform.plugins import SOURCES

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

HEAD_BYTES = 65_536
SNIFFED_LINES = 50
DELIMITERS = ",;\t|"
SIGNATURES = {b"PAR1": "a Parquet file", b"%PDF": "a PDF", b"\xd0\xcf\x11\xe0": "an older Excel file"}
MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
WIDE_ENCODINGS = ("utf-16", "utf-32", "utf16", "utf32", "utf_16", "utf_32")


class CsvParams(WrittenParams):
    """How the file and its cells are written.

    Attributes:
        skip_initial_space: whether spaces after a delimiter are no part of the cell; by default as the header has it.
    """

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    skip_initial_space: bool | None = None

    @model_validator(mode="after")
    def _decimals_do_not_delimit(self) -> CsvParams:
        if self.delimiter == self.decimal:
            raise ValueError(f"delimiter and decimal must differ, but both are {self.decimal!r}")
        return self


@SOURCES.register("csv")
class CsvSource(FileTable[CsvParams]):
    """A delimited text file with a header line, or several."""

    Params = CsvParams
    kind = "CSV file"

    @classmethod
    def example(cls, folder: Path) -> DatasetConfig:
        """Three hours of a pump."""
        lines = ["time,flow,state", *(f"2024-01-01 0{hour}:00,{hour}.5,open" for hour in range(3))]
        (folder / "pump.csv").write_text("\n".join(lines))
        return DatasetConfig(
            name="pump",
            source=SourceConfig(uri="pump.csv"),
            time_column="time",
            frequency="1h",
            columns={"flow": ColumnConfig(), "state": ColumnConfig(type="category")},
        )

    @classmethod
    def guess(cls, path: Path) -> dict[str, Any]:
        """Return encoding and delimiter; see `FileTable.guess`."""
        _refuse_other_formats(path, str(path), "", "utf-16")
        encoding = guess_encoding(path, str(path))
        with open_text(path, encoding, str(path)) as text:
            lines = [line for line in itertools.islice(text, SNIFFED_LINES) if line.strip()]
        if any("\0" in line for line in lines):
            raise DataError(f"{path} is not a CSV file: it is binary")
        return {"encoding": encoding, "delimiter": _delimiter(lines)}

    def cells(self, path: Path, rows: int) -> pd.DataFrame:
        """Return the first rows as text; see `FileTable.cells`."""
        frame = self._parsed(path, str(path), None, {}, rows)
        # pandas numbers columns of one name.
        return frame.set_axis(self._header(path, str(path)), axis=1).fillna("")

    def columns(self, path: Path, dataset: DatasetConfig) -> list[str]:
        """Return the names in the header line; see `FileTable.columns`."""
        subject = f"dataset {dataset.name!r}"
        expected = f"Expected text with a header line that names {', '.join(source_columns(dataset))}. "
        _refuse_other_formats(path, subject, expected, self.params.encoding)
        return self._header(path, subject)

    def hint(self, columns: Sequence[str]) -> str:
        """Return which other delimiter the header seems to have."""
        line = self.params.delimiter.join(columns)
        other = max(DELIMITERS, key=line.count)
        if other == self.params.delimiter or line.count(other) <= line.count(self.params.delimiter):
            return ""
        return f"The header looks separated by {other!r}, not {self.params.delimiter!r}: set source.options.delimiter"

    def frames(self, path: Path, dataset: DatasetConfig) -> Iterator[pd.DataFrame]:
        """Yield the whole file; see `FileTable.frames`."""
        params, subject = self.params, f"dataset {dataset.name!r}"
        numbers, wanted = dataset.float_columns, source_columns(dataset)
        # With groups of digits, pandas would take any digits for a group.
        as_text = [name for name in wanted if name not in numbers or params.thousands is not None]
        usual = {name: NUMBER_NULLS if name in numbers else ("",) for name in wanted}
        nulls = {name: [*words, *params.nulls] for name, words in usual.items()}
        frame = self._parsed(path, subject, as_text, nulls)[list(wanted)]
        if params.decimal != "." or params.thousands is not None:
            for name in numbers:
                frame[name] = written_numbers(frame[name], params.decimal, params.thousands)
        if dataset.time_column is not None and params.time_format is not None:
            frame[dataset.time_column] = written_times(frame[dataset.time_column], params.time_format)
        for name, words in nulls.items():
            frame[name] = without_nulls(frame[name], tuple(words)) if name in numbers else _without_blanks(frame[name])
        frame[LINE] = self._lines(path, subject, len(frame))
        yield frame

    def _header(self, path: Path, subject: str, *, is_skipping: bool = True) -> list[str]:
        """Return the names of the columns; spaces before one are never a part of it, unless these are asked for."""
        try:
            with open_text(path, self.params.encoding, subject) as text:
                return column_names(next((line for line in self._rows(text, is_skipping=is_skipping) if line), []))
        except csv.Error as error:
            raise _unreadable(path, subject, error) from error

    def _rows(self, text: Any, *, is_skipping: bool) -> Any:
        return csv.reader(text, delimiter=self.params.delimiter, skipinitialspace=is_skipping)

    def _is_skipping(self, path: Path, subject: str) -> bool:
        """Return whether the spaces after a delimiter are no part of the cell."""
        if self.params.skip_initial_space is not None:
            return self.params.skip_initial_space
        _, *others = self._header(path, subject, is_skipping=False) or [""]
        return bool(others) and all(name.startswith(" ") for name in others)

    def _parsed(
        self,
        path: Path,
        subject: str,
        texts: Sequence[str] | None,
        nulls: dict[str, list[str]],
        rows: int | None = None,
    ) -> pd.DataFrame:
        """Return the cells, those of some columns (`None`: of all) as text."""
        import pandas as pd

        is_skipping = self._is_skipping(path, subject)
        # What the columns are called, by what pandas finds in the header.
        names: dict[str, str] = {}
        if not is_skipping:
            written, meant = self._header(path, subject, is_skipping=False), self._header(path, subject)
            names = {found: name for found, name in zip(written, meant, strict=False) if found != name}
        called = {name: found for found, name in names.items()}
        try:
            with warnings.catch_warnings(), open_text(path, self.params.encoding, subject) as text:
                # Only a warning in pandas: lines longer than the header, whose last fields it would drop.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                # All columns are read, because with `usecols` pandas no longer notices lines that are too long.
                frame: pd.DataFrame = pd.read_csv(
                    text,
                    sep=self.params.delimiter,
                    decimal=self.params.decimal,
                    skipinitialspace=is_skipping,
                    index_col=False,
                    dtype=object if texts is None else {called.get(name, name): object for name in texts},
                    keep_default_na=False,
                    na_values={called.get(name, name): words for name, words in nulls.items()},
                    low_memory=False,
                    nrows=rows,
                )
        except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
            raise _unreadable(path, subject, error) from error
        return frame.rename(columns=names)

    def _lines(self, path: Path, subject: str, rows: int) -> npt.NDArray[np.int64]:
        """Return in which line each row begins."""
        with open_text(path, self.params.encoding, subject) as text:
            if count_lines(text) == rows + 1:
                return np.arange(2, rows + 2)
        # Cells of several lines, or lines with nothing in them.
        is_skipping = self._is_skipping(path, subject)
        begins, line = [], 0
        with open_text(path, self.params.encoding, subject) as text:
            reader = self._rows(text, is_skipping=is_skipping)
            for cells in reader:
                if len(cells) > 1 or (cells and cells[0].strip()):
                    begins.append(line + 1)
                line = reader.line_num
        return np.array(begins[1 : rows + 1] if len(begins) == rows + 1 else [0] * rows, dtype=np.int64)


def _without_blanks(cells: pd.Series) -> pd.Series:
    """Return text with nothing in the place of cells that have only spaces."""
    import pandas as pd

    return cells.mask(cells.str.isspace().eq(True), None) if pd.api.types.is_object_dtype(cells) else cells


def _delimiter(lines: Sequence[str]) -> str:
    try:
        return csv.Sniffer().sniff("\n".join(lines), delimiters=DELIMITERS).delimiter
    except csv.Error:
        return max(DELIMITERS, key=lines[0].count) if lines else ","


def _refuse_other_formats(path: Path, subject: str, expected: str, encoding: str) -> None:
    with open_unpacked(path, subject) as file:
        head = file.read(HEAD_BYTES)
    found = next((name for signature, name in SIGNATURES.items() if head.startswith(signature)), None)
    text = head.removeprefix(b"\xef\xbb\xbf")
    is_wide = encoding.lower().startswith(WIDE_ENCODINGS) or head.startswith(tuple(MARKS)[1:])
    if not text.strip():
        found = "empty"
    elif text.lstrip().lower().startswith(MARKUP):
        found = "an HTML or XML page"
    elif found is None and b"\0" in head and not is_wide:
        found = "binary"
    if found is not None:
        raise DataError(
            f"{subject}: {path} is not a CSV file: it is {found} ({path.stat().st_size} bytes). {expected}"
            "Export or download the file again"
        )


def _unreadable(path: Path, subject: str, error: Exception) -> DataError:
    return DataError(
        f"{subject}: {path} is not a readable CSV file: a line does not have as many fields as the header "
        f"({' '.join(str(error).split())}); correct the line, or check source.options.delimiter and decimal"
    )
