"""From whatever cells a source delivers to canonical types, cell by cell: what does not parse is marked, not raised."""

from __future__ import annotations

import datetime as dt
import numbers
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]
Times = npt.NDArray[np.datetime64]

# Above this, float64 no longer tells whole numbers apart.
LARGEST_WHOLE = 2.0**53


def parse_numbers(values: pd.Series) -> tuple[Float64, Bool]:
    """Return float64 values, NaN where missing or not a number, and the mask of cells that are not numbers."""
    if types.is_numeric_dtype(values) and not types.is_complex_dtype(values):
        return values.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(values), dtype=bool)
    present = values.notna().to_numpy()
    if types.is_object_dtype(values) or types.is_string_dtype(values) or isinstance(values.dtype, pd.CategoricalDtype):
        cells = values.astype(object)
        parsed = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        if types.infer_dtype(cells, skipna=True) in ("string", "decimal", "empty"):
            return parsed, present & np.isnan(parsed)
        # Beside numbers there may be things that pandas would count as numbers, such as dates.
        readable = np.fromiter(
            (isinstance(cell, (str, numbers.Number)) for cell in cells), dtype=bool, count=len(cells)
        )
        parsed[~readable] = np.nan
        return parsed, present & np.isnan(parsed)
    return np.full(len(values), np.nan), present


def parse_times(values: pd.Series) -> tuple[Times, Bool]:
    """Return datetime64[ns] in UTC, NaT where missing or unreadable, and the mask of cells that are not times.

    Text must be in ISO 8601; naive times are UTC, whatever zones their neighbours have. A bare number is not a time,
    because its unit and origin are unknown.
    """
    present = values.notna().to_numpy()
    if isinstance(values.dtype, pd.DatetimeTZDtype) or types.is_datetime64_dtype(values):
        parsed = _nanoseconds(values)
    elif (
        types.is_object_dtype(values) or types.is_string_dtype(values) or isinstance(values.dtype, pd.CategoricalDtype)
    ):
        cells = values.astype(object)
        parsed = _parse_cells(cells.where(_readable_times(cells), None))
    else:
        parsed = np.full(len(values), np.datetime64("NaT"), dtype="datetime64[ns]")
    return parsed, present & np.isnat(parsed)


def parse_categories(values: pd.Series) -> Objects:
    """Return text, `None` where missing. Whole numbers are written without a decimal point."""
    cells: pd.Series[Any] = values
    if types.is_float_dtype(values):
        parsed = values.to_numpy(dtype=np.float64, na_value=np.nan)
        if bool(_is_whole(parsed[~np.isnan(parsed)]).all()):
            cells = values.astype("Int64")
    present = values.notna().to_numpy()
    out = np.full(len(values), None, dtype=object)
    out[present] = cells[present].astype(str).to_numpy(dtype=object)
    return out


def parse_entities(values: pd.Series, tolerance: float, are_text: bool | None = None) -> tuple[npt.NDArray[Any], Bool]:
    """Return entity ids and the mask of cells that are not ids; missing cells are left to the caller.

    Without `are_text`, the ids are int64 if at least the share 1 - `tolerance` (and at least half) of the cells that
    are there are whole numbers; the others then are faulty, so that one stray text does not turn the ids of all
    entities into text. Otherwise every id is text.

    Parameters:
        are_text: whether the ids of the dataset are text, where earlier rows have settled it.
    """
    present = values.notna().to_numpy()
    if are_text:
        return parse_categories(values), np.zeros(len(values), dtype=bool)
    parsed, _ = parse_numbers(values)
    is_whole = _is_whole(parsed)
    enough = present.any() and is_whole.sum() >= max(0.5, 1.0 - tolerance) * present.sum()
    if enough or are_text is False:
        return np.where(is_whole, parsed, 0.0).astype(np.int64), present & ~is_whole
    return parse_categories(values), np.zeros(len(values), dtype=bool)


def _is_whole(values: Float64) -> Bool:
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(values) < LARGEST_WHOLE) & (np.floor(values) == values))


def _nanoseconds(values: pd.Series) -> Times:
    aware = values if isinstance(values.dtype, pd.DatetimeTZDtype) else values.dt.tz_localize("UTC")
    times = aware.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    if times.dtype != np.dtype("datetime64[ns]"):
        # Coarser units reach years that nanoseconds cannot hold; casting those would wrap around silently.
        first, last = (np.datetime64(limit, "s") for limit in (pd.Timestamp.min.ceil("s"), pd.Timestamp.max.floor("s")))
        times = np.where((times < first) | (times > last), np.datetime64("NaT"), times)
    return np.asarray(times, dtype="datetime64[ns]")


def _parse_cells(cells: pd.Series) -> Times:
    """Return the times of text and objects; text with a zone and text without one are parsed apart.

    In one call pandas gives a text without a zone the offset of the one above it that has one.
    """
    zoned = np.fromiter((_has_zone(cell) for cell in cells), dtype=bool, count=len(cells))
    parsed = np.full(len(cells), np.datetime64("NaT"), dtype="datetime64[ns]")
    for company in (zoned, ~zoned):
        if company.any():
            parsed[company] = _nanoseconds(pd.to_datetime(cells[company], format="ISO8601", utc=True, errors="coerce"))
    return parsed


def _has_zone(cell: object) -> bool:
    if not isinstance(cell, str):
        return False
    time = cell.lstrip().replace(" ", "T", 1).partition("T")[2]
    return "Z" in time or "+" in time or "-" in time


def _readable_times(cells: pd.Series) -> Bool:
    kind = types.infer_dtype(cells, skipna=True)
    if kind in ("datetime", "datetime64", "date", "empty"):
        return np.ones(len(cells), dtype=bool)
    if kind != "string":
        return np.fromiter((_is_time(cell) for cell in cells), dtype=bool, count=len(cells))
    # pandas reads these words as the moment of the call.
    return ~cells.isin(["now", "today"]).to_numpy()


def _is_time(cell: object) -> bool:
    return isinstance(cell, (dt.date, np.datetime64)) or (isinstance(cell, str) and cell not in ("now", "today"))
