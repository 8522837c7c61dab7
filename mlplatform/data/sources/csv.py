"""CSV files.

Numbers are parsed by column. A column with text in it comes back as text, cell by cell as written, so that validation
can quarantine the rows that are at fault and keep the others. Times, entities and categories always come as written.
"""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from mlplatform.config import ColumnConfig, DatasetConfig, Frozen, SourceConfig
from mlplatform.data.columns import require_columns, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.base import Source
from mlplatform.data.sources.files import file_fingerprint, locate_file
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

HEAD_BYTES = 65_536
NUMBER_NULLS = ["", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "NULL", "null", "None"]
SIGNATURES = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a ZIP or Excel file",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF",
}
MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
WIDE_ENCODINGS = ("utf-16", "utf-32", "utf16", "utf32")


class CsvParams(Frozen):
    """How the file is written. `time_format` is a strftime format; without it, times must be in ISO 8601."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    decimal: str = Field(default=".", min_length=1, max_length=1)
    encoding: str = "utf-8"
    time_format: str | None = None


@SOURCES.register("csv")
class CsvSource(Source[CsvParams]):
    """A delimited text file with a header line."""

    Params = CsvParams

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

    def read(self, dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
        """Read the file that `source.uri` names; see `Source.read`."""
        path = locate_file(dataset, settings)
        _refuse_other_formats(path, dataset, self.params.encoding)
        header = _header(path, dataset, self.params)
        require_columns(header, dataset, f"CSV file {path}", _delimiter_hint(header, self.params.delimiter))
        frame = _parse(path, dataset, self.params)[list(source_columns(dataset))]
        if self.params.decimal != ".":
            for name in dataset.float_columns:
                frame[name] = _with_decimal_points(frame[name], self.params.decimal)
        if dataset.time_column is not None and self.params.time_format is not None:
            frame[dataset.time_column] = _times(frame[dataset.time_column], self.params.time_format)
        return frame

    def fingerprint(self, dataset: DatasetConfig, settings: Settings) -> str:
        """Return the file's size and time of change, or its digest if that is set; see `Source.fingerprint`."""
        return file_fingerprint(dataset, settings)


def _refuse_other_formats(path: Path, dataset: DatasetConfig, encoding: str) -> None:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    found = next((name for signature, name in SIGNATURES.items() if head.startswith(signature)), None)
    if not head.removeprefix(b"\xef\xbb\xbf").strip():
        found = "empty"
    elif head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(MARKUP):
        found = "an HTML or XML page"
    elif found is None and b"\0" in head and not encoding.lower().startswith(WIDE_ENCODINGS):
        found = "binary"
    if found is not None:
        raise DataError(
            f"dataset {dataset.name!r}: {path} is not a CSV file: it is {found} ({path.stat().st_size} bytes). "
            f"Expected text with a header line that names {', '.join(source_columns(dataset))}. "
            "Export or download the file again"
        )


def _header(path: Path, dataset: DatasetConfig, params: CsvParams) -> list[str]:
    encoding = "utf-8-sig" if params.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else params.encoding
    try:
        with path.open(encoding=encoding, newline="") as file:
            lines = csv.reader(file, delimiter=params.delimiter, skipinitialspace=True)
            return next((line for line in lines if line), [])
    except (UnicodeError, LookupError, csv.Error) as error:
        raise _unreadable(path, dataset, error) from error


def _delimiter_hint(header: list[str], delimiter: str) -> str:
    line = delimiter.join(header)
    other = max(";\t|,", key=line.count)
    if other == delimiter or line.count(other) <= line.count(delimiter):
        return ""
    return f"The header looks separated by {other!r}, not {delimiter!r}: set source.options.delimiter"


def _parse(path: Path, dataset: DatasetConfig, params: CsvParams) -> pd.DataFrame:
    import pandas as pd

    nulls: dict[str, list[str]] = dict.fromkeys(dataset.float_columns, NUMBER_NULLS)
    as_text = [name for name in (dataset.time_column, dataset.entity_column, *dataset.category_columns) if name]
    nulls |= {name: [""] for name in as_text}
    try:
        with warnings.catch_warnings():
            # Only a warning in pandas: lines longer than the header, whose last fields it would drop.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # All columns are read, because with `usecols` pandas no longer notices lines that are too long.
            return pd.read_csv(
                path,
                sep=params.delimiter,
                decimal=params.decimal,
                encoding=params.encoding,
                skipinitialspace=True,
                index_col=False,
                dtype=dict.fromkeys(as_text, "object"),
                keep_default_na=False,
                na_values=nulls,
                low_memory=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, UnicodeError) as error:
        raise _unreadable(path, dataset, error) from error


def _unreadable(path: Path, dataset: DatasetConfig, error: Exception) -> DataError:
    if isinstance(error, (UnicodeError, LookupError)):
        reason, advice = f"its text cannot be decoded ({error})", "set source.options.encoding to the file's encoding"
    else:
        reason = f"a line does not have as many fields as the header ({' '.join(str(error).split())})"
        advice = "correct the line, or check source.options.delimiter and decimal"
    return DataError(f"dataset {dataset.name!r}: {path} is not a readable CSV file: {reason}; {advice}")


def _with_decimal_points(values: pd.Series, decimal: str) -> pd.Series:
    """Return the numbers of a column that came back as text, because one cell is none; that one stays as written."""
    import pandas as pd

    if not pd.api.types.is_object_dtype(values):
        return values
    written = values.astype("string").str.replace(decimal, ".", regex=False)
    parsed = pd.to_numeric(written, errors="coerce").astype(object)
    return parsed.where(parsed.notna(), values)


def _times(values: pd.Series, time_format: str) -> pd.Series:
    """Parse times by a format; what does not fit stays text, for validation to quarantine.

    A format without a zone gives times without one, which are in the dataset's; a `Z` at its end is UTC.
    """
    import pandas as pd

    has_zone = "%z" in time_format or "%Z" in time_format or time_format.endswith("Z")
    parsed = pd.to_datetime(values, format=time_format, utc=has_zone, errors="coerce")
    return parsed if parsed.notna().all() else parsed.astype(object).where(parsed.notna(), values)
