"""Split-conformal calibration: from a model's own bounds to prediction intervals with the coverage asked for.

Scores are conformalised quantile regression's (Romano, Patterson and Candès, NeurIPS 2019): how far the truth lies
outside the model's bounds. A model without quantiles has its point prediction for both bounds, which makes the score
the absolute residual (Lei et al., Distribution-Free Predictive Inference for Regression, JASA 2018). For forecasts the
scores are divided by the difficulty of the window (the locally weighted variant of the same paper), so that intervals
learnt in a restless season are narrower in a calm one.

`Calibration.fit` has one margin for both bounds and one measure of difficulty. `Calibration.chosen` also tries a margin
for each bound, and windows measured by their scale, and keeps what has the least interval score (Gneiting and Raftery,
Strictly Proper Scoring Rules, JASA 2007) on folds that it did not learn from; later folds weigh more (Barber et al.,
Conformal prediction beyond exchangeability, Annals of Statistics 2023).

Several coverages are calibrated on the same scores, and in the same way: the one with the least weighted interval score
(Bracher et al., Evaluating epidemic forecasts in an interval format, PLOS Computational Biology 2021).

Held-out samples of a time series are not exchangeable with the future, so the guarantee of the theorem does not hold
there; the coverage on the reference set is measured and reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32, ModelSpec, Samples, WindowSamples
from mlplatform.models.window_scale import seasonal_scales, windows_of

# The difficulty of a window in which nothing moves: in preprocessed units, or as a share of the window's scale.
LEAST_DIFFICULTY = 1e-3
# What the difficulty of a window is measured by: its changes over a horizon, its scale, or the mean of the two. `moves`
# are changes, too, of values that come in units of their own: the least of them is a share of the scale.
Difficulty = Literal["changes", "moves", "scale", "both"]
# Weight of a fold beside that of the one after it.
FOLD_DECAY = 0.7
# By how many tenths of the misses that a coverage allows its level is raised at most.
MOST_RAISED = 7
# Windows per block of the difficulties: bounds memory, whatever the number of samples.
BLOCK = 8192


class Bounds(NamedTuple):
    """The bounds of prediction intervals, in the shape of the point predictions.

    Attributes:
        coverage: share of truths that they are meant to cover.
    """

    lower: Float32
    upper: Float32
    coverage: float

    def map(self, change: Callable[[Float32], Float32]) -> Bounds:
        """Return what a function makes of both bounds."""
        return Bounds(change(self.lower), change(self.upper), self.coverage)


class Intervals(NamedTuple):
    """Point predictions with the bounds of their intervals, arrays of the shape that `Model.predict` returns.

    Attributes:
        others: the bounds of further coverages, where they are not those of the first.
    """

    point: Float32
    lower: Float32
    upper: Float32
    others: tuple[Bounds, ...] = ()

    def at(self, coverage: float) -> Intervals:
        """Return the intervals of one coverage."""
        for lower, upper, covers in self.others:
            if covers == coverage:
                return Intervals(self.point, lower, upper)
        return Intervals(self.point, self.lower, self.upper)

    def bounds(self, coverage: float) -> tuple[Bounds, ...]:
        """Return all bounds, those of the main coverage, which is given, first."""
        return Bounds(self.lower, self.upper, coverage), *self.others

    def map(self, change: Callable[[Float32], Float32]) -> Intervals:
        """Return what a function makes of every array."""
        others = tuple(each.map(change) for each in self.others)
        return Intervals(change(self.point), change(self.lower), change(self.upper), others)


def nested(bounds: Sequence[Bounds]) -> tuple[Bounds, ...]:
    """Return bounds, in the order given, of which none lies inside those of a smaller coverage."""
    found: dict[float, Bounds] = {}
    inner: Bounds | None = None
    for each in sorted(bounds, key=lambda one: one.coverage):
        if inner is not None:
            each = Bounds(np.minimum(each.lower, inner.lower), np.maximum(each.upper, inner.upper), each.coverage)
        found[each.coverage] = inner = each
    return tuple(found[each.coverage] for each in bounds)


@dataclass(frozen=True)
class Calibration:
    """What widens (or narrows) a model's bounds so that they cover the share of truths that was asked for.

    Attributes:
        coverage: share of truths that the intervals are meant to cover.
        margins: of shape (horizon, targets) for forecasts, in units of the window's difficulty; of shape () otherwise,
            in preprocessed units. A negative margin narrows.
        samples: number of held-out samples behind the margins.
        lower_margins: those of the lower bounds, where the bounds have margins of their own.
        difficulty: what a window's difficulty is measured by.
        season: of the windows' scale, in steps.
        others: those of further coverages, learnt in the same way.
    """

    coverage: float
    margins: npt.NDArray[np.float32]
    samples: int
    lower_margins: npt.NDArray[np.float32] | None = None
    difficulty: Difficulty = "changes"
    season: int = 0
    others: tuple[Calibration, ...] = ()

    @property
    def coverages(self) -> tuple[float, ...]:
        """All coverages, the main one first."""
        return self.coverage, *(each.coverage for each in self.others)

    @classmethod
    def fit(
        cls,
        held_out: Sequence[tuple[Samples, Intervals]],
        *coverages: float,
        kind: Difficulty = "changes",
        season: int = 0,
    ) -> Calibration:
        """Learn the margins from samples that the models behind the bounds were not fitted on.

        Parameters:
            held_out: per fold, its validation samples and the bounds that the fold's model gave them.
            coverages: the main one first; of the others those are left out that the samples are too few for.
            kind: what the difficulty of a forecast's window is measured by (`changes_of`).
            season: length of the season in steps.

        Raises:
            ValueError: if there are too few samples for the main coverage.
        """
        coverage, *others = coverages
        scores = np.concatenate([_scores(samples, bounds.at(coverage), kind, season) for samples, bounds in held_out])
        # The rank with the finite-sample correction of split-conformal prediction.
        rank = int(np.ceil((len(scores) + 1) * coverage))
        if rank > len(scores):
            raise ValueError(
                f"{len(scores)} held-out samples are too few to calibrate intervals with coverage {coverage}; at least "
                f"{int(np.ceil(round(coverage / (1 - coverage), 6)))} are needed"
            )
        margins = np.partition(scores, rank - 1, axis=0)[rank - 1]
        reached = [other for other in others if np.ceil((len(scores) + 1) * other) <= len(scores)]
        return cls(
            coverage=coverage,
            margins=np.asarray(margins, dtype=np.float32),
            samples=len(scores),
            difficulty=kind,
            season=season if kind != "changes" else 0,
            others=tuple(cls.fit(held_out, other, kind=kind, season=season) for other in reached),
        )

    @classmethod
    def chosen(
        cls,
        held_out: Sequence[tuple[Samples, Intervals]],
        *coverages: float,
        season: int,
        is_raised: bool = False,
        kind: Difficulty = "changes",
    ) -> Calibration:
        """Learn the margins in the way that had the least interval score on folds left out one after another.

        With a single fold there is nothing to choose by: each bound has a margin where there are samples enough.

        Parameters:
            held_out: as for `fit`, the earliest fold first.
            coverages: as for `fit`.
            season: length of the season in steps.
            is_raised: whether margins are made wider while they would not cover enough of a fold left out.
            kind: as for `fit`; the window's scale, and the mean of both, are tried beside it.

        Raises:
            ValueError: if there are too few samples for the main coverage.
        """
        is_forecast = isinstance(held_out[0][0], WindowSamples)
        kinds: tuple[Difficulty, ...] = (kind, "scale", "both") if is_forecast else (kind,)
        ways = [(each, is_split) for is_split in (True, False) for each in kinds]
        losses = {way: _left_out_loss(held_out, coverages, season, *way) for way in ways} if len(held_out) > 1 else {}
        # The first of equals; where no way could be tried, the first that has samples enough.
        for way in sorted(ways, key=lambda way: losses.get(way, 0.0)):
            try:
                made = _learnt(held_out, coverages, season, *way)
            except ValueError:
                continue
            return _raised(made, held_out) if is_raised and len(held_out) > 1 else made
        return cls.fit(held_out, *coverages, kind=kind, season=season)

    def apply(self, bounds: Intervals, samples: Samples) -> Intervals:
        """Return calibrated intervals; a bound never crosses the point prediction, nor that of a smaller coverage."""
        units = difficulty(samples, self.difficulty, self.season)
        main, *others = nested([each._moved(bounds.at(each.coverage), units) for each in (self, *self.others)])
        return Intervals(bounds.point, main.lower, main.upper, tuple(others))

    def _moved(self, bounds: Intervals, units: Float32) -> Bounds:
        below = self.margins if self.lower_margins is None else self.lower_margins
        lower = np.minimum(bounds.lower - below * units, bounds.point)
        upper = np.maximum(bounds.upper + self.margins * units, bounds.point)
        return Bounds(lower, upper, self.coverage)

    def to_json(self) -> str:
        """Return the calibration as JSON; its numbers keep every bit, and what came later stands only where it is."""
        return json.dumps(self._values())

    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = {"coverage": self.coverage, "margins": self.margins.tolist(), "samples": self.samples}
        if self.lower_margins is not None:
            values["lower_margins"] = self.lower_margins.tolist()
        if self.difficulty != "changes":
            values |= {"difficulty": self.difficulty, "season": self.season}
        if self.others:
            values["others"] = [each._values() for each in self.others]
        return values

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Rebuild what `to_json` wrote."""
        return cls._of(json.loads(text))

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Calibration:
        values = {**values, "others": tuple(cls._of(each) for each in values.get("others", ()))}
        for key in ("margins", "lower_margins"):
            if key in values:
                values[key] = np.asarray(values[key], dtype=np.float32)
        return cls(**values)


