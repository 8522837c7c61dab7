"""Two-sample distances for drift: one decorated function each, found by name through `plugins.DRIFT_TESTS`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlplatform.plugins import DRIFT_TESTS

Values = npt.NDArray[np.float64]


@DRIFT_TESTS.register("wasserstein")
def wasserstein(reference: Values, recent: Values) -> float:
    """Return the first Wasserstein distance, in standard deviations of the reference."""
    from scipy.stats import wasserstein_distance

    scale = float(np.std(reference)) or 1.0
    return float(wasserstein_distance(reference, recent)) / scale


@DRIFT_TESTS.register("kolmogorov_smirnov")
def kolmogorov_smirnov(reference: Values, recent: Values) -> float:
    """Return the Kolmogorov-Smirnov statistic, the largest distance between the distribution functions."""
    samples = [np.sort(sample) for sample in (reference, recent)]
    values = np.concatenate(samples)
    shares = [np.searchsorted(sample, values, side="right") / len(sample) for sample in samples]
    return float(np.abs(shares[0] - shares[1]).max())
