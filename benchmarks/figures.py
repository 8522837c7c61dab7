"""How a benchmark reports a figure: one JSON object per line on standard output."""

from __future__ import annotations

import json


def report(
    benchmark: str,
    case: str,
    value: float,
    unit: str,
    *,
    peer: str | None = None,
    peer_value: float | None = None,
    aim: str | None = None,
    met: bool | None = None,
) -> None:
    """Print one figure, with its ratio to the peer that was measured in the same run."""
    figure = {
        "benchmark": benchmark,
        "case": case,
        "value": round(value, 6),
        "unit": unit,
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 6),
        "ratio": round(value / peer_value, 3) if peer_value else None,
        "aim": aim,
        "met": met,
    }
    print(json.dumps(figure), flush=True)
