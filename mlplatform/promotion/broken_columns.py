"""Columns that a broken feed delivers: missing, stuck, late, in another unit, or under one another's names.

A world that drifts and a sensor that breaks both change what rows look like. What tells them apart is that what a feed
did can be undone: read in the old unit, or with two columns exchanged back, the new rows look as the old ones did, in
every column's level and in how the columns go together. That is judged by the Gaussian likelihood of the new rows under
the old ones, as they stand and as each reading makes them (Mahalanobis, On the generalized distance in statistics,
1936). No weather and no worn machine arrives at the old rows exactly by a change of unit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.data import CONVERSIONS, MOST_TOGETHER, copied, exchanges, is_resting, is_stuck, runs_of

Float64 = npt.NDArray[np.float64]
Kind = Literal["missing", "stuck", "late", "unit", "swapped"]

# Fewer rows of an entity say nothing.
LEAST_ROWS = 24
# Of the old share of values so little is as good as none.
PRESENT = 0.1
# Mean squared distance from the old rows, in their own spread and per column: 1 for rows like the old ones. From ODD on
# they ask for an explanation, and readings are one if the rows are odd no more and a small SHARE of it is left: a
# change of unit is undone exactly, and one that is merely near is the world's.
ODD, SHARE = 4.0, 0.2
# Least gain of a reading in log-likelihood per row.
GAIN = 2.0
# Of two columns that are read otherwise some choice leads near to any rows, and so does one for a single cold day. What
# was read back must then be so near to the old rows that no chance leads there: after several readings, of fewer rows
# than the old ones are, and after an exchange where rows are as usual without one of the two, which the world may have
# changed alone.
EXACT = 1.5
# How far the level of a column that was read back may be from the old one, in its spread, and its spread from the old.
LEVEL, SPREAD = 2.0, 2.0
# Share of a column's variance that is taken for noise of measurement, so that columns that settle one another exactly
# do not make the smallest deviation endlessly unlikely.
NOISE = 1e-3


@dataclass(frozen=True)
class BrokenColumn:
    """What a feed seems to have done to columns.

    Attributes:
        kind: `missing`, `stuck`, `late`, `unit` or `swapped`.
        columns: one, or the two that were exchanged.
        entities: those it was found in; empty for a table that is judged as a whole.
        evidence: one sentence for people.
    """

    kind: Kind
    columns: tuple[str, ...]
    entities: tuple[str, ...]
    evidence: str


@dataclass(frozen=True)
class _Reading:
    """One way to read rows: column `i` is `factors[i]` times the new column `order[i]`, plus `offsets[i]`."""

    kind: Kind
    columns: tuple[int, ...]
    words: str
    order: npt.NDArray[np.int64]
    factors: Float64
    offsets: Float64


@dataclass(frozen=True)
class _Moments:
    """Mean and covariance of rows in the old rows' spread, where the old mean is 0."""

    mean: Float64
    covariance: Float64

    def read(self, reading: _Reading) -> _Moments:
        factors = reading.factors
        covariance = self.covariance[np.ix_(reading.order, reading.order)] * np.outer(factors, factors)
        return _Moments(factors * self.mean[reading.order] + reading.offsets, covariance)

    def distance(self, precision: Float64) -> float:
        """Return the mean squared distance from the old rows."""
        return float(((np.outer(self.mean, self.mean) + self.covariance) * precision).sum())

    def is_usual(self, columns: Sequence[int]) -> bool:
        chosen = list(columns)
        widths = np.sqrt(np.diag(self.covariance))[chosen]
        return bool(
            (np.abs(self.mean[chosen]) < LEVEL).all() and (widths < SPREAD).all() and (widths > 1 / SPREAD).all()
        )


@dataclass(frozen=True)
class _Finding:
    """Equal findings in several entities are one: `key` says what was done, `evidence` how it shows in this one."""

    kind: Kind
    columns: tuple[str, ...]
    key: str
    evidence: str


def broken_columns(old: pd.DataFrame, new: pd.DataFrame, columns: Sequence[str]) -> list[BrokenColumn]:
    """Return what a broken feed seems to have done to columns between two sets of rows.

    An entity is compared with itself, in pieces of as many rows as the old ones have and in shorter ones, so that a
    break that began in the middle is seen. Without an entity that has rows enough in both, as in a table, all rows are
    judged together.

    Parameters:
        old, new: rows with `entity_id`, `event_timestamp` and the columns, ordered by entity and time.
        columns: those to judge; others than numbers are judged only by whether they are there.
    """
    found: dict[tuple[Kind, tuple[str, ...], str], dict[str, _Finding]] = {}
    groups = _groups(old, new)
    for entity, (before, after) in groups.items():
        for piece in _pieces(after, len(before)):
            singles = _single(before, piece, columns, is_series=bool(entity))
            for finding in (*singles, *_readings(before, piece, columns)):
                found.setdefault((finding.kind, finding.columns, finding.key), {}).setdefault(entity, finding)
    return [_report(entities, len(groups)) for entities in found.values()]


