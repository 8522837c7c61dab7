"""Watermarks: the value of a row's last change, kept exactly in a position and lowered by an overlap."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from mlplatform.config import DatasetConfig, time_step
from mlplatform.data.errors import DataError
from mlplatform.data.sources.base import Position
from mlplatform.data.sources.cells import OutOfRange

Watermark = dt.datetime | dt.date | int | float | Decimal | str

# The clocks of the world are at most this far ahead of UTC; a time without a zone may be from any of them.
LATEST_LOCAL_TIME = dt.timedelta(hours=14)

# Python type, to JSON, from JSON; in this order, because a datetime is a date as well.
TYPES: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "datetime": (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    "date": (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    "integer": (int, int, int),
    "decimal": (Decimal, str, Decimal),
    "float": (float, float.hex, float.fromhex),
    "text": (str, str, str),
}


def encode_watermark(value: Watermark, dataset: DatasetConfig) -> Position:
    """Return the position that stands for `value`.

    A time in the future is taken as the present: going on from there would hide all rows that are stamped until then.

    Raises:
        DataError: if a watermark cannot be of the value's type, or is a time that is none.
    """
    _refuse_out_of_range(value, dataset)
    for name, (kind, encode, _) in TYPES.items():
        if isinstance(value, kind):
            return {"watermark": encode(_at_most_now(value)), "type": name}
    raise DataError(
        f"dataset {dataset.name!r}: source.options.watermark_column holds values of type {type(value).__name__}; "
        "expected times, dates, numbers or text"
    )


def decode_watermark(position: Position, dataset: DatasetConfig) -> Watermark:
    """Return the watermark that `encode_watermark` made `position` of.

    Raises:
        DataError: if it is another source's position.
    """
    try:
        decoded: Watermark = TYPES[position["type"]][2](position["watermark"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"dataset {dataset.name!r}: the stored position {position} is not a watermark; read the dataset in full"
        ) from error
    return decoded


def lowered(value: Any, overlap: int | str | None, dataset: DatasetConfig) -> Any:
    """Return the watermark less the overlap.

    Raises:
        DataError: if the overlap is a duration and the watermark is not a time, or the other way round, or it is a
            time that is none.
    """
    _refuse_out_of_range(value, dataset)
    if overlap is None:
        return value
    is_time = isinstance(value, dt.date)
    if is_time != isinstance(overlap, str) or isinstance(value, str):
        expected = "a time step such as 1h" if is_time else "a number" if not isinstance(value, str) else "none"
        raise DataError(
            f"dataset {dataset.name!r}: source.options.overlap {overlap!r} does not fit the watermark {value!r}; "
            f"expected {expected}"
        )
    return value - (time_step(overlap) if isinstance(overlap, str) else overlap)


def _refuse_out_of_range(value: Any, dataset: DatasetConfig) -> None:
    if isinstance(value, OutOfRange):
        raise DataError(
            f"dataset {dataset.name!r}: source.options.watermark_column holds {str(value)!r}, and there is no going on "
            "from there; correct the row, or use a query that leaves it out"
        )


def _at_most_now(value: Any) -> Any:
    if not isinstance(value, dt.datetime):
        return value
    if value.tzinfo is not None:
        return min(value, dt.datetime.now(dt.UTC))
    return min(value, dt.datetime.now(dt.UTC).replace(tzinfo=None) + LATEST_LOCAL_TIME)
