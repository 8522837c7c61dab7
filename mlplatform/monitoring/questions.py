"""Every question a report asks about its features, and which answers are more than chance.

All questions of a report share one false-discovery rate, so that fifty features raise no more false alarms than one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mlplatform.monitoring.blocks import UNSEEN, Blocks
from mlplatform.monitoring.calibration import discoveries
from mlplatform.monitoring.evidence import Evidence, Judge, left_of
from mlplatform.monitoring.statistics import (
    category_distances,
    category_shares,
    correlation_matrices,
    daily_shape,
    independent,
    level,
    made_even,
    own_share,
    shape_distances,
    spread,
)

Floats = npt.NDArray[np.float64]
Distance = Callable[[Floats, Floats], float]

LEVEL, SPREAD, SHAPE, DAILY_SHAPE = "level", "spread", "shape", "daily shape"
BESIDE = "level beside the others"
CATEGORIES, UNSEEN_CATEGORY, CORRELATION = "categories", "unseen category", "correlation"
# How much of the false-discovery rate a question may take: most drift is one of level. What one feature has for itself
# shows a change of it soonest, so that where the others are asked, too, the level alone is for what moves them all.
WEIGHTS = {LEVEL: 12.0, BESIDE: 12.0, SPREAD: 2.0, SHAPE: 0.5, DAILY_SHAPE: 0.5, CATEGORIES: 12.0, CORRELATION: 1.0}
LEVEL_BESIDE = 2.0
# The least change of a logarithm, of a distance between categories, and the least share of an unseen category.
LOG_FLOOR, CATEGORY_FLOOR, UNSEEN_FLOOR = 0.22, 0.1, 0.01
# Of the variance of a level the others must explain so much for the question what they leave of it to be another one.
EXPLAINED = 0.1
# A level is expected from one other feature per so many independent training blocks, of at most so many features, that
# have a level in so much of the training.
BLOCKS_PER_OTHER, MOST_BESIDE, LEAST_BESIDE = 12, 50, 0.9
# Standard deviations beyond which two features of fifty go together, and not by chance.
ALIKE_DEVIATIONS = 4.5
# Features whose correlations are computed together; of more, those of neighbours in the list.
TOGETHER = 50
# What the correlations of all features together are listed under.
ALL_FEATURES = "all features"


@dataclass(frozen=True)
class Finding:
    """What the questions about one feature found.

    Attributes:
        kinds: the questions whose answer is more than chance.
        q: the least adjusted p-value of its questions; NaN where none could be asked.
        is_slow: whether the change is a trend, or came bit by bit.
    """

    column: str
    kinds: tuple[str, ...]
    q: float
    is_slow: bool


def ask_number(judge: Judge, column: str, standard: Floats, distance: Distance, min_effect: float) -> list[Evidence]:
    """Ask about a numeric feature.

    Parameters:
        standard: its standardised values, of shape (blocks, steps, entities).
        distance: a registered drift test, which compares shapes.
        min_effect: the least change of level that matters, in standard deviations of the training.
    """
    blocks = judge.blocks
    places = np.arange(blocks.count)
    ends, distances = shape_distances(standard, blocks, distance)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.log(np.maximum(distances, 1e-3))
    daily = daily_shape(standard, blocks.window)
    return [
        ask_mean(judge, column, LEVEL, level(standard), min_effect),
        ask_mean(judge, column, SPREAD, spread(standard), LOG_FLOOR),
        judge.window(column, DAILY_SHAPE, places, daily, LOG_FLOOR, one_sided=True),
        judge.window(column, SHAPE, ends, logarithms, LOG_FLOOR, one_sided=True),
    ]


def ask_mean(judge: Judge, column: str, kind: str, values: Floats, floor: float) -> Evidence:
    """Ask about the mean of recent blocks: how large a change is as it comes, how unlikely where chance has no skew."""
    found = judge.mean_of_blocks(column, kind, values, floor)
    even = judge.mean_of_blocks(column, kind, made_even(values, judge.blocks.training), floor)
    return replace(found, p=even.p, p_flat=even.p_flat)


def ask_beside(judge: Judge, standards: Mapping[str, Floats], min_effect: float) -> list[Evidence]:
    """Ask of numeric features whether their level is what those of the others lead to expect.

    What features have in common moves them all by chance; what one has for itself varies less, and a change of it is
    found sooner. Asked where the others explain enough of a level, and of so many features as can be asked at a bounded
    cost.

    Parameters:
        standards: per feature, its standardised values, of shape (blocks, steps, entities).
        min_effect: the least change of level that matters, in standard deviations of the training.
    """
    if not 2 <= len(standards) <= MOST_BESIDE:
        return []
    blocks = judge.blocks
    levels = np.stack([level(each) for each in standards.values()], axis=1)
    is_there = np.isfinite(levels)
    asked = np.flatnonzero(
        is_there[blocks.recent].all(axis=0) & (is_there[blocks.training].mean(axis=0) >= LEAST_BESIDE)
    )
    training = blocks.training[is_there[blocks.training][:, asked].all(axis=1)]
    names, found = list(standards), []
    for number in asked if len(asked) > 1 and len(training) > 1 else ():
        own, others = levels[:, number], levels[:, asked[asked != number]]
        parts = _beside(own, others, training)
        if _explained(own, parts, training) >= EXPLAINED:
            found.append(judge.mean_of_blocks(names[number], BESIDE, own, min_effect, parts))
    return found


def _beside(own: Floats, others: Floats, training: npt.NDArray[np.int64]) -> Floats:
    """Return what the levels of a feature are expected from, of shape (blocks, parts).

    Those are the others, as long as they are few enough. Of more they are the ones that go with it far beyond chance,
    and the first principal components of all, which are made without a look at it: the best of fifty columns would
    explain much of anything by chance.

    Parameters:
        own: levels of the feature, of shape (blocks,).
        others: those of other features, of shape (blocks, features).
    """
    count = independent(own[training])
    most = int(count) // BLOCKS_PER_OTHER
    if others.shape[1] <= most:
        return others
    with np.errstate(divide="ignore", invalid="ignore"):
        standard = np.nan_to_num((others - others[training].mean(axis=0)) / others[training].std(axis=0))
        left = own[training] - own[training].mean()
        alike = np.abs(np.nan_to_num(left @ standard[training] / (len(training) * left.std())))
    # Fisher's transformation of a correlation, whose deviation is known.
    surely = np.arctanh(np.minimum(alike, 1 - 1e-9)) * np.sqrt(max(count - 3, 0.0)) > ALIKE_DEVIATIONS
    chosen = np.argsort(-alike, kind="stable")[: min(most // 2, int(surely.sum()))]
    directions = np.linalg.svd(standard[training], full_matrices=False)[2][: most - len(chosen)]
    return np.column_stack([others[:, chosen], standard @ directions.T])


def _explained(values: Floats, parts: Floats, training: npt.NDArray[np.int64]) -> float:
    """Return the share of the training's variance that a fit to others explains, adjusted for how many these are."""
    known = values[training]
    freedom = len(known) - 1 - parts.shape[1]
    total = float(np.sum((known - known.mean()) ** 2))
    if not parts.shape[1] or freedom < 1 or total <= 0:
        return 0.0
    left = left_of(values, parts, training)[training]
    return float(1.0 - left @ left / total * (len(known) - 1) / freedom)