def late_columns(
    old: pd.DataFrame, later: pd.DataFrame, columns: Sequence[str], longest_lag: int
) -> list[BrokenColumn]:
    """Return the columns of time series that begin to repeat old values, as of a feed that has fallen behind.

    Parameters:
        old: rows of before, as for `broken_columns`.
        later: all rows that came after them, in the same order.
        longest_lag: steps that a feed is looked for to be late by.
    """
    found: dict[tuple[Kind, tuple[str, ...], str], dict[str, _Finding]] = {}
    groups = {entity: rows for entity, rows in _groups(old, later).items() if entity}
    for entity, (before, after) in groups.items():
        for name in columns:
            if not (_is_number(before[name]) and _is_number(after[name])):
                continue
            values = np.concatenate([before[name].to_numpy(np.float64), after[name].to_numpy(np.float64)])
            stretch = copied(values, len(before), longest_lag)
            if stretch is not None:
                since = after[TIMESTAMP].iloc[stretch.start - len(before)]
                evidence = (
                    f"column {name!r} is late: from {since.isoformat()} on it repeats for {stretch.length} rows "
                    f"what it was {stretch.lag} rows before"
                )
                found.setdefault(("late", (name,), ""), {})[entity] = _Finding("late", (name,), "", evidence)
    return [_report(entities, len(groups)) for entities in found.values()]


def _report(found: Mapping[str, _Finding], judged: int) -> BrokenColumn:
    entity, first = next(iter(found.items()))
    names = tuple(name for name in found if name)
    others = f" ({entity!r}, and as much in {len(names) - 1} of the {judged - 1} others)" if names else ""
    return BrokenColumn(first.kind, first.columns, names, first.evidence + others)


