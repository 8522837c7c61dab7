"""How a result that is no table looks in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping


def facts_html(facts: Mapping[str, object]) -> str:
    """Return names and values as a table of two columns; what is `None` or empty is a dash."""
    rows = "".join(
        f"<tr><th style='text-align: left'>{html.escape(name)}</th>"
        f"<td style='text-align: left; white-space: pre-wrap'>{_shown(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        value = [f"{name}: {inner}" for name, inner in value.items()]
    if isinstance(value, (list, tuple)):
        value = "\n".join(map(str, value))
    return html.escape("-" if value is None or value == "" else str(value))
