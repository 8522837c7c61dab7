"""What pydantic finds wrong, in words for the person who wrote the YAML: one line per mistake, with its key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

SECRET_NAME = re.compile(r"password|passwd|pwd|secret|token|credential|access_key|private_key", re.IGNORECASE)


def lines_of(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return one `key = value: reason` line per error that validating `model` found."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in (*([prefix] if prefix else []), *item["loc"]))
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            reason = f"unknown key; allowed: {', '.join(_keys_at(model, item['loc'][:-1])) or 'none'}"
        is_hidden = item["type"] in ("missing", "value_error") or SECRET_NAME.search(key)
        shown = "" if is_hidden else f" = {item['input']!r}"
        lines.append(f"{key}{shown}: {reason}" if key else reason)
    return lines


def _keys_at(model: type[BaseModel], path: Sequence[int | str]) -> tuple[str, ...]:
    """Return the keys that a configuration may have at `path`."""
    annotation: Any = model
    for part in path:
        if hasattr(annotation, "model_fields"):
            annotation = annotation.model_fields[part].annotation
        else:
            # A position in a tuple or a key of a dictionary: go on with the type of its items.
            annotation = get_args(annotation)[1 if get_origin(annotation) is dict else 0]
        if NoneType in get_args(annotation):
            annotation = next(choice for choice in get_args(annotation) if choice is not NoneType)
    return tuple(annotation.model_fields)