def _groups(old: pd.DataFrame, new: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return entity -> its old and its new rows; the name of all rows together is empty."""
    before, after = ({str(key): rows for key, rows in frame.groupby(ENTITY, sort=False)} for frame in (old, new))
    shared = {
        entity: (rows, after[entity])
        for entity, rows in before.items()
        if entity in after and min(len(rows), len(after[entity])) >= LEAST_ROWS
    }
    return shared or ({"": (old, new)} if min(len(old), len(new)) >= LEAST_ROWS else {})


def _pieces(rows: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    """Yield the rows in pieces of a size, then of half of it and so on, the newest first.

    A piece that holds rows of before and after a break looks like neither.
    """
    while size >= LEAST_ROWS:
        for end in range(len(rows), 0, -size):
            if end >= LEAST_ROWS:
                yield rows.iloc[max(0, end - size) : end]
        size //= 2


def _single(old: pd.DataFrame, new: pd.DataFrame, columns: Sequence[str], *, is_series: bool) -> Iterator[_Finding]:
    """Yield the columns that are missing or stuck.

    Parameters:
        is_series: whether the rows follow each other; of others a column is stuck if it has one value only.
    """
    for name in columns:
        before, after = old[name], new[name]
        if not before.notna().any():
            continue
        if after.notna().mean() < PRESENT * before.notna().mean():
            shares = f"{after.notna().mean():.0%} of the rows, and before in {before.notna().mean():.0%}"
            yield _Finding("missing", (name,), "", f"column {name!r} has a value in {shares}")
        elif _is_number(before) and _is_number(after):
            earlier = before.to_numpy(np.float64)
            lengths, values = runs_of(after.to_numpy(np.float64))
            held, longest = int(runs_of(earlier)[0].max(initial=0)), int(lengths.argmax())
            holds, value = int(lengths[longest]), float(values[longest])
            if is_series:
                stands = is_stuck(holds, value, earlier, LEAST_ROWS)
            else:
                stands = holds >= LEAST_ROWS and len(lengths) == 1 < before.nunique() and not is_resting(value, earlier)
            if stands:
                evidence = f"column {name!r} keeps one value for {holds} rows, and before for {held} at most"
                yield _Finding("stuck", (name,), "", evidence)


def _is_number(values: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(values)


def _readings(old: pd.DataFrame, new: pd.DataFrame, columns: Sequence[str]) -> Iterator[_Finding]:
    """Yield the units and exchanges which undone make odd rows usual."""
    names = [name for name in columns if _is_number(old[name]) and _is_number(new[name])]
    names = [name for name in names if old[name].std() > 0 and new[name].std() > 0]
    for first in range(0, len(names), MOST_TOGETHER):
        group = names[first : first + MOST_TOGETHER]
        before, after = (frame[group].dropna().to_numpy(np.float64) for frame in (old, new))
        if group and min(len(before), len(after)) >= max(LEAST_ROWS, 2 * len(group)):
            yield from _explained(before, after, group)


def _explained(old: Float64, new: Float64, names: Sequence[str]) -> Iterator[_Finding]:
    level, spread = old.mean(axis=0), old.std(axis=0)
    # A column may have stood still in the rows where all are there.
    spread = np.where(spread > 0, spread, 1.0)
    precision: Float64 = np.asarray(
        np.linalg.inv(_covariance((old - level) / spread) + NOISE * np.eye(len(names))), dtype=np.float64
    )
    scaled = (new - level) / spread
    rows = as_they_stand = _Moments(scaled.mean(axis=0), _covariance(scaled))
    if as_they_stand.distance(precision) < ODD * len(names):
        return
    chosen: list[_Reading] = []
    # The likeliest reading first, and the next on what it left: several columns may be broken.
    while (best := _likeliest(rows, names, level, spread, precision, chosen)) is not None:
        chosen.append(best)
        rows = rows.read(best)
    was, is_now = (moments.distance(precision) / len(names) for moments in (as_they_stand, rows))
    if is_now > (min(ODD, SHARE * was) if len(chosen) == 1 and len(new) >= len(old) else EXACT):
        return
    for reading in chosen:
        affected = tuple(names[column] for column in reading.columns)
        evidence = (
            f"{reading.words}: read back, the rows are {is_now:.3g} from those of before, "
            f"and as they stand {was:.3g} (mean squared distance per column; rows like those of before have 1)"
        )
        yield _Finding(reading.kind, affected, reading.words, evidence)


def _covariance(rows: Float64) -> Float64:
    return np.asarray(np.atleast_2d(np.cov(rows, rowvar=False)), dtype=np.float64)


def _likeliest(
    rows: _Moments,
    names: Sequence[str],
    level: Float64,
    spread: Float64,
    precision: Float64,
    chosen: Sequence[_Reading],
) -> _Reading | None:
    """Return the reading of columns not read otherwise yet that gains most in likelihood; None if none gains enough."""
    taken = {column for reading in chosen for column in reading.columns}
    distance = rows.distance(precision)
    best, most = None, GAIN
    for reading in _possible(names, level, spread):
        if taken.isdisjoint(reading.columns):
            moments = rows.read(reading)
            # Of a density, a reading that shrinks the numbers makes more of them than there is.
            gain = (distance - moments.distance(precision)) / 2 + math.log(abs(float(reading.factors.prod())))
            if gain > most and moments.is_usual(reading.columns) and _is_needed(reading, rows, moments, precision):
                best, most = reading, gain
    return best


def _is_needed(reading: _Reading, rows: _Moments, read: _Moments, precision: Float64) -> bool:
    """Return whether a change of one column alone explains less than an exchange of two does.

    Parameters:
        rows, read: as they stand, and as the reading makes them.
    """
    columns = len(precision)
    is_near = read.distance(precision) / columns
    if reading.kind != "swapped" or is_near <= EXACT or columns < len(reading.columns) + 1:
        return True
    covariance = np.linalg.inv(precision)
    for column in reading.columns:
        rest = np.delete(np.arange(columns), column)
        places = np.ix_(rest, rest)
        without = _Moments(rows.mean[rest], rows.covariance[places])
        if without.distance(np.asarray(np.linalg.inv(covariance[places]), dtype=np.float64)) / len(rest) <= is_near:
            return False
    return True


def _possible(names: Sequence[str], level: Float64, spread: Float64) -> Iterator[_Reading]:
    """Yield every reading, in the old rows' spread."""
    columns = len(level)
    for column, unit in itertools.product(range(columns), CONVERSIONS):
        factors, offsets = np.ones(columns), np.zeros(columns)
        factors[column] = 1 / unit.factor
        offsets[column] = ((level[column] - unit.offset) / unit.factor - level[column]) / spread[column]
        words = f"column {names[column]!r} seems to be in another unit ({unit.words})"
        yield _Reading("unit", (column,), words, np.arange(columns), factors, offsets)
    for swap in exchanges(names):
        pair = (names.index(swap.first), names.index(swap.second))
        order, there = np.arange(columns), list(pair)
        order[there] = order[there[::-1]]
        factors = spread[order] / spread
        offsets = (level[order] - level) / spread
        yield _Reading("swapped", pair, swap.words, order, factors, offsets)
