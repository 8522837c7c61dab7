"""Whether one pair is better than another or was lucky: a paired block bootstrap over the reference samples.

Both pairs answer the same samples, so what is drawn is the sample with both answers: what makes it hard for both
cancels out. Samples that lie near one another in time err together; they are drawn in blocks of consecutive steps, all
entities of a step at once (Künsch, The jackknife and the bootstrap for general stationary observations, Annals of
Statistics, 1989; in circular form Politis and Romano, 1992, and The stationary bootstrap, JASA, 1994). Rows of a table
are drawn one by one (Efron, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Int64

Float64 = npt.NDArray[np.float64]
Scores = tuple[Callable[[Int64], float], Callable[[Int64], float]]

REPEATS = 2000
# Where a metric is not a mean it is computed anew for every draw.
SCORE_REPEATS = 400
COVERAGE = 0.95
# With fewer blocks of steps than this, entities are drawn, if there are so many.
LEAST_BLOCKS = 8
# Units beyond this are drawn in groups of neighbours: a bound on time and memory.
MOST_UNITS = 10_000
CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """A candidate beside a champion on the same samples.

    Attributes:
        effect: loss of the candidate minus that of the champion, in the metric's unit; below 0 the candidate is better.
        low, high: the interval around it that holds `coverage` of the draws.
        probability: share of the draws in which the candidate is better; draws without a difference count half.
        units: how many units were drawn from.
        unit: what they are: `step`, `entity` or `row`.
        block_length: consecutive units that were drawn together.
    """

    effect: float
    low: float
    high: float
    probability: float
    units: int
    unit: str
    block_length: int
    repeats: int
    coverage: float = COVERAGE

    def words(self) -> str:
        """Return effect, interval and probability for people."""
        drawn = f"blocks of {self.block_length} {self.unit}s" if self.block_length > 1 else f"single {self.unit}s"
        return (
            f"better with probability {self.probability:.3g} (difference {self.effect:+.3g}, {self.coverage:.0%} "
            f"interval {self.low:+.3g} to {self.high:+.3g}, {self.units} {self.unit}s drawn as {drawn})"
        )


@dataclass(frozen=True)
class Units:
    """What is drawn: every sample belongs to one unit, and units are in an order where neighbours may err together.

    Attributes:
        of: unit of every sample, of shape (samples,), from 0.
        count: number of units.
        least: least block length, in units.
        is_serial: whether neighbours may depend on one another, so that blocks may be longer.
    """

    of: Int64
    count: int
    kind: str
    least: int = 1
    is_serial: bool = False


def row_units(samples: int) -> Units:
    """Return the units of a table: its rows."""
    count = min(samples, MOST_UNITS)
    return Units(np.arange(samples, dtype=np.int64) * count // max(samples, 1), count, "row")


def forecast_units(times: npt.NDArray[np.datetime64], entities: npt.NDArray[np.generic], horizon: int) -> Units:
    """Return the units of forecasts: steps in time; entities where there are more of these than blocks of steps.

    The errors of two forecasts overlap for `horizon` steps, so no block is shorter.

    Parameters:
        times, entities: of the samples, of shape (samples,).
    """
    moments, step = np.unique(times, return_inverse=True)
    known, entity = np.unique(entities.astype(str), return_inverse=True)
    if len(moments) < LEAST_BLOCKS * horizon and len(known) >= LEAST_BLOCKS:
        return Units(entity.astype(np.int64), len(known), "entity")
    count = min(len(moments), MOST_UNITS)
    least = math.ceil(horizon * count / max(len(moments), 1))
    # Of a short reference set at least two blocks, or every draw would be the whole.
    least = max(1, min(least, count // 2))
    return Units(step.astype(np.int64) * count // max(len(moments), 1), count, "step", least, is_serial=True)


def compare_losses(candidate: Float64, champion: Float64, units: Units, seed: int = 0) -> Comparison:
    """Compare two pairs by their losses.

    Parameters:
        candidate, champion: the loss of every sample, of shape (samples,); smaller is better.

    Raises:
        ValueError: if the shapes differ from the units'.
    """
    if candidate.shape != units.of.shape or champion.shape != units.of.shape or not len(units.of):
        raise ValueError(f"losses of shape {candidate.shape} and {champion.shape} for {units.of.shape} samples")
    difference = candidate.astype(np.float64) - champion
    sums, counts, length = _per_unit(difference, units)
    rng = np.random.default_rng(seed)
    draws = np.empty(REPEATS)
    at_once = max(1, CELLS_AT_ONCE // units.count)
    for first in range(0, REPEATS, at_once):
        chosen = draw_units(units.count, length, min(at_once, REPEATS - first), rng)
        draws[first : first + len(chosen)] = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    return _comparison(float(difference.mean()), draws, units, length)


def compare_scores(scores: Scores, difference: Float64, units: Units, seed: int = 0) -> Comparison:
    """Compare two pairs by a metric that is no mean of losses, computed again for every draw of samples.

    Parameters:
        scores: of candidate and champion: from the indices of samples to a score of which smaller is better. A draw
            for which one of them has none (NaN or ValueError, as of a class that was not drawn) is left out.
        difference: of the errors of the samples, of shape (samples,): what tells how long neighbours err together.

    Raises:
        ValueError: if no draw could be scored.
    """
    _, _, length = _per_unit(difference, units)
    order = np.argsort(units.of, kind="stable")
    sizes = np.bincount(units.of, minlength=units.count)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(SCORE_REPEATS):
        chosen = draw_units(units.count, length, 1, rng)[0]
        many = sizes[chosen]
        within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        draws.append(_score_difference(scores, order[np.repeat(starts[chosen], many) + within]))
    found = np.asarray(draws)
    found = found[np.isfinite(found)]
    if not len(found):
        raise ValueError("the metric could not be computed for any draw of the reference samples")
    return _comparison(_score_difference(scores, np.arange(len(units.of))), found, units, length)


def draw_units(count: int, length: int, repeats: int, rng: np.random.Generator) -> Int64:
    """Return drawn units, of shape (repeats, count): blocks of `length` neighbours, the last one cut to fit.

    After the last unit comes the first again, so that all are drawn equally often.
    """
    blocks = -(-count // length)
    starts = rng.integers(0, count, (repeats, blocks, 1))
    drawn = (starts + np.arange(length)) % count
    return np.asarray(drawn.reshape(repeats, -1)[:, :count], dtype=np.int64)


def block_length(values: Float64) -> int:
    """Return the block length that suits how a series depends on its own past, at least 1.

    Politis and White, Automatic block-length selection for the dependent bootstrap, Econometric Reviews, 2004, with
    the correction of Patton, Politis and White, 2009, for the circular bootstrap.

    Parameters:
        values: of shape (steps,).
    """
    steps = len(values)
    centred = values - values.mean()
    variance = float(centred @ centred) / steps
    if steps < LEAST_BLOCKS or variance <= 0:
        return 1
    run = max(5, math.ceil(math.sqrt(math.log10(steps))))
    most = min(steps - 1, math.ceil(math.sqrt(steps)) + run)
    covariances = np.asarray([centred[lag:] @ centred[: steps - lag] / steps for lag in range(most + 1)])
    small = np.abs(covariances[1:] / variance) < 2 * math.sqrt(math.log10(steps) / steps)
    quiet = [lag for lag in range(most - run + 1) if small[lag : lag + run].all()]
    width = min(2 * max(quiet[0] if quiet else most, 1), most)
    lags = np.arange(1, width + 1)
    weights = np.clip(2 * (1 - lags / width), 0, 1)
    spectrum = covariances[0] + 2 * float(weights @ covariances[lags])
    slope = 2 * float(weights @ (lags * covariances[lags]))
    if spectrum <= 0:
        return 1
    length = (1.5 * slope**2 / spectrum**2 * steps) ** (1 / 3)
    return int(np.clip(math.ceil(length), 1, max(1, math.ceil(min(3 * math.sqrt(steps), steps / 3)))))


def _per_unit(difference: Float64, units: Units) -> tuple[Float64, Float64, int]:
    """Return sums and counts of every unit, and how many neighbours are drawn together."""
    sums: Float64 = np.bincount(units.of, difference, minlength=units.count).astype(np.float64)
    counts = np.bincount(units.of, minlength=units.count).astype(np.float64)
    length = units.least
    if units.is_serial:
        length = min(max(length, block_length(sums / counts)), max(1, units.count // 2))
    return sums, counts, length


def _score_difference(scores: Scores, chosen: Int64) -> float:
    try:
        return scores[0](chosen) - scores[1](chosen)
    except ValueError:
        return math.nan


def _comparison(effect: float, draws: Float64, units: Units, length: int) -> Comparison:
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    better = float(np.mean(draws < 0) + np.mean(draws == 0) / 2)
    return Comparison(effect, float(low), float(high), better, units.count, units.kind, length, len(draws))
