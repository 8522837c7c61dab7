"""Split-conformal calibration: from a model's own bounds to prediction intervals with the coverage asked for.

Scores are conformalised quantile regression's (Romano, Patterson and Candès, NeurIPS 2019): how far the truth lies
outside the model's bounds. A model without quantiles has its point prediction for both bounds, which makes the score
the absolute residual (Lei et al., Distribution-Free Predictive Inference for Regression, JASA 2018). For forecasts the
scores are divided by the difficulty of the window (the locally weighted variant of the same paper), so that intervals
learnt in a restless season are narrower in a calm one.

Held-out samples of a time series are not exchangeable with the future, so the guarantee of the theorem does not hold
there; the coverage on the reference set is measured and reported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32, Samples, WindowSamples

# In preprocessed units: the difficulty of a window in which nothing moves.
LEAST_DIFFICULTY = 1e-3
# Windows per block of the difficulties: bounds memory, whatever the number of samples.
BLOCK = 8192


class Intervals(NamedTuple):
    """Point predictions with the bounds of their intervals, three arrays of the shape that `Model.predict` returns."""

    point: Float32
    lower: Float32
    upper: Float32


@dataclass(frozen=True)
class Calibration:
    """What widens (or narrows) a model's bounds so that they cover the share of truths that was asked for.

    Attributes:
        coverage: share of truths that the intervals are meant to cover.
        margins: of shape (horizon, targets) for forecasts, in units of the window's difficulty; of shape () otherwise,
            in preprocessed units. A negative margin narrows.
        samples: number of held-out samples behind the margins.
    """

    coverage: float
    margins: npt.NDArray[np.float32]
    samples: int

    @classmethod
    def fit(cls, held_out: Sequence[tuple[Samples, Intervals]], coverage: float) -> Calibration:
        """Learn the margins from samples that the models behind the bounds were not fitted on.

        Parameters:
            held_out: per fold, its validation samples and the bounds that the fold's model gave them.

        Raises:
            ValueError: if there are too few samples for the coverage.
        """
        scores = np.concatenate([_scores(samples, bounds) for samples, bounds in held_out])
        # The rank with the finite-sample correction of split-conformal prediction.
        rank = int(np.ceil((len(scores) + 1) * coverage))
        if rank > len(scores):
            raise ValueError(
                f"{len(scores)} held-out samples are too few to calibrate intervals with coverage {coverage}; at least "
                f"{int(np.ceil(round(coverage / (1 - coverage), 6)))} are needed"
            )
        margins = np.partition(scores, rank - 1, axis=0)[rank - 1]
        return cls(coverage, np.asarray(margins, dtype=np.float32), len(scores))

    def apply(self, bounds: Intervals, samples: Samples) -> Intervals:
        """Return calibrated intervals; a bound never crosses the point prediction."""
        margins = self.margins * difficulty(samples)
        lower = np.minimum(bounds.lower - margins, bounds.point)
        upper = np.maximum(bounds.upper + margins, bounds.point)
        return Intervals(bounds.point, lower, upper)

    def to_json(self) -> str:
        """Return the calibration as JSON; its numbers keep every bit."""
        values: dict[str, Any] = {"coverage": self.coverage, "margins": self.margins.tolist(), "samples": self.samples}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Rebuild what `to_json` wrote."""
        values = json.loads(text)
        return cls(values["coverage"], np.asarray(values["margins"], dtype=np.float32), values["samples"])


def difficulty(samples: Samples) -> Float32:
    """Return how much each sample's window moves, in preprocessed units.

    For a forecast: the mean absolute change over a horizon (at most half the window) inside the window, per target, of
    shape (samples, 1, targets). For tabular data: 1, of shape ().
    """
    if not isinstance(samples, WindowSamples) or samples.lookback < 2:
        return np.asarray(1.0, dtype=np.float32)
    span = min(samples.horizon, samples.lookback // 2)
    changes = np.empty((len(samples), 1, len(samples.targets)), dtype=np.float32)
    for position, target in enumerate(samples.targets):
        column = np.ascontiguousarray(samples.values[:, target])
        moved = np.abs(column[span:] - column[:-span])
        # Each window is summed on its own: a running total would carry rounding from rows before the window.
        windows = np.lib.stride_tricks.sliding_window_view(moved, samples.lookback - span)
        for start in range(0, len(samples), BLOCK):
            first = samples.origins[start : start + BLOCK] - (samples.lookback - 1)
            block = windows[first]
            known = np.isfinite(block)
            sums = np.where(known, block, np.float32(0)).sum(axis=1)
            changes[start : start + BLOCK, 0, position] = sums / np.maximum(known.sum(axis=1), 1)
    return np.maximum(changes, np.float32(LEAST_DIFFICULTY))


def _scores(samples: Samples, bounds: Intervals) -> Float32:
    truth = samples.outputs() if isinstance(samples, WindowSamples) else samples.labels
    outside = np.maximum(bounds.lower - truth, truth - bounds.upper)
    scores: Float32 = outside / difficulty(samples)
    return scores
