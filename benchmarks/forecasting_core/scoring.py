"""Scores by their definitions: per series, then averaged over series.

MASE divides by the in-sample error of the seasonal naive forecast (Hyndman and Koehler, 2006); sMAPE is that of the M4
competition (Makridakis, Spiliotis and Assimakopoulos, 2020); the interval score is Gneiting and Raftery's (2007),
divided by the same scale.
"""

from __future__ import annotations

import numpy as np


def score(
    history: list[np.ndarray],
    truth: np.ndarray,
    point: np.ndarray,
    lower: np.ndarray | None,
    upper: np.ndarray | None,
    season: int,
    coverage: float = 0.8,
) -> dict[str, float]:
    """Return MASE, sMAPE and, with bounds, coverage and scaled interval score; arrays are (series, steps)."""
    scale = np.array([np.nanmean(np.abs(values[season:] - values[:-season])) for values in history])
    kept = scale > 0
    error = np.abs(truth - point)
    size = np.abs(truth) + np.abs(point)
    scores = {
        "mase": float((error[kept].mean(axis=1) / scale[kept]).mean()),
        "smape": float(np.mean(200 * np.divide(error, size, out=np.zeros_like(error), where=size > 0))),
    }
    if lower is not None and upper is not None:
        alpha = 1 - coverage
        missed = np.maximum(lower - truth, 0) + np.maximum(truth - upper, 0)
        interval = (upper - lower) + 2 / alpha * missed
        scores["coverage"] = float(((lower <= truth) & (truth <= upper)).mean())
        scores["interval"] = float((interval[kept].mean(axis=1) / scale[kept]).mean())
    return scores
