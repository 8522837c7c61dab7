"""The time that one look of a sensor may take, under the time-out at which Dagster gives a tick up.

A source, database or store that hangs then costs its sensor a tick that says so, and no thread more: as long as the
look before is still going on, no new one begins.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Dagster's own default, and where it is changed.
TICK_TIMEOUT_S, TIMEOUT_VARIABLES = 60.0, ("DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "DAGSTER_GRPC_TIMEOUT_SECONDS")
# Of that time-out; the rest is for Dagster and for imports.
SHARE = 0.6


class LookTookTooLongError(TimeoutError):
    """A look of a sensor that did not end within its time."""


class _Look(Generic[T]):
    def __init__(self, work: Callable[[], T], name: str) -> None:
        self.result: list[T] = []
        self.error: BaseException | None = None
        self._work = work
        # A thread that hangs must not keep the process from ending.
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result.append(self._work())
        except BaseException as error:
            self.error = error


_looks: dict[str, _Look[Any]] = {}


def budget_s() -> float:
    """Return the seconds that a look may take."""
    given = next((os.environ[name] for name in TIMEOUT_VARIABLES if os.environ.get(name)), "")
    return SHARE * (float(given) if given.isdecimal() else TICK_TIMEOUT_S)


def within_budget(name: str, work: Callable[[], T], seconds: float | None = None) -> T:
    """Return what `work` returns.

    Parameters:
        name: of the sensor; two looks of one name are never made at once.
        seconds: that it may take; by default `budget_s()`.

    Raises:
        LookTookTooLongError: if it takes longer, or the one before does.
    """
    limit = budget_s() if seconds is None else seconds
    before = _looks.get(name)
    if before is not None and before.thread.is_alive():
        raise LookTookTooLongError(f"the look before is still going on, {limit:g} s or more after it began")
    look = _Look(work, name)
    _looks[name] = look
    look.thread.join(limit)
    if look.thread.is_alive():
        raise LookTookTooLongError(f"the look took longer than {limit:g} s; it is not repeated before it ends")
    del _looks[name]
    if look.error is not None:
        raise look.error
    return look.result[0]
