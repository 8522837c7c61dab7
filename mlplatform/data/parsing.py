"""From whatever cells a source delivers to canonical types, cell by cell: what does not parse is marked, not raised."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import json
import math
import numbers
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from mlplatform.calendars import Zone, ns_of, times_of
from mlplatform.config import EntityType, TimeUnit
from mlplatform.data.local_times import Seen, localise

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]
Times = npt.NDArray[np.datetime64]

LONGEST_INT64 = 20
WORDS = {
    **dict.fromkeys(("", "0", "false", "f", "no", "n", "off", "infinity"), False),
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
}
INT64 = range(-(2**63), 2**63)
# The one way to write a whole number that the number itself keeps.
WHOLE_NUMBER = re.compile("0|-?[1-9][0-9]*")
# A number as a source that knows only text writes it.
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
UNIT_NS: dict[TimeUnit, int] = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
STRUCTURES = (dict, list, tuple, np.ndarray)
REMEMBERED_CELLS = 100_000


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
            (isinstance(cell, (str, numbers.Real, decimal.Decimal)) for cell in cells), dtype=bool, count=len(cells)
        )
        parsed[~readable] = np.nan
        return parsed, present & np.isnan(parsed)
    return np.full(len(values), np.nan), present


class ParsedTimes(NamedTuple):
    """Times of cells.

    Attributes:
        times: of shape (rows,), datetime64[ns] in UTC; NaT where missing or unreadable.
        faulty: cells that are not times.
        doubtful: times that no clock of the zone shows, whose place another row of the entity has.
        seen: for the batch that follows, see `local_times`.
    """

    times: Times
    faulty: Bool
    doubtful: Bool
    seen: Seen


def parse_local_times(
    values: pd.Series, entities: pd.Series | None, zone: Zone, seen: Seen = (), unit: TimeUnit | None = None
) -> ParsedTimes:
    """Return times as `parse_times` does, but those that tell no zone in local time.

    Parameters:
        entities: of shape (rows,), whose each row is; `None` if there is but one.
        seen: what the batch before returned.
        unit: what times count that are numbers, since 1970 in UTC; without it they are unreadable.
    """
    times, faulty = parse_times(values, unit)
    doubtful = np.zeros(len(values), dtype=bool)
    naive = _are_local(values, times, zone, unit)
    if not naive.any():
        return ParsedTimes(times, faulty, doubtful, seen)
    codes = np.zeros(len(values), dtype=object) if entities is None else entities.astype(object).to_numpy()
    found = localise(ns_of(times[naive]), codes[naive], zone, seen)
    times = times.copy()
    times[naive] = times_of(found.moments)
    doubtful[naive] = found.skipped
    if doubtful.any():
        keys = pd.DataFrame({"entity": codes, "time": times})
        taken = keys[~doubtful & ~np.isnat(times)]
        doubtful &= pd.MultiIndex.from_frame(keys).isin(pd.MultiIndex.from_frame(taken))
    return ParsedTimes(times, faulty, doubtful, found.seen)


def are_twice(values: pd.Series, zone: Zone, unit: TimeUnit | None = None) -> Bool:
    """Return which cells are local times, without a zone, that the clocks of a zone show twice.

    Parameters:
        unit: as for `parse_local_times`.
    """
    found = np.zeros(len(values), dtype=bool)
    if zone.is_utc:
        return found
    times, _ = parse_times(values, unit)
    local = _are_local(values, times, zone, unit)
    found[local] = zone.is_twice(ns_of(times[local]))
    return found


def _are_local(values: pd.Series, times: Times, zone: Zone, unit: TimeUnit | None) -> Bool:
    """Return which cells, read as `parse_times` does, are times of the zone's clocks."""
    if zone.is_utc:
        return np.zeros(len(values), dtype=bool)
    counted = _are_counts(values) if unit is not None else np.zeros(len(values), dtype=bool)
    return _are_naive(values) & ~np.isnat(times) & ~counted


