"""The formats of owners, tags and crons as Dagster takes them, checked without importing Dagster.

Configuration is read by servers too, which have no Dagster in them. Whatever is accepted here, Dagster accepts.
"""

from __future__ import annotations

import re

_EMAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_TEAM = re.compile(r"team:\S(.*\S)?")
_TAG_KEY = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_RESERVED = "dagster/"

_CRON_PART = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_CRON_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, start=1)}),
    ("day of week", 0, 7, {name: number for number, name in enumerate(_WEEKDAYS)}),
)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CRON_WORDS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")


def check_owner(owner: str) -> str:
    """Return an owner if it is an email address or the name of a team.

    Raises:
        ValueError: if it is neither.
    """
    if not _EMAIL.fullmatch(owner) and not _TEAM.fullmatch(owner):
        raise ValueError(f"an owner is an email address or team:<name>, but is {owner!r}")
    return owner


def check_tag_key(key: str) -> str:
    """Return the key of a tag if Dagster takes it.

    Raises:
        ValueError: if it does not, or keeps the key for itself.
    """
    if not _TAG_KEY.fullmatch(key):
        raise ValueError(
            f"the key of a tag has up to 63 letters, digits, '_', '-' and '.', and may have a part like that and '/' "
            f"before it, but is {key!r}"
        )
    if key.startswith(_RESERVED):
        raise ValueError(f"keys of tags that begin with {_RESERVED} are Dagster's own, but this one is {key!r}")
    return key


def check_tag_value(value: str) -> str:
    """Return the value of a tag if Dagster takes it.

    Raises:
        ValueError: if it does not.
    """
    if not _TAG_VALUE.fullmatch(value):
        raise ValueError(f"the value of a tag has up to 63 letters, digits, '_', '-' and '.', but is {value!r}")
    return value


def check_cron(cron: str) -> str:
    """Return a cron if it is one that fires: five fields, or one of the words for a common one.

    Raises:
        ValueError: naming the field that is wrong.
    """
    if cron in _CRON_WORDS:
        return cron
    fields = cron.split()
    if len(fields) != len(_CRON_FIELDS):
        names = ", ".join(name for name, *_ in _CRON_FIELDS)
        raise ValueError(f"a cron has the fields {names}, or is one of {', '.join(_CRON_WORDS)}, but is {cron!r}")
    *_, days, months, _weekdays = (_values(cron, field, *of) for field, of in zip(fields, _CRON_FIELDS, strict=True))
    if min(days) > max(_LONGEST[month - 1] for month in months):
        raise ValueError(f"no month of cron {cron!r} has a day {min(days)}")
    return cron


def _values(cron: str, field: str, name: str, low: int, high: int, words: dict[str, int]) -> set[int]:
    """Return the values that a field of a cron stands for."""
    values: set[int] = set()
    for part in field.split(","):
        match = _CRON_PART.fullmatch(part)
        first = low if match is None or match["first"] is None else _number(match["first"], words)
        last = first if match and match["first"] else high
        if match and match["last"]:
            last = _number(match["last"], words)
        step = int(match["step"] or 1) if match else 0
        # A step after a single value means something else to every program that reads crons.
        is_step_of_one = match is not None and match["step"] and match["first"] and not match["last"]
        if match is None or is_step_of_one or not low <= first <= last <= high or not 1 <= step <= high:
            raise ValueError(
                f"the {name} of a cron is *, a number from {low} to {high}, a range of them (2-5), or one of these "
                f"with a step (*/10), several with commas, but is {field!r} in {cron!r}"
            )
        values |= set(range(first, last + 1, step))
    return values


def _number(text: str, words: dict[str, int]) -> int:
    """Return the number of a value in a cron; one below every field's least if it is none."""
    return int(text) if text.isdecimal() else words.get(text.lower(), -1)
