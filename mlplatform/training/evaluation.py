"""Scores of a fitted pair on held-out rows: as a whole, per step of the horizon, and per entity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mlplatform.datamodule import DataModule, Float32, Panel, WindowSamples
from mlplatform.models import Model
from mlplatform.plugins import METRICS
from mlplatform.preprocessing import TransformManager
from mlplatform.training.metrics import Bounds, evaluate, reading


@dataclass(frozen=True)
class PartScores:
    """Scores on all samples of a split part, in original units.

    Attributes:
        metrics: the experiment's metrics, those of the intervals where there are any, and for forecasts the same with
            the suffix `_scaled` in the space of the preprocessor that was fitted on the training rows.
        steps: metric -> one value per step of the horizon (forecasts only).
        entities: entity -> metrics of its samples (forecasts of more than one entity only).
    """

    metrics: dict[str, float]
    steps: dict[str, list[float]] = field(default_factory=dict)
    entities: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Answers:
    """Truth and prediction of the same samples, in one space."""

    truth: Float32
    point: Float32
    bounds: Bounds | None

    def scores(self, names: tuple[str, ...], scale: Float32 | None) -> dict[str, float]:
        return evaluate(names, self.truth, self.point, self.bounds, scale)

    def take(self, chosen: tuple[slice | np.ndarray, ...]) -> _Answers:
        bounds = self.bounds and Bounds(self.bounds.lower[chosen], self.bounds.upper[chosen], self.bounds.coverage)
        return _Answers(self.truth[chosen], self.point[chosen], bounds)


def score_part(module: DataModule, manager: TransformManager, model: Model, scale: Float32 | None = None) -> PartScores:
    """Score a pair on all samples of a split part.

    Parameters:
        scale: what MASE divides by, see `seasonal_scale`.

    Raises:
        ValueError: if the part holds no sample.
    """
    config = module.config
    samples = module.samples(manager, manager.transform(module.panel), module.rows)
    if not len(samples):
        raise ValueError(
            f"no sample of {config.name!r} fits into this part of the split: lookback {config.lookback}, "
            f"horizon {config.horizon}, {module.panel.rows} rows"
        )
    truth = module.truth(manager, module.rows)
    scaled_bounds, bounds = None, None
    if model.calibration is None:
        outputs = model.predict(samples)
    else:
        outputs, lower, upper = model.predict_intervals(samples)
        scaled_bounds = Bounds(lower, upper, model.calibration.coverage)
        bounds = Bounds(module.invert(manager, lower), module.invert(manager, upper), model.calibration.coverage)
    of_intervals = () if bounds is None else reading(METRICS.names(), "bounds")
    names = tuple(dict.fromkeys((*config.metrics, *of_intervals)))
    answers = _Answers(truth, module.invert(manager, outputs), bounds)
    scores = answers.scores(names, scale)
    if not isinstance(samples, WindowSamples):
        return PartScores(scores)
    scaled = _Answers(samples.outputs(), outputs, scaled_bounds)
    scaled_names = tuple(name for name in names if not METRICS.get(name).is_relative)
    scores |= {f"{name}_scaled": value for name, value in scaled.scores(scaled_names, None).items()}
    entities = module.panel.row_entities[module.rows]
    return PartScores(scores, _by_step(answers, names, scale), _by_entity(answers, names, scale, entities))


def seasonal_differences(panel: Panel, targets: tuple[str, ...], season: int) -> Float32:
    """Return the mean absolute seasonal difference of every target inside its entities, of shape (targets,).

    It is 0 where a target never changes, and where no two observed values are a season apart.
    """
    later = np.flatnonzero(panel.history > season)
    values = panel.matrix(targets).astype(np.float64)
    changes = np.abs(values[later] - values[later - season])
    observed = np.isfinite(changes)
    counts = np.maximum(observed.sum(axis=0), 1)
    scale: Float32 = (np.where(observed, changes, 0).sum(axis=0) / counts).astype(np.float32)
    return scale


def seasonal_scale(panel: Panel, targets: tuple[str, ...], season: int) -> Float32:
    """Return the same where errors can be divided by it.

    Raises:
        ValueError: if a target never changes over a season, so that nothing can be measured in it.
    """
    scale = seasonal_differences(panel, targets, season)
    if not (scale > 0).all():
        name = targets[int(np.argmin(scale > 0))]
        raise ValueError(f"mase: target {name!r} never changes over {season} steps in the training rows; use mae")
    return scale


def _by_step(answers: _Answers, names: tuple[str, ...], scale: Float32 | None) -> dict[str, list[float]]:
    steps = [
        answers.take((slice(None), slice(step, step + 1))).scores(names, scale)
        for step in range(answers.truth.shape[1])
    ]
    return {name: [step[name] for step in steps] for name in steps[0]}


def _by_entity(
    answers: _Answers, names: tuple[str, ...], scale: Float32 | None, entities: np.ndarray
) -> dict[str, dict[str, float]]:
    # Samples are ordered by entity.
    starts = np.flatnonzero(np.concatenate([[True], entities[1:] != entities[:-1]]))
    if len(starts) < 2:
        return {}
    ends = np.append(starts[1:], len(entities))
    return {
        str(entities[start]): answers.take((slice(int(start), int(end)),)).scores(names, scale)
        for start, end in zip(starts, ends, strict=True)
    }
