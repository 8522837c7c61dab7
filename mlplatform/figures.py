"""What all plots share: their colours, empty figures, and figures as PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GREY, ORANGE = "#2563eb", "#9ca3af", "#ea580c"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    # The object-oriented interface: pyplot keeps global state and would pick a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
