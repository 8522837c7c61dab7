"""Drift reports about the yard, for what reads reports and does not make them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from mlplatform.monitoring import DriftReport, ErrorDrift
from mlplatform.testing.yard import EXPERIMENT


def yard_report(**changes: Any) -> DriftReport:
    """Return a report by which the served errors are three times those of the reference set."""
    values: dict[str, Any] = {
        "experiment": EXPERIMENT,
        "pair_version": 1,
        "split_version": "yard",
        "data_until": "2024-03-20T23:00:00+00:00",
        "features": (),
        "errors": ErrorDrift(100, 3.0, 1.0, 1.5),
        "created_at": dt.datetime.now(dt.UTC).isoformat(),
    }
    return DriftReport(**{**values, **changes})
