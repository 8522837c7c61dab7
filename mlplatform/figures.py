"""What all plots share: their colours, empty figures, and figures as PNG."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Letters of a title or label that an inch of a figure holds.
_LETTERS_PER_INCH = 11
BLUE, GREY, ORANGE = "#2563eb", "#9ca3af", "#ea580c"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    # The object-oriented interface: pyplot keeps global state and would pick a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file.

    Words are drawn as they are: names of columns and entities may hold dollar signs, which would begin a formula. Those
    that are longer than their side of the figure lose letters in the middle.
    """
    for text in _words(figure):
        text.set_parse_math(False)
    width, height = (float(inches) * _LETTERS_PER_INCH for inches in figure.get_size_inches())
    for axes in figure.axes:
        for text, letters in ((axes.title, width), (axes.xaxis.label, width), (axes.yaxis.label, height)):
            text.set_text(_shortened(text.get_text(), int(letters)))
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A name may hold letters that the font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _shortened(words: str, letters: int) -> str:
    kept = letters // 2
    return words if len(words) <= letters else f"{words[:kept]}\N{HORIZONTAL ELLIPSIS}{words[-kept + 1 :]}"


def _words(figure: Figure) -> Iterator[Text]:
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    named = (FixedFormatter, FuncFormatter, StrCategoryFormatter)
    for axes in figure.axes:
        legend = axes.get_legend()
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        yield from legend.get_texts() if legend is not None else ()
        for axis in (axes.xaxis, axes.yaxis):
            # Only names are words: powers of ten are formulas, and asking for other ticks lays them out once more.
            yield from axis.get_ticklabels() if isinstance(axis.get_major_formatter(), named) else ()
