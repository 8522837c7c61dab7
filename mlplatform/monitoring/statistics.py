"""What is asked of a feature, as a number per block or per window: level, spread, shape, daily shape, categories.

All of them know no units: values are centred on what training rows show at the same hour of the week and divided by the
standard deviation that is left. The centre of a training value is that of the other weeks, so that training rows do not
look closer to it than new ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mlplatform.monitoring.blocks import MIN_STEPS, MISSING, UNSEEN, Blocks

Floats = npt.NDArray[np.float64]

# Standard deviations at which a value counts no more than nearer ones, so that an outlier is not a change of level.
CLIP = 6.0
TINY = 1e-9
# Blocks from which on it can be told how skewed they are.
MIN_BLOCKS = 21
# Values that a distance between samples is computed on, and windows of training rows it is computed for.
SAMPLE, SHAPE_WINDOWS = 4_000, 60


def standardise(values: Floats, blocks: Blocks) -> Floats:
    """Return values of shape (blocks, steps, entities) without their season, in standard deviations of the training."""
    training, season = blocks.training, blocks.season
    left = np.full_like(values, np.nan)
    with warnings.catch_warnings():
        # Hours or entities without a value stay without.
        warnings.simplefilter("ignore", RuntimeWarning)
        for phase in range(season):
            own = np.arange(phase, blocks.count, season)
            trained = own[blocks.is_training[own]]
            centre, count = np.nanmean(values[trained], axis=0), np.isfinite(values[trained]).sum(axis=0)
            left[own] = values[own] - centre
            left[trained] *= count / np.maximum(count - 1, 1)
        scale = np.nanstd(left[training], axis=(0, 1))
    usable = np.isfinite(scale) & (scale > TINY * np.maximum(np.abs(np.nanmax(np.abs(values), initial=0.0)), TINY))
    return np.asarray(left / np.where(usable, scale, 1.0))


def level(standard: Floats) -> Floats:
    """Return the mean of every block, of shape (blocks,); NaN where less than an eighth of it is there."""
    return _mean(np.clip(standard, -CLIP, CLIP), (1, 2))


def independent(values: Floats) -> float:
    """Return how many independent values say as much about a mean as these, which may remember the one before.

    That is `n (1 - r) / (1 + r)` with the first autocorrelation `r`, as of an autoregression of order one.
    """
    left = values - values.mean()
    size = float(left @ left)
    memory = max(float(left[1:] @ left[:-1]) / size, 0.0) if size > 0 else 0.0
    return float(len(values) * (1 - memory) / (1 + memory))


def made_even(values: Floats, training: npt.NDArray[np.int64]) -> Floats:
    """Return a statistic of blocks, of shape (blocks,), by the power that leaves that of the training least skewed.

    Counts and rates are skewed to one side, where a normal distribution finds chance too unlikely by far. The power is
    that of Yeo and Johnson, A new family of power transformations to improve normality or symmetry, Biometrika 2000, of
    greatest likelihood, drawn to 1, which changes nothing, where few blocks are independent.
    """
    from scipy.stats import yeojohnson

    known = values[training][np.isfinite(values[training])]
    if len(known) < MIN_BLOCKS or not known.std() > TINY:
        return values
    standard = (values - known.mean()) / known.std()
    _, found = yeojohnson((known - known.mean()) / known.std())
    count = independent(known)
    power = 1.0 + (found - 1.0) * count / (count + MIN_BLOCKS)
    is_there = np.isfinite(standard)
    standard[is_there] = yeojohnson(standard[is_there], power)
    return np.asarray(standard)


def level_sums(standard: Floats) -> tuple[Floats, Floats]:
    """Return what the levels of groups of entities are made from: sums and counts, of shape (blocks, entities)."""
    present = np.isfinite(standard)
    summed = np.where(present, np.clip(standard, -CLIP, CLIP), 0.0).sum(axis=1)
    return summed, present.sum(axis=1).astype(np.float64)


def spread(standard: Floats) -> Floats:
    """Return the logarithm of the mean absolute deviation inside every block, mean over entities, of shape (blocks,).

    The deviation is that from the block's own mean: a level that wanders is no spread.
    """
    return _mean(entity_spread(standard), 1)


def entity_spread(standard: Floats) -> Floats:
    """Return the same of every entity, of shape (blocks, entities)."""
    if standard.shape[1] < MIN_STEPS:
        return np.full((len(standard), standard.shape[2]), np.nan)
    inside = _mean(np.abs(standard - _mean(standard, 1)[:, None, :]), 1)
    return np.asarray(np.log(np.maximum(inside, 1e-3)))


def missing_share(values: Floats, blocks: Blocks) -> Floats:
    """Return the share of values that are missing in every block; NaN where no entity counts.

    An entity counts from its first value on, where it has rows: one that is out of service lacks no column.
    """
    present = np.isfinite(values)
    counts = np.maximum.accumulate(present.any(axis=1), axis=0) & blocks.has_rows
    steps = values.shape[1] * np.maximum(counts.sum(axis=1), 1)
    share = 1.0 - (present & counts[:, None, :]).sum(axis=(1, 2)) / steps
    return np.asarray(np.where(counts.any(axis=1), share, np.nan))


def daily_shape(standard: Floats, window: int) -> Floats:
    """Return, for the window that ends with each block, the logarithm of its mean profile's squared size.

    Returns:
        Of shape (blocks,); NaN where no whole window ends.
    """
    if standard.shape[1] < MIN_STEPS:
        return np.full(len(standard), np.nan)
    profile = _mean(standard - _mean(standard, 1)[:, None, :], 2)
    means = rolling_mean(np.nan_to_num(profile), window)
    size = np.mean(means**2, axis=1)
    return np.asarray(np.where(np.isfinite(size), np.log(np.maximum(size, TINY)), np.nan))


def shape_distances(
    standard: Floats, blocks: Blocks, distance: Callable[[Floats, Floats], float]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return distances between windows and all windows of the training, each centred and scaled by itself.

    Returns:
        The blocks that the windows end with, evenly spaced, the last of them the recent one; and the distances.
    """
    training, window = blocks.training, blocks.window
    first, last = (int(training[0]), int(training[-1])) if len(training) else (0, -1)
    room = last - first + 2 - window
    if room < 1:
        return np.empty(0, np.int64), np.empty(0)
    stride = max(-(-room // SHAPE_WINDOWS), 1)
    ends = np.arange(blocks.count - 1, first + window - 2, -stride)[::-1]
    ends = ends[(ends <= last) | (ends == blocks.count - 1)]
    samples = [_own_scale(standard[end + 1 - window : end + 1]) for end in ends]
    apart = samples[:-1][:: max(window // stride, 1)]
    background = np.sort(np.concatenate([np.empty(0), *apart]))
    background = background[:: max(len(background) // SAMPLE, 1)]
    if not len(background):
        return np.empty(0, np.int64), np.empty(0)
    found = np.array([distance(background, sample) if len(sample) else np.nan for sample in samples])
    # A training window is part of the background, which is nearer to it by its share.
    found[:-1] /= 1.0 - min(1.0 / max(len(apart), 2), 0.5)
    return ends, found


def category_shares(codes: npt.NDArray[np.int64], categories: int) -> Floats:
    """Return the shares of categories in every block, those that training has not seen last; rows of NaN if empty."""
    flat = codes.reshape(len(codes), -1)
    counts = np.stack([(flat == code).sum(axis=1) for code in (*range(categories), UNSEEN)], axis=1).astype(np.float64)
    total = (flat != MISSING).sum(axis=1)
    return np.asarray(np.where(total[:, None] > 0, counts / np.maximum(total, 1)[:, None], np.nan))


def category_distances(shares: Floats, blocks: Blocks) -> Floats:
    """Return the Jensen-Shannon distance of the window that ends with each block from all training blocks.

    The square root of the divergence (Lin, 1991; base 2), which lies between 0 and 1; of shape (blocks,).
    """
    reference = np.nanmean(shares[blocks.is_training], axis=0)
    means = rolling_mean(shares, blocks.window)
    middle = (means + reference) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(part > 0, part * np.log2(part / middle), 0.0) for part in (means, reference)]
    divergence = (parts[0] + parts[1]).sum(axis=1) / 2.0
    distances = np.sqrt(np.maximum(divergence, 0.0))
    distances[blocks.is_training] /= own_share(blocks)
    return np.asarray(np.where(np.isfinite(means).all(axis=1), distances, np.nan))


def own_share(blocks: Blocks) -> float:
    """Return by how much a training window is nearer to the mean of all training, being part of it: a factor."""
    return 1.0 - min(blocks.window / max(len(blocks.training), 1), 0.5)


def correlation_matrices(standards: list[Floats], window: int) -> Floats:
    """Return the correlations of features inside the blocks of the window that ends with each block.

    Parameters:
        standards: per feature, of shape (blocks, steps, entities).

    Returns:
        Of shape (blocks, features, features); NaN where no whole window ends. Deviations are those from the block's
        mean, so levels that wander together or apart are no correlation.
    """
    inside = np.stack([np.nan_to_num(each - _mean(each, 1)[:, None, :]) for each in standards])
    flat = np.clip(inside, -CLIP, CLIP).reshape(len(standards), len(standards[0]), -1)
    products = np.einsum("ibs,jbs->bij", flat, flat, optimize=True)
    summed = rolling_mean(products.reshape(len(products), -1), window).reshape(products.shape)
    size = np.sqrt(np.maximum(np.einsum("bii->bi", summed), TINY))
    return np.asarray(summed / size[:, :, None] / size[:, None, :])


def rolling_mean(values: Floats, window: int) -> Floats:
    """Return the mean of each row and the `window - 1` before it; NaN where there are fewer."""
    means = np.full(values.shape, np.nan)
    if len(values) >= window:
        sums = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(np.nan_to_num(values), axis=0)])
        holes = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(~np.isfinite(values), axis=0)])
        counts = window - (holes[window:] - holes[:-window])
        with np.errstate(invalid="ignore", divide="ignore"):
            means[window - 1 :] = np.where(counts > 0, (sums[window:] - sums[:-window]) / counts, np.nan)
    return means


def _own_scale(window: Floats) -> Floats:
    values = window[np.isfinite(window)]
    if not len(values):
        return values
    centred = values - np.median(values)
    ordered = np.sort(centred / max(float(np.mean(np.abs(centred))), TINY))
    return np.asarray(ordered[:: max(len(ordered) // SAMPLE, 1)])


def _mean(values: Floats, axis: int | tuple[int, ...]) -> Floats:
    """Return the mean of what is there; NaN where that is less than an eighth."""
    present = np.isfinite(values)
    count = present.sum(axis=axis)
    size = np.prod([values.shape[each] for each in np.atleast_1d(axis)])
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(present, values, 0.0).sum(axis=axis) / count
    return np.asarray(np.where(count * 8 >= np.maximum(size, 1), means, np.nan))
