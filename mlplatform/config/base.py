"""What all groups of the configuration are made of: the frozen model, the shared types, and the error for the user.

No group and no rule stands here.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Task = Literal["forecast", "regression", "classification"]
Period = Literal["day", "month", "year"]
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]

ENTITY = "entity_id"
TIMESTAMP = "event_timestamp"


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the key, the value and what is allowed.

    Attributes:
        mistakes: what is wrong, one text each.
    """

    def __init__(self, message: str, mistakes: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.mistakes = tuple(mistakes) or (message,)

    @classmethod
    def of(cls, subject: str, mistakes: Sequence[str]) -> ConfigError:
        """Return the error of a subject, such as an experiment, that has these mistakes."""
        lines = "\n  ".join(mistakes)
        return cls(f"{subject} is not valid:\n  {lines}", mistakes)


class Frozen(BaseModel):
    """Base of all configuration models: immutable, and unknown keys are errors."""

    # An error that repeats its whole input would repeat a password that someone wrote into it by mistake.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class PluginConfig(Frozen):
    """A plug-in by name with its parameters."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


def _utc(value: Any) -> Any:
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
    return value


UtcDatetime = Annotated[dt.datetime, BeforeValidator(_utc)]


def time_step(frequency: str | None, key: str = "frequency") -> dt.timedelta:
    """Return the length of a time step written as a number and one of the units s, min, h, D and W.

    Parameters:
        key: what the error calls the value.

    Raises:
        ValueError: if it is written otherwise, or is zero.
    """
    match = re.fullmatch(r"(\d*)\s*(s|min|h|D|W)", frequency or "")
    if match is None or int(match.group(1) or 1) == 0:
        raise ValueError(f"{key} must be a positive time step such as 1h, 15min or 1D, but is {frequency!r}")
    seconds = {"s": 1, "min": 60, "h": 3600, "D": 86400, "W": 604800}[match.group(2)]
    return dt.timedelta(seconds=seconds * int(match.group(1) or 1))
