"""How results look: tables and lines on a terminal, JSON for programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# A pipe has no width; what reads from one wants whole lines.
PIPE_WIDTH = 200


def line(text: str = "") -> None:
    """Write a line to the standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Write a line that is for people only to the standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def as_json(value: Any) -> None:
    """Write a result as one JSON object or list."""
    line(json.dumps(_plain(value), indent=1, ensure_ascii=False, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Write rows as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    shown = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        shown.add_row(*(_escaped(cell(value)) for value in row))
    console.print(shown)


def frame(rows: pd.DataFrame, limit: int = 40) -> None:
    """Write the first rows of a data frame as a table."""
    table([str(name) for name in rows.columns], rows.head(limit).itertuples(index=False))
    if len(rows) > limit:
        note(f"... and {len(rows) - limit} rows more; write all of them with --out")


def cell(value: object) -> str:
    """Return a value as it is read best."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        # Nobody reads a price or a load in powers of ten.
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.5g}"
    if isinstance(value, dt.datetime):
        return "-" if value != value else f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell, value))
    return str(value)


def ago(moment: dt.datetime | None) -> str:
    """Return a moment of the past with its distance from now."""
    if moment is None:
        return "-"
    hours = (dt.datetime.now(dt.UTC) - moment).total_seconds() / 3600
    distance = f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"
    return f"{moment:%Y-%m-%d %H:%M} ({distance})"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _plain(value: Any) -> Any:
    """Return a result as what JSON has: no NaN, and times in ISO 8601."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "to_json") and hasattr(value, "columns"):
        # Of times, pandas writes the moment alone; those of a zone keep their offset.
        elsewhere = {
            name: times for name, times in value.select_dtypes("datetimetz").items() if str(times.dt.tz) != "UTC"
        }
        shown = value.assign(**{name: times.map(lambda time: time.isoformat()) for name, times in elsewhere.items()})
        return json.loads(shown.to_json(orient="records", date_format="iso", date_unit="ms"))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value