def changes_of(spec: ModelSpec) -> Difficulty:
    """Return how the changes inside the windows of a model are measured: by their scale where they come as they are."""
    return "moves" if spec.scaling else "changes"


def difficulty(samples: Samples, kind: Difficulty = "changes", season: int = 0) -> Float32:
    """Return how much each sample's window moves, in preprocessed units.

    For a forecast, of shape (samples, 1, targets): the mean absolute change over a horizon (at most half the window)
    inside the window, the window's scale, or the geometric mean of both. For tabular data: 1, of shape ().
    """
    if not isinstance(samples, WindowSamples) or samples.lookback < 2:
        return np.asarray(1.0, dtype=np.float32)
    if kind == "changes":
        return np.maximum(_changes(samples), np.float32(LEAST_DIFFICULTY))
    scales = np.stack([seasonal_scales(samples, season, target) for target in samples.targets], axis=-1)[:, None, :]
    if kind == "scale":
        return scales
    if kind == "moves":
        moves: Float32 = np.maximum(_changes(samples), np.float32(LEAST_DIFFICULTY) * scales)
        return moves
    # A window in which nothing moves over a horizon keeps a share of its scale.
    units: Float32 = np.sqrt(scales * np.maximum(_changes(samples), np.float32(LEAST_DIFFICULTY) * scales))
    return units


