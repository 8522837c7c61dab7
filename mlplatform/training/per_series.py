"""Scores by series: what the errors of a series are measured in, and means in which every series counts alike.

Here: scales from training rows and averages over series. Not here: the metrics that read them (`metrics`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Panel

Float64 = npt.NDArray[np.float64]
Entities = npt.NDArray[Any]


@dataclass(frozen=True)
class Scale:
    """What errors are divided by, of shape (targets,) or (samples, targets); not above 0 where nothing can be.

    Attributes:
        absolute: mean absolute error of the seasonal naive forecast on the training rows of the sample's series.
        root: root of its mean squared error.
    """

    absolute: Float64
    root: Float64

    def take(self, samples: Any) -> Scale:
        """Return the scale of some samples."""
        return self if self.absolute.ndim < 2 else Scale(self.absolute[samples], self.root[samples])


@dataclass(frozen=True)
class SeriesScales:
    """The scales of every series of some training rows.

    Attributes:
        entities: of shape (entities,).
        absolute, root: of shape (entities, targets), see `Scale`; 0 for a series that never changes over a season, or
            is not longer than one.
    """

    entities: Entities
    absolute: Float64
    root: Float64

    @classmethod
    def of(cls, panel: Panel, targets: tuple[str, ...], season: int) -> SeriesScales:
        """Measure the seasonal naive forecast inside every series of training rows, in original units.

        Hyndman and Koehler, Another look at measures of forecast accuracy, International Journal of Forecasting, 2006.
        """
        later = np.flatnonzero(panel.history > season)
        values = panel.matrix(targets).astype(np.float64)
        changes = values[later] - values[later - season]
        observed = np.isfinite(changes)
        changes = np.where(observed, changes, 0)
        series = (np.searchsorted(panel.offsets, later, side="right") - 1, len(panel.entity_ids))
        counts = np.maximum(_sums(observed, *series), 1)
        return cls(
            panel.entity_ids,
            _sums(np.abs(changes), *series) / counts,
            np.sqrt(_sums(np.square(changes), *series) / counts),
        )

    def at(self, entities: Entities) -> Scale:
        """Return the scales of samples by their entities; a series without training rows has the mean of the others."""
        position = {entity: place for place, entity in enumerate(self.entities.tolist())}
        chosen = np.array([position.get(entity, len(position)) for entity in entities.tolist()], dtype=np.int64)
        return Scale(*(np.vstack([scale, _mean_of_changing(scale)])[chosen] for scale in (self.absolute, self.root)))


def series_weights(values: Float64, entities: Entities) -> Float64:
    """Return weights of shape (samples,), in the mean 1, with which every series counts alike.

    Samples whose value is NaN have none, and a series of such samples does not count.
    """
    scored = np.isfinite(values)
    _, codes = np.unique(entities, return_inverse=True)
    counts = np.bincount(codes, weights=scored)
    weights = np.where(scored, len(values) / np.maximum(counts[codes] * max((counts > 0).sum(), 1), 1), 0.0)
    return np.asarray(weights, dtype=np.float64)


def series_mean(values: Float64, entities: Entities) -> float:
    """Return the mean over series of the mean over their samples; NaN if no sample has a value."""
    if not np.isfinite(values).any():
        return float("nan")
    return float(np.mean(np.where(np.isfinite(values), values, 0) * series_weights(values, entities)))


def _sums(values: npt.NDArray[Any], codes: npt.NDArray[np.int64], count: int) -> Float64:
    """Return the sums of rows by code, of shape (count, columns)."""
    return np.stack([np.bincount(codes, weights=column, minlength=count) for column in values.T], axis=1)


def _mean_of_changing(scale: Float64) -> Float64:
    changing = scale > 0
    return np.asarray(np.where(changing, scale, 0).sum(axis=0) / np.maximum(changing.sum(axis=0), 1))