def _are_naive(values: pd.Series) -> Bool:
    """Return which times tell no zone."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return np.zeros(len(values), dtype=bool)
    if types.is_datetime64_dtype(values):
        return np.ones(len(values), dtype=bool)
    return ~np.fromiter((_tells_zone(cell) for cell in values.astype(object)), dtype=bool, count=len(values))


def _tells_zone(cell: object) -> bool:
    return _has_zone(cell) or (isinstance(cell, dt.datetime) and cell.tzinfo is not None)


def parse_times(values: pd.Series, unit: TimeUnit | None = None) -> tuple[Times, Bool]:
    """Return datetime64[ns] in UTC, NaT where missing or unreadable, and the mask of cells that are not times.

    Text must be in ISO 8601; naive times are UTC, whatever zones their neighbours have. A bare number is not a time,
    because its unit and origin are unknown.

    Parameters:
        unit: what bare numbers count since 1970 UTC, if that is known. One that does not tell a nanosecond, such as a
            float too large to be exact, is not a time.
    """
    present = values.notna().to_numpy()
    counted = _are_counts(values) if unit is not None else np.zeros(len(values), dtype=bool)
    if unit is not None and counted.any():
        parsed = np.full(len(values), np.datetime64("NaT"), dtype="datetime64[ns]")
        parsed[counted] = _moments_counted(values, counted, UNIT_NS[unit])
        if not counted.all():
            parsed[~counted] = parse_times(values[~counted])[0]
        return parsed, present & np.isnat(parsed)
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


def _are_counts(values: pd.Series) -> Bool:
    """Return which cells are bare numbers."""
    if types.is_numeric_dtype(values) and not types.is_bool_dtype(values):
        return values.notna().to_numpy()
    if not (types.is_object_dtype(values) or types.is_string_dtype(values)):
        return np.zeros(len(values), dtype=bool)
    return np.fromiter(map(_is_count, values.astype(object)), dtype=bool, count=len(values))


def _is_count(cell: object) -> bool:
    if isinstance(cell, str):
        return NUMBER.fullmatch(cell) is not None
    if isinstance(cell, (bool, np.bool_)) or not isinstance(cell, (numbers.Real, decimal.Decimal)):
        return False
    return not (isinstance(cell, (float, np.floating)) and math.isnan(cell))


def _moments_counted(values: pd.Series, counted: Bool, unit_ns: int) -> Times:
    """Return the moments of cells that are numbers, of shape (cells,); NaT where one tells none exactly."""
    found = _by_cell(values, counted, functools.partial(_nanoseconds_counted, unit_ns=unit_ns))
    is_known = pd.notna(found)
    moments = np.full(len(found), np.datetime64("NaT"), dtype="datetime64[ns]")
    moments[is_known] = times_of(found[is_known].astype(np.int64))
    return moments


def _nanoseconds_counted(cell: Any, unit_ns: int) -> int | None:
    if isinstance(cell, (float, np.floating)) and abs(float(cell)) >= 2.0 ** (np.finfo(type(cell)).nmant + 1):
        return None
    # By its shortest decimals, which are what was sent.
    number = decimal.Decimal(str(cell).strip())
    if not number.is_finite() or abs(number) > INT64.stop:
        return None
    nanoseconds = number * unit_ns
    is_held = pd.Timestamp.min.value <= nanoseconds <= pd.Timestamp.max.value
    return int(nanoseconds) if is_held and _is_whole(nanoseconds) else None


def parse_categories(values: pd.Series) -> tuple[Objects, Bool]:
    """Return text, `None` where missing, and the mask of cells whose text is not known exactly.

    Text stays as it is; whole numbers are written to the last digit and without a decimal point, lists and objects as
    JSON with sorted names and no spaces, whatever source they are from. Not known exactly are floats so large that
    several whole numbers are rounded to one, binary data, whose encoding nobody has told, text with a NUL character,
    because pandas does not see what follows it, sets, which have no order, and what JSON has no words for.
    """
    present = values.notna().to_numpy()
    texts = np.full(len(values), None, dtype=object)
    texts[present] = _by_cell(values, present, _exact_text)
    return texts, present & pd.isna(texts)


def parse_marks(values: pd.Series, now: dt.datetime) -> tuple[Bool, Bool]:
    """Return where a cell says yes, and the mask of cells that say neither yes nor no.

    Yes are true and its usual words, numbers other than 0, and times up to `now`; no are false and its words, 0,
    missing cells, later times and `infinity`, which is how some write that a row has no end.
    """
    present = values.notna().to_numpy()
    answers = np.full(len(values), False, dtype=object)
    answers[present] = _by_cell(values, present, functools.partial(_mark, now=now))
    unclear = np.fromiter((answer is None for answer in answers), dtype=bool, count=len(answers))
    return np.where(unclear, False, answers).astype(bool), unclear


@dataclass(frozen=True)
class Ids:
    """Entity ids of a batch.

    Attributes:
        values: int64, or object holding text; of no meaning where a cell is missing or faulty.
        inexact: cells whose id is not known to the last digit or character.
        respelt: where ids are whole numbers, cells that are whole numbers in other words, such as `007` or `1.0`.
        other: where ids are whole numbers, cells that are none.
    """

    values: npt.NDArray[Any]
    inexact: Bool
    respelt: Bool
    other: Bool


def parse_entities(
    values: pd.Series, tolerance: float, are_text: bool | None = None, entity_type: EntityType = "auto"
) -> Ids:
    """Return entity ids, none of them changed: text stays text, whole numbers keep every digit.

    With the entity type `auto`, and nothing settled before, ids are text if one of them is a whole number in words that
    a number would not keep, such as `007`. Otherwise they are int64 if at least the share 1 - `tolerance` (and at least
    half) of the cells that are there are whole numbers; the others then are faulty, so that one stray text does not
    turn the ids of all entities into text.

    Parameters:
        are_text: whether the ids of the dataset are text, where earlier rows have settled it.
        entity_type: what the configuration says about it.
    """
    nowhere = np.zeros(len(values), dtype=bool)
    wants_text = entity_type == "string" or (entity_type == "auto" and are_text)
    if isinstance(values.dtype, np.dtype) and values.dtype.kind == "i" and not wants_text:
        return Ids(values.to_numpy(dtype=np.int64), nowhere, nowhere, nowhere)
    present = values.notna().to_numpy()
    cells = np.full(len(values), None, dtype=object)
    cells[present] = _by_cell(values, present, _exact_id)
    inexact = present & pd.isna(cells)
    is_whole = np.fromiter((type(cell) is int and cell in INT64 for cell in cells), dtype=bool, count=len(cells))
    is_respelt = functools.lru_cache(REMEMBERED_CELLS)(_is_respelt)
    respelt = np.fromiter((type(cell) is str and is_respelt(cell) for cell in cells), dtype=bool, count=len(cells))
    if entity_type != "auto":
        are_text = entity_type == "string"
    elif are_text is None:
        enough = present.any() and is_whole.sum() >= max(0.5, 1.0 - tolerance) * present.sum()
        are_text = bool(respelt.any() or not enough)
    if are_text:
        texts = np.array([None if cell is None else str(cell) for cell in cells] or [], dtype=object)
        return Ids(texts, inexact, nowhere, nowhere)
    numbers = np.where(is_whole, cells, 0).astype(np.int64)
    return Ids(numbers, inexact, respelt, present & ~(is_whole | inexact | respelt))


def _by_cell(values: pd.Series, present: Bool, read: Callable[[Any], Any]) -> Objects:
    """Return what `read` makes of the cells that are there, each as the object that the source delivered."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        # Not through pandas, which makes floats of whole numbers as soon as one cell is missing.
        cells = np.array([*values.cat.categories, None], dtype=object)[values.cat.codes.to_numpy()]
    elif values.dtype in (np.float16, np.float32):
        cells = np.array([*values.to_numpy(), None], dtype=object)[:-1]  # of their own type, which says what they hold
    else:
        cells = values.astype(object).to_numpy()
    # Equal ones of other types can differ as text.
    remembered = functools.lru_cache(REMEMBERED_CELLS, typed=True)(read)
    found = [remembered(cell) if type(cell) in (str, int, float) else read(cell) for cell in cells[present]]
    return np.array([*found, None], dtype=object)[:-1]


