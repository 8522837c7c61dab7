"""How far apart recent rows and training rows may lie by chance: p-values calibrated on the training rows themselves.

Every question about a feature (its level, its spread, what is missing, ...) is a number per block of time, usually a
day. The recent window is the mean of its newest blocks; what it may be is predicted from the blocks of the training
rows by ordinary least squares, and the error of that prediction by their autocorrelation:

- blocks of autocorrelated series are not independent: their correlation is estimated (that of the block means of an
  Ornstein-Uhlenbeck process, one parameter, with the bias of its estimate taken out), and with it the variance of the
  prediction, unbiased for any design and any correlation, and its degrees of freedom (Satterthwaite, 1946);
- the tail beyond what the training rows show is Student's with those degrees of freedom; where the training rows
  themselves hold windows as extreme as the recent one, their share is the least that the p-value can be;
- too few degrees of freedom are no ground for a verdict: the p-value is then NaN.

Over all questions of a report the weighted Benjamini-Hochberg procedure (Genovese, Roeder & Wasserman, Biometrika 93,
2006) bounds the false-discovery rate, which is the probability of any alarm while nothing has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Correlations of neighbouring blocks that are told apart; beyond the last a series is as good as a random walk.
CORRELATIONS = np.concatenate([np.linspace(0.0, 0.9, 46), np.linspace(0.91, 0.98, 15)])
# Fewer degrees of freedom than these are no history to judge by: below, estimates of the correlation scatter so much
# that five in a hundred become ten.
MIN_FREEDOM = 12.0


@dataclass(frozen=True)
class Prediction:
    """What a statistic of the recent window was expected to be, and how unlikely what it is.

    Attributes:
        value: the statistic of the recent window.
        expected: its prediction from the training rows.
        error: standard deviation of the prediction's error.
        freedom: degrees of freedom of that deviation.
        p: probability of a value as far off while nothing has changed; NaN where the history is too short to say.
        correlation: of neighbouring blocks.
    """

    value: float
    expected: float
    error: float
    freedom: float
    p: float
    correlation: float

    @property
    def width(self) -> float:
        """How far off 95 of 100 values are while nothing has changed, at most; NaN where nothing can be said."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 0.975)) * self.error if np.isfinite(self.p) else float("nan")

    @property
    def change(self) -> float:
        """How far the value is from what was expected."""
        return self.value - self.expected


class Design:
    """Blocks of the training rows, and the recent window they are compared with.

    Parameters:
        times: of shape (blocks,), the place of every training block in time, in whole blocks, ascending.
        target: of shape (window,), the places of the recent blocks.
        regressors: of shape (blocks, k) and (window, k): what the expected value depends on beside a constant.
    """

    def __init__(self, times: npt.NDArray[np.int64], target: npt.NDArray[np.int64], *regressors: Floats) -> None:
        self.times, self.target = times, target
        own, recent = regressors or (np.empty((len(times), 0)), np.empty((len(target), 0)))
        self._matrix = np.column_stack([np.ones(len(times)), own])
        aim = np.concatenate([[1.0], recent.mean(axis=0)])
        self._basis, triangle = np.linalg.qr(self._matrix)
        # The prediction is `weights @ values`.
        self.weights: Floats = self._basis @ np.linalg.solve(triangle.T, aim)
        self._lags = np.abs(times[:, None] - times[None, :])
        self._to_target = np.abs(times[:, None] - target[None, :])
        self._in_target = np.abs(target[:, None] - target[None, :])
        self._by_correlation: dict[float, tuple[float, float, float]] = {}

    def residuals(self, values: Floats) -> Floats:
        """Return what a fit leaves of values of shape (blocks,)."""
        left: Floats = values - self._basis @ (self._basis.T @ values)
        return left

    def correlation_of(self, residuals: Floats) -> float:
        """Return the correlation of neighbouring blocks, the bias of its estimate taken out."""
        total = float(residuals @ residuals)
        if total <= 0.0:
            return 0.0
        found = float(residuals @ self._neighbours(residuals)) / total
        return float(np.interp(found, self._expected_estimates, CORRELATIONS))

    def spread(self, correlation: float) -> tuple[float, float, float]:
        """Return for a correlation: variance of the prediction's error in units of a block's, trace, freedom."""
        key = round(correlation, 2)
        if key not in self._by_correlation:
            self._by_correlation[key] = self._spread(key)
        return self._by_correlation[key]

    def _spread(self, correlation: float) -> tuple[float, float, float]:
        among = correlations(correlation, self._lags)
        shrunk = among - self._basis @ (self._basis.T @ among)
        trace = float(np.trace(shrunk))
        freedom = trace**2 / max(float(np.sum(shrunk * shrunk.T)), 1e-12)
        across = correlations(correlation, self._to_target).mean(axis=1)
        own = float(correlations(correlation, self._in_target).mean())
        variance = own + float(self.weights @ among @ self.weights) - 2.0 * float(self.weights @ across)
        return max(variance, 1e-12), max(trace, 1e-12), freedom

    def last_coefficient(self, values: Floats) -> float:
        """Return the probability of a last regressor's coefficient as large as this one while it is zero."""
        from scipy.special import stdtr

        residuals, direction = self.residuals(values), self._basis[:, -1]
        correlation = self.correlation_of(residuals)
        _, trace, freedom = self.spread(correlation)
        among = correlations(round(correlation, 2), self._lags)
        error = np.sqrt(float(residuals @ residuals) / trace * float(direction @ among @ direction))
        return float(2 * stdtr(freedom, -abs(float(direction @ values)) / error)) if error > 0 else 1.0

    @cached_property
    def _expected_estimates(self) -> Floats:
        """What the estimate of every correlation is on average; sums over pairs of blocks are sums over their lags."""
        adjacent = (self._lags == 1).astype(np.float64) / 2.0
        halved = adjacent - self._basis @ (self._basis.T @ adjacent)
        quadratic = halved - (halved @ self._basis) @ self._basis.T
        projection = np.eye(len(self.times)) - self._basis @ self._basis.T
        by_lag = [np.bincount(self._lags.ravel(), each.ravel()) for each in (quadratic, projection)]
        lags = np.arange(len(by_lag[0]))
        among = np.stack([correlations(each, lags) for each in CORRELATIONS])
        expected = (among @ by_lag[0]) / (among @ by_lag[1])
        # Interpolation needs them to ascend.
        ascending: Floats = np.maximum.accumulate(expected) + 1e-9 * np.arange(len(expected))
        return ascending

    def _neighbours(self, residuals: Floats) -> Floats:
        follows = np.diff(self.times) == 1
        moved = np.zeros_like(residuals)
        moved[:-1][follows] += residuals[1:][follows] / 2.0
        moved[1:][follows] += residuals[:-1][follows] / 2.0
        return moved