def ask_category(judge: Judge, column: str, codes: npt.NDArray[np.int64], categories: int) -> list[Evidence]:
    """Ask about a categorical feature; a category that no training row has needs no calibration."""
    blocks = judge.blocks
    if not (codes[blocks.is_training] >= 0).any():
        return [Evidence(column, CATEGORIES, float("nan"), float("nan"), 0.0, CATEGORY_FLOOR, False)]
    shares = category_shares(codes, categories)
    distances = category_distances(shares, blocks)
    found = [judge.window(column, CATEGORIES, np.arange(blocks.count), distances, CATEGORY_FLOOR, one_sided=True)]
    return found + unseen_category(blocks, column, codes)


def unseen_category(blocks: Blocks, column: str, codes: npt.NDArray[np.int64]) -> list[Evidence]:
    """Return the evidence of a category that no training row has, if recent rows hold enough of it."""
    recent = codes[blocks.recent]
    unseen = float(np.mean(recent == UNSEEN)) if recent.size else 0.0
    return [Evidence(column, UNSEEN_CATEGORY, 0.0, 0.0, unseen, UNSEEN_FLOOR, False)] if unseen >= UNSEEN_FLOOR else []


def ask_correlation(judge: Judge, standards: Sequence[Floats]) -> list[Evidence]:
    """Ask whether the features still belong together as they did; at least two are needed."""
    if len(standards) < 2:
        return []
    sizes = correlation_distances(judge.blocks, standards)
    places = np.arange(judge.blocks.count)
    return [judge.window(ALL_FEATURES, CORRELATION, places, np.log(sizes), LOG_FLOOR, one_sided=True)]


