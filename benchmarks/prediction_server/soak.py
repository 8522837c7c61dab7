"""The memory of a server that is asked, and swaps its pair, for ten minutes (`SOAK_SECONDS`)."""

from __future__ import annotations

from prediction_server.swaps import soak


def run() -> None:
    """Measure it."""
    soak()
