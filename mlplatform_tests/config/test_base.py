"""Time steps as configuration writes them."""

from __future__ import annotations

import pytest

from mlplatform.config import (
    time_step,
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15min", 900), ("h", 3600), ("2 h", 7200), ("1D", 86_400), ("W", 604_800)]
)
def test_time_steps_are_read(text: str, seconds: int) -> None:
    assert time_step(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0h", "00h", "-1h", "1.5h", "1M", "1h30min", "hour", None])
def test_other_time_steps_are_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match="must be a positive time step"):
        time_step(text)
