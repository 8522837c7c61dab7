"""Cells of text: what stands for a number, a time or nothing, alike in every kind of file.

Text that is none of it stays as it is written, for validation to quarantine.
"""

from __future__ import annotations

import re
from numbers import Integral
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from mlplatform.config import DatasetConfig, Frozen
from mlplatform.data.sources.cells import NoNumber

if TYPE_CHECKING:
    import pandas as pd

# What a missing number is written as; in other columns only nothing at all is missing, because NA may be a country.
NUMBER_NULLS = ("", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "NULL", "null", "None")
# What may stand for a separator that people type in another way.
ALIKE = {" ": " \u00a0\u202f\u2009", "'": "'\u2019"}


class WrittenParams(Frozen):
    """How cells of text are written.

    Attributes:
        decimal: what stands before the decimals.
        thousands: what stands between groups of three digits, if anything does.
        nulls: what stands for a missing cell, beside an empty one and the usual words for a missing number.
        time_format: of the time column, as strftime has it; without it, times must be in ISO 8601.
    """

    decimal: str = Field(default=".", min_length=1, max_length=1)
    thousands: str | None = Field(default=None, min_length=1, max_length=1)
    nulls: tuple[str, ...] = ()
    time_format: str | None = None

    @model_validator(mode="after")
    def _separators_differ(self) -> WrittenParams:
        if self.thousands == self.decimal:
            raise ValueError(f"thousands and decimal must differ, but both are {self.decimal!r}")
        return self


def read_written(frame: pd.DataFrame, dataset: DatasetConfig, params: WrittenParams) -> pd.DataFrame:
    """Return a frame of cells as they stand in a file with numbers, times and nothing in the place of their text."""
    frame = frame.copy(deep=False)
    nulls = dict.fromkeys(dataset.float_columns, (*NUMBER_NULLS, *params.nulls))
    for name in frame.columns:
        frame[name] = without_nulls(frame[name], nulls.get(name, ("", *params.nulls)))
    for name in dataset.float_columns:
        frame[name] = written_numbers(frame[name], params.decimal, params.thousands)
    if dataset.time_column is not None and params.time_format is not None:
        frame[dataset.time_column] = written_times(frame[dataset.time_column], params.time_format)
    return frame


def without_nulls(cells: pd.Series, nulls: tuple[str, ...]) -> pd.Series:
    """Return cells with nothing in the place of words for it, spaces around them or not."""
    import pandas as pd

    if not pd.api.types.is_object_dtype(cells):
        return cells
    words = frozenset(nulls)
    missing = [isinstance(cell, str) and cell.strip() in words for cell in cells]
    return cells.where(~pd.Series(missing, index=cells.index, dtype=bool), None)


def number_pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    """Return what a number looks like: the digits before the decimals in one, or in groups of three."""
    point = re.escape(decimal)
    grouped = "" if thousands is None else rf"|\d{{1,3}}(?:[{re.escape(ALIKE.get(thousands, thousands))}]\d{{3}})+"
    return re.compile(rf"[+-]?(?:(?:\d+{grouped})(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?")


def written_numbers(cells: pd.Series, decimal: str, thousands: str | None = None) -> pd.Series:
    """Return cells with numbers in the place of text that is one; text that is none is kept, as such.

    Text with decimal points and without groups stays text, which validation reads.
    """
    import pandas as pd

    if not pd.api.types.is_object_dtype(cells) or (decimal == "." and thousands is None):
        return cells
    is_text = cells.map(lambda cell: isinstance(cell, str)).astype(bool)
    texts = cells[is_text].str.strip()
    fits = texts.str.fullmatch(number_pattern(decimal, thousands)).astype(bool)
    plain = texts[fits]
    if thousands is not None:
        plain = plain.str.replace(f"[{re.escape(ALIKE.get(thousands, thousands))}]", "", regex=True)
    read = cells.copy()
    read[plain.index] = pd.to_numeric(plain.str.replace(decimal, ".", regex=False)).astype(object)
    others = texts.index[~fits]
    read[others] = cells[others].map(NoNumber)
    return read.infer_objects() if others.empty else read


def written_times(cells: pd.Series, time_format: str) -> pd.Series:
    """Return cells with times in the place of text in a format; whatever does not fit stays as it is.

    A whole number, as 20230131 is in a file whose cells have types, is what its digits say.

    A format without a zone gives times without one, which are in the dataset's; a `Z` at its end is UTC.
    """
    import pandas as pd

    texts = cells.map(_digits)
    is_text = texts.map(lambda cell: isinstance(cell, str)).astype(bool)
    has_zone = "%z" in time_format or "%Z" in time_format or time_format.endswith("Z")
    parsed = pd.to_datetime(texts.where(is_text), format=time_format, utc=has_zone, errors="coerce")
    return parsed if parsed.notna().all() else parsed.astype(object).where(parsed.notna(), cells)


def _digits(cell: Any) -> Any:
    is_whole = isinstance(cell, Integral) or (isinstance(cell, float) and cell.is_integer())
    return str(int(cell)) if is_whole and not isinstance(cell, bool) else cell