def correlations(neighbours: float, lags: npt.NDArray[np.int64]) -> Floats:
    """Return the correlations of block means of an Ornstein-Uhlenbeck process whose neighbours have the given one."""
    decay = _decay(round(neighbours, 3))
    by_lag: Floats = neighbours * np.exp(-decay * np.maximum(np.arange(int(lags.max()) + 1) - 1.0, 0.0))
    by_lag[0] = 1.0
    return by_lag[lags]


@lru_cache(maxsize=1024)
def _decay(neighbours: float) -> float:
    """Return the block length in time constants for which neighbouring block means have this correlation."""
    low, high = 1e-4, 1e3
    for _ in range(60):
        middle = np.sqrt(low * high)
        if (1 - np.exp(-middle)) ** 2 / (2 * (middle - 1 + np.exp(-middle))) > neighbours:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))


def predict(values: Floats, recent: float, design: Design, *, one_sided: bool = False) -> Prediction:
    """Return how unlikely a window's statistic is, given the blocks of the training rows.

    Parameters:
        values: of shape (blocks,), the statistic of every training block of the design; finite.
        recent: the mean of the statistic over the recent blocks.
        one_sided: whether only a larger value is unusual, as for a distance.
    """
    from scipy.special import stdtr

    expected = float(design.weights @ values)
    residuals = design.residuals(values)
    correlation = design.correlation_of(residuals)
    variance, trace, freedom = design.spread(correlation)
    error = float(np.sqrt(residuals @ residuals / trace * variance))
    change = recent - expected
    if freedom < MIN_FREEDOM:
        return Prediction(recent, expected, error, freedom, float("nan"), correlation)
    if error <= 1e-12 * max(1.0, abs(expected)):
        p = 1.0 if abs(change) <= 1e-9 * max(1.0, abs(expected)) else 0.0
        return Prediction(recent, expected, error, freedom, p, correlation)
    distance = change / error if one_sided else abs(change) / error
    tail = float(stdtr(freedom, -distance)) * (1 if one_sided else 2)
    p = max(tail, _share_as_extreme(residuals, change, design, one_sided))
    return Prediction(recent, expected, error, freedom, p, correlation)


def _share_as_extreme(residuals: Floats, change: float, design: Design, one_sided: bool) -> float:
    """Return the share of training windows as extreme as the recent one; 0 where there is none."""
    length = len(design.target)
    if len(residuals) < 2 * length:
        return 0.0
    sums = np.concatenate([[0.0], np.cumsum(residuals)])
    means = (sums[length:] - sums[:-length]) / length
    # Windows with a gap in them are longer than they should be; they count all the same, being windows of rows.
    extreme = means >= change if one_sided else np.abs(means) >= abs(change)
    count = int(extreme.sum())
    return (count + 1) / (len(means) + 1) if count else 0.0


def discoveries(p: Floats, level: float, weights: Floats | None = None) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Return which hypotheses are rejected at a false-discovery rate, and their adjusted p-values.

    Parameters:
        p: of shape (hypotheses,); NaN are no hypotheses.
        level: the false-discovery rate.
        weights: of shape (hypotheses,), positive: how much of the level each may take, by default alike.
    """
    adjusted = np.full(len(p), np.nan)
    asked = np.flatnonzero(np.isfinite(p))
    if len(asked):
        share = np.ones(len(asked)) if weights is None else weights[asked] / weights[asked].mean()
        weighted = p[asked] / share
        order = np.argsort(weighted)
        ranked = weighted[order] * len(asked) / np.arange(1, len(asked) + 1)
        adjusted[asked[order]] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    return np.nan_to_num(adjusted, nan=1.0) <= level, adjusted
