"""Histograms as Prometheus counts them, kept in plain numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# From a tenth of a millisecond, which a window takes to be read, to the deadline of requests.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """How often a value fell into which bucket.

    Parameters:
        bounds: the buckets' upper bounds, ascending; one without a bound comes after them.

    Attributes:
        total: sum of the values.
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return, per upper bound, how many values were at most that large."""
        running, buckets = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            buckets.append((bound, float(running)))
        return buckets
