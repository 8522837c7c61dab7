"""What HTML pages that are kept as files share: one file that needs nothing else, its sections, tables, pictures.

Whatever a column or entity is called, it is text there: words are escaped, and a page may fetch nothing from elsewhere.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping
from typing import Any

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1f2937}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{text-align:left;padding:.25rem .75rem;"
    "border-bottom:1px solid #e5e7eb}img{max-width:100%}h2{margin-top:2rem}"
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_page(title: str, parts: Iterable[str]) -> str:
    """Return a page.

    Parameters:
        parts: what `paragraph`, `section` and the like return, in order.
    """
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style></head>'
        f"<body><h1>{html.escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def paragraph(text: str, *, strong: bool = False) -> str:
    """Return a paragraph of text."""
    words = html.escape(text)
    return f"<p><strong>{words}</strong></p>" if strong else f"<p>{words}</p>"


def section(title: str, *content: str) -> str:
    """Return a section of tables, pictures and paragraphs under a heading."""
    return f"<h2>{html.escape(title)}</h2>{''.join(content)}"


def image(png: bytes, title: str) -> str:
    """Return a picture; its title is for those who cannot see it."""
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def html_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as a table; columns in order of first appearance."""
    listed = list(rows)
    if not listed:
        return paragraph("none")
    names = list(dict.fromkeys(name for row in listed for name in row))
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in names)
    lines = ("".join(f"<td>{html.escape(_cell(row.get(name)))}</td>" for name in names) for row in listed)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