def _changes(samples: WindowSamples) -> Float32:
    """Return the mean absolute change over a horizon inside every window, of shape (samples, 1, targets)."""
    span = min(samples.horizon, samples.lookback // 2)
    changes = np.empty((len(samples), 1, len(samples.targets)), dtype=np.float32)
    for position, target in enumerate(samples.targets):
        column = np.ascontiguousarray(samples.values[:, target])
        moved = np.abs(column[span:] - column[:-span])
        # Each window is summed on its own: a running total would carry rounding from rows before the window.
        windows = windows_of(moved, samples.lookback - span)
        for start in range(0, len(samples), BLOCK):
            first = samples.origins[start : start + BLOCK] - (samples.lookback - 1)
            block = windows[first]
            known = np.isfinite(block)
            sums = np.where(known, block, np.float32(0)).sum(axis=1)
            changes[start : start + BLOCK, 0, position] = sums / np.maximum(known.sum(axis=1), 1)
    return changes


def _scores(samples: Samples, bounds: Intervals, kind: Difficulty, season: int) -> Float32:
    truth = samples.outputs() if isinstance(samples, WindowSamples) else samples.labels
    outside = np.maximum(bounds.lower - truth, truth - bounds.upper)
    scores: Float32 = outside / difficulty(samples, kind, season)
    return scores


def _truth(samples: Samples) -> Float32:
    return samples.outputs() if isinstance(samples, WindowSamples) else samples.labels


def _learnt(
    held_out: Sequence[tuple[Samples, Intervals]],
    coverages: Sequence[float],
    season: int,
    kind: Difficulty,
    is_split: bool,
) -> Calibration:
    """Learn the margins of all coverages in one way.

    Raises:
        ValueError: if there are too few samples for it.
    """
    main, *others = (_learnt_for(held_out, coverage, season, kind, is_split) for coverage in coverages)
    return replace(main, others=tuple(others))


def _learnt_for(
    held_out: Sequence[tuple[Samples, Intervals]], coverage: float, season: int, kind: Difficulty, is_split: bool
) -> Calibration:
    below, above = [], []
    for samples, intervals in held_out:
        truth, units, bounds = _truth(samples), difficulty(samples, kind, season), intervals.at(coverage)
        below.append((bounds.lower - truth) / units)
        above.append((truth - bounds.upper) / units)
    lengths = [len(samples) for samples, _ in held_out]
    weights = np.repeat([FOLD_DECAY**age for age in range(len(lengths))][::-1], lengths)
    low, high = np.concatenate(below), np.concatenate(above)
    if not is_split:
        margins = _quantile(np.maximum(low, high), weights, coverage)
        return Calibration(coverage, margins, len(weights), None, kind, season)
    level = (1 + coverage) / 2
    lower, upper = _quantile(low, weights, level), _quantile(high, weights, level)
    return Calibration(coverage, upper, len(weights), lower, kind, season)


def _raised(made: Calibration, held_out: Sequence[tuple[Samples, Intervals]]) -> Calibration:
    """Return the calibration with the least higher levels at which folds left out are covered, each coverage alone."""
    main, *others = (_raised_alone(each, held_out) for each in (made, *made.others))
    return replace(main, others=tuple(others))


def _raised_alone(made: Calibration, held_out: Sequence[tuple[Samples, Intervals]]) -> Calibration:
    def learnt(folds: Sequence[tuple[Samples, Intervals]], tenths: int) -> Calibration:
        level = made.coverage + (1 - made.coverage) * tenths / 10
        found = _learnt_for(folds, level, made.season, made.difficulty, made.lower_margins is not None)
        return replace(found, coverage=made.coverage)

    found = replace(made, others=())
    weights = [FOLD_DECAY**age for age in range(len(held_out))][::-1]
    for tenths in range(MOST_RAISED + 1):
        try:
            raised = learnt(held_out, tenths)
            shares = []
            for position, (samples, bounds) in enumerate(held_out):
                others = [fold for place, fold in enumerate(held_out) if place != position]
                inside, truth = learnt(others, tenths).apply(bounds, samples), _truth(samples)
                shares.append(float(((inside.lower <= truth) & (truth <= inside.upper)).mean()))
        except ValueError:
            break  # the samples do not reach so far
        found = raised
        if np.average(shares, weights=weights) >= made.coverage:
            break
    return found


def _quantile(scores: Float32, weights: npt.NDArray[np.float64], level: float) -> npt.NDArray[np.float32]:
    """Return the weighted quantile over the samples, with the weight of the sample to come among the largest scores.

    Raises:
        ValueError: if the samples do not reach the level.
    """
    order = np.argsort(scores, axis=0)
    reached = np.cumsum(weights[order], axis=0) >= level * (weights.sum() + weights.max()) - 1e-9
    if not reached[-1].all():
        raise ValueError(f"{len(scores)} held-out samples are too few for the level {level:g}")
    first = np.argmax(reached, axis=0)[None]
    margins = np.take_along_axis(np.take_along_axis(scores, order, axis=0), first, axis=0)[0]
    return np.asarray(margins, dtype=np.float32)


def _left_out_loss(
    held_out: Sequence[tuple[Samples, Intervals]],
    coverages: Sequence[float],
    season: int,
    kind: Difficulty,
    is_split: bool,
) -> float:
    """Return the mean interval score, in units of the windows' scales, of folds left out one after another.

    Those of several coverages are weighted by the share of misses that each allows.
    """
    losses = []
    for position, (samples, bounds) in enumerate(held_out):
        others = [fold for place, fold in enumerate(held_out) if place != position]
        try:
            made = _learnt(others, coverages, season, kind, is_split).apply(bounds, samples)
        except ValueError:
            return float("inf")
        truth, units = _truth(samples), difficulty(samples, "scale", season)
        for lower, upper, coverage in made.bounds(coverages[0]):
            missed = np.maximum(lower - truth, 0) + np.maximum(truth - upper, 0)
            score = upper - lower + 2 / (1 - coverage) * missed
            losses.append((1 - coverage) / (1 - coverages[0]) * float(np.mean(score / units)))
    return float(np.mean(losses))
