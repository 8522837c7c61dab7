"""Rows that find out whether two forms of the same trees answer alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32

PROBES = 128
SHARE_MISSING = 0.1


def probe_rows(width: int, features: npt.NDArray[np.int64], thresholds: Float32) -> Float32:
    """Return rows with values at, just below and just above thresholds of splits, some missing; always the same.

    Parameters:
        width: number of features of a row.
        features, thresholds: what the splits compare, of shape (splits,).
    """
    noise = np.random.default_rng(0)
    probes = np.zeros((PROBES, width), dtype=np.float32)
    for feature in np.unique(features):
        chosen = noise.choice(thresholds[features == feature], PROBES)
        beside = np.nextafter(chosen, np.asarray([-np.inf, np.inf], np.float32)[noise.integers(0, 2, PROBES)])
        probes[:, feature] = np.where(noise.random(PROBES) < 0.5, chosen, beside)
    probes[noise.random(probes.shape) < SHARE_MISSING] = np.nan
    return probes