def _exact_text(cell: Any) -> str | None:
    if isinstance(cell, (float, np.floating)):
        largest_exact = 2.0 ** (np.finfo(type(cell)).nmant + 1)
        if largest_exact <= abs(float(cell)) < math.inf:
            return None
        return str(int(cell)) if float(cell).is_integer() else str(cell)
    if isinstance(cell, (bytes, bytearray, memoryview, set, frozenset)):
        return None
    text = _json(cell) if isinstance(cell, STRUCTURES) else str(cell)
    return None if text is None or "\0" in text or "\\u0000" in text else text


def _json(cell: Any) -> str | None:
    """Return the one JSON text of a list or an object; `None` if a part of it is not known exactly."""
    try:
        return json.dumps(_plain(cell), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return None


def _plain(part: Any) -> Any:
    """Return a part of a list or object as JSON has it.

    Raises:
        TypeError: if JSON has no words for it, or it is not known exactly.
    """
    if isinstance(part, dict):
        if not all(isinstance(name, str) for name in part):
            raise TypeError(f"names that are no text: {list(part)}")
        return {name: _plain(value) for name, value in part.items()}
    if isinstance(part, STRUCTURES):
        return [_plain(value) for value in part]
    if part is None or isinstance(part, (bool, int)):
        return part
    if isinstance(part, (np.bool_, np.integer)):
        return part.item()
    text = _exact_text(part)
    if text is None:
        raise TypeError(f"not known exactly: {part!r}")
    return float(part) if isinstance(part, (float, np.floating)) else text


def _mark(cell: Any, now: dt.datetime) -> bool | None:
    if isinstance(cell, str):
        word = cell.strip().lower()
        if word in WORDS:
            return WORDS[word]
        try:
            cell = dt.datetime.fromisoformat(cell.strip())
        except ValueError:
            return None
    if isinstance(cell, dt.datetime):
        return (cell if cell.tzinfo else cell.replace(tzinfo=dt.UTC)) <= now
    if isinstance(cell, dt.date):
        return cell <= now.date()
    if isinstance(cell, (bytes, bytearray)):
        return any(cell)  # a database's bits
    return bool(cell != 0) if isinstance(cell, (numbers.Number, np.bool_)) else None


def _exact_id(cell: Any) -> int | str | None:
    """Return an id as a whole number if it is one, written as a number or as numbers are, else as text."""
    if isinstance(cell, (int, np.integer)) and not isinstance(cell, bool):
        return int(cell)
    if isinstance(cell, decimal.Decimal) and _is_whole(cell):
        return int(cell)
    text = _exact_text(cell)
    return int(text) if text is not None and len(text) <= LONGEST_INT64 and WHOLE_NUMBER.fullmatch(text) else text


def _is_respelt(cell: str) -> bool:
    """Return whether text is a whole number, but not as numbers are written."""
    if WHOLE_NUMBER.fullmatch(cell):
        return False
    try:
        return _is_whole(decimal.Decimal(cell))
    except decimal.InvalidOperation:
        return False


def _is_whole(number: decimal.Decimal) -> bool:
    return number.is_finite() and number == number.to_integral_value()


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
