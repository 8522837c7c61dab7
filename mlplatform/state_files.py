"""What one run leaves in a small JSON file for the next, read as what it is, or told to be damaged and left out.

A disk that fills, a copy that is cut off or a newer version of the platform leave files that cannot be read as they
were meant. They are a warning and not an end: whoever reads them goes on without, and what can be made again is. What
is ahead of its time was written under a clock that was wrong, and must not stand in the place of what is true now.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

# Clocks of machines differ, and days end elsewhere at other times; what is further ahead is of no present.
AHEAD = dt.timedelta(days=1)
# What reading a text as a value raises where it is none; a deep nesting ends the parser.
NO_VALUE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

logger = logging.getLogger(__name__)


def parsed(text: str | bytes, kind: type[T]) -> T:
    """Return JSON as a value of a type, such as a dataclass; keys that it does not know are left out.

    Raises:
        ValueError: if it is no JSON, lacks what has no default, or a part is of another type.
    """
    try:
        value: T = _adapter(cast(Any, kind)).validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        where = ".".join(map(str, found[0]["loc"]))
        raise ValueError(f"{where}: {found[0]['msg']}" if where else found[0]["msg"]) from error
    return value


def read_state(path: Path, parse: Callable[[str], T], otherwise: str) -> T | None:
    """Return what a file says; `None` if it is not there, or is damaged, which a warning says.

    Parameters:
        parse: makes the value of the text, and raises one of `NO_VALUE` if it is none.
        otherwise: what happens without the file and what to do, for the warning.

    Raises:
        OSError: if the disk refuses: that says nothing about the file.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NO_VALUE as error:
        warn_of(path, f"cannot be read and is left out ({_first_line(error)}); {otherwise}")
        return None


def moment(text: str) -> dt.datetime:
    """Return an ISO 8601 time in UTC; without a zone it is in UTC already.

    Raises:
        ValueError, TypeError, OverflowError: if it is none.
    """
    time = dt.datetime.fromisoformat(text)
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def is_ahead(time: dt.datetime, now: dt.datetime) -> bool:
    """Return whether a moment is further from the present than clocks differ, so that it says nothing about it."""
    return time - now > AHEAD


def warn_of(path: Path, what: str) -> None:
    """Say of a file what is wrong with it: once per process and change of it, for it may be looked at every second."""
    try:
        changed_ns = path.stat().st_mtime_ns
    except OSError:
        changed_ns = 0
    _warn(path, changed_ns, what)


@lru_cache(maxsize=1024)
def _warn(path: Path, changed_ns: int, what: str) -> None:  # noqa: ARG001 (a file that changed is told of anew)
    logger.warning("%s %s", path, " ".join(what.split()))


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
