"""Who is told of what, and when."""

from __future__ import annotations

import datetime as dt
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from mlplatform.config.base import Frozen

AlertEvent = Literal[
    "drift",
    "quality_break",
    "coverage_lost",
    "retraining_requested",
    "retraining_failed",
    "promoted",
    "refused",
    "rolled_back",
    "run_failed",
    "server_not_loaded",
]
ALERT_EVENTS: tuple[AlertEvent, ...] = get_args(AlertEvent)


class AlertChannel(Frozen):
    """Where alerts go: `url_env` is the name of the environment variable that holds Apprise's address, or several.

    An address often holds a password or a token, so it never stands in a file. A channel whose variable is unset is
    off.
    """

    url_env: str = Field(pattern=r"[A-Z_][A-Z0-9_]*")
    events: tuple[AlertEvent, ...] = ALERT_EVENTS


class QuietHours(Frozen):
    """When all but the events in `except_for` have to wait; `end` may be on the next day."""

    start: dt.time
    end: dt.time
    zone: str = "UTC"
    except_for: tuple[AlertEvent, ...] = ("quality_break", "server_not_loaded")

    @field_validator("zone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"unknown time zone {value!r}; name one as Europe/Berlin, or UTC") from error
        return value

    @model_validator(mode="after")
    def _has_length(self) -> QuietHours:
        if self.start == self.end:
            raise ValueError(f"start and end are both {self.start:%H:%M}; give the hours a length, or leave them out")
        return self

    def hold(self, event: AlertEvent, now: dt.datetime) -> bool:
        """Return whether an event has to wait at a moment."""
        if event in self.except_for:
            return False
        time = now.astimezone(ZoneInfo(self.zone)).time()
        if self.start < self.end:
            return self.start <= time < self.end
        return time >= self.start or time < self.end


class AlertsConfig(Frozen):
    """Channels by name, and how they are used.

    The same alert is repeated after `repeat_hours` as long as its reason lasts. `timeout_s` bounds one message to one
    channel. What could not be delivered is tried again for `keep_hours`.
    """

    channels: dict[str, AlertChannel] = Field(default_factory=dict)
    quiet_hours: QuietHours | None = None
    repeat_hours: float = Field(default=24.0, gt=0)
    timeout_s: float = Field(default=5.0, gt=0, le=30)
    keep_hours: float = Field(default=72.0, gt=0)