def correlation_distances(blocks: Blocks, standards: Sequence[Floats]) -> Floats:
    """Return how far the correlations of every window are from those of the training, root mean square over pairs.

    The pairs are those within stretches of `TOGETHER` features, so that a thousand cost twenty times what fifty do.
    """
    if not blocks.is_training.any():
        return np.full(blocks.count, np.nan)
    stretches = -(-len(standards) // TOGETHER)
    squares, pairs = np.zeros(blocks.count), 0
    for part in np.array_split(np.arange(len(standards)), stretches):
        apart = _correlations_apart(blocks, [standards[each] for each in part])
        squares, pairs = squares + np.sum(apart**2, axis=1), pairs + apart.shape[1]
    return np.asarray(np.maximum(np.sqrt(squares / pairs), 1e-6))


def _correlations_apart(blocks: Blocks, standards: list[Floats]) -> Floats:
    """Return how far every pair's correlation in every window is from the training's, of shape (blocks, pairs)."""
    matrices = correlation_matrices(standards, blocks.window)
    training = np.nanmean(correlation_matrices(standards, 1)[blocks.is_training], axis=0)
    first, second = np.triu_indices(len(standards), 1)
    apart = np.asarray((matrices - training)[:, first, second])
    apart[blocks.is_training] /= own_share(blocks)
    return apart


def findings(evidence: Sequence[Evidence], rate: float, of_groups: Sequence[Evidence] = ()) -> dict[str, Finding]:
    """Return, by column, which changes are more than chance.

    Parameters:
        evidence: of the features.
        rate: the false-discovery rate over all questions.
        of_groups: of features in groups of entities. All of these together may take as much of the rate as all others,
            however many there are: a thousand entities make no feature harder to find.
    """
    weights, own = _weights(evidence), _weights(of_groups)
    if weights.any() and own.any():
        own *= weights.sum() / own.sum()
    weights, evidence = np.concatenate([weights, own]), [*evidence, *of_groups]
    p, flat = (
        np.array([_p(each, value) for each, value in zip(evidence, values, strict=True)])
        for values in ([each.p for each in evidence], [each.p_flat for each in evidence])
    )
    rejected, adjusted = discoveries(p, rate, weights)
    rejected_flat, adjusted_flat = discoveries(flat, rate, weights)
    by_column: Mapping[str, list[int]] = {each.column: [] for each in evidence}
    for number, each in enumerate(evidence):
        by_column[each.column].append(number)
    found = {}
    for column, numbers in by_column.items():
        fast = [number for number in numbers if rejected[number] and not evidence[number].is_gradual]
        slow = [number for number in numbers if rejected_flat[number]] if not fast else []
        chosen = fast or slow or numbers
        q = adjusted if not slow else adjusted_flat
        known = q[chosen][np.isfinite(q[chosen])]
        kinds = tuple(evidence[number].kind for number in (fast or slow))
        found[column] = Finding(column, kinds, float(known.min()) if len(known) else float("nan"), bool(slow))
    return found


def _weights(evidence: Sequence[Evidence]) -> Floats:
    """Return how much of the rate each may take; nothing where the history is too short to ask."""
    beside = {each.column for each in evidence if each.kind == BESIDE and np.isfinite(each.p)}

    def weight(each: Evidence) -> float:
        if not np.isfinite(each.p):
            return 0.0
        return LEVEL_BESIDE if each.kind == LEVEL and each.column in beside else WEIGHTS.get(each.kind, 1.0)

    return np.array([weight(each) for each in evidence])


def newest_only(blocks: Blocks) -> Blocks:
    """Return the same blocks with the newest one alone as the recent window."""
    return replace(blocks, window=1)


def _p(each: Evidence, value: float) -> float:
    return 1.0 if np.isfinite(value) and not each.matters else value
