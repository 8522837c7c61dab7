"""Scores of a fitted pair on held-out rows: as a whole, per step of the horizon, and per entity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import DataModule, Float32, Panel, WindowSamples
from mlplatform.models import Bounds, Model
from mlplatform.plugins import METRICS
from mlplatform.preprocessing import TransformManager
from mlplatform.training.metrics import evaluate, reading
from mlplatform.training.per_series import Entities, Scale, SeriesScales


@dataclass(frozen=True)
class PartScores:
    """Scores on all samples of a split part, in original units.

    Attributes:
        metrics: the experiment's metrics, those of the intervals where there are any (of further coverages with these
            in their names), and for forecasts the same with the suffix `_scaled` in the space of the preprocessor that
            was fitted on the training rows.
        steps: metric -> one value per step of the horizon (forecasts only).
        entities: entity -> metrics of its samples (forecasts of more than one entity only).
    """

    metrics: dict[str, float]
    steps: dict[str, list[float]] = field(default_factory=dict)
    entities: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Answers:
    """Truth and prediction of the same samples, in one space, and what their series are measured in.

    Attributes:
        bounds: of the prediction intervals, those of the main coverage first.
    """

    truth: Float32
    point: Float32
    bounds: tuple[Bounds, ...]
    entities: Entities
    scale: Scale | None = None

    def scores(self, names: tuple[str, ...]) -> dict[str, float]:
        main = self.bounds[0] if self.bounds else None
        return evaluate(names, self.truth, self.point, main, self.scale, self.entities, self.bounds[1:])

    def take(self, samples: slice, steps: slice = slice(None)) -> _Answers:
        chosen = (samples, steps) if self.truth.ndim > 1 else (samples,)
        bounds = tuple(each.map(lambda values: values[chosen]) for each in self.bounds)
        scale = self.scale and self.scale.take(samples)
        return _Answers(self.truth[chosen], self.point[chosen], bounds, self.entities[samples], scale)


def score_part(
    module: DataModule, manager: TransformManager, model: Model, scales: SeriesScales | None = None
) -> PartScores:
    """Score a pair on all samples of a split part.

    Parameters:
        scales: what scaled errors are divided by, see `scales_for`.

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
    scaled_bounds: tuple[Bounds, ...] = ()
    bounds: tuple[Bounds, ...] = ()
    if model.calibration is None:
        outputs = model.predict(samples)
        point = module.invert(manager, outputs)
    else:
        intervals, coverage = model.predict_intervals(samples), model.calibration.coverage
        inverted = intervals.map(lambda values: module.invert(manager, values))
        scaled_bounds, bounds = intervals.bounds(coverage), inverted.bounds(coverage)
        outputs, point = intervals.point, inverted.point
    of_intervals = reading(METRICS.names(), "bounds") if bounds else ()
    names = tuple(dict.fromkeys((*config.metrics, *of_intervals)))
    entities = module.panel.row_entities[module.rows]
    scale = None if scales is None else scales.at(entities)
    answers = _Answers(truth, point, bounds, entities, scale)
    if not isinstance(samples, WindowSamples):
        return PartScores(evaluate(names, truth, point, bounds[0] if bounds else None, scale, others=bounds[1:]))
    scaled = _Answers(samples.outputs(), outputs, scaled_bounds, entities)
    scaled_names = tuple(name for name in names if not METRICS.get(name).is_relative)
    scores = answers.scores(names) | {f"{name}_scaled": value for name, value in scaled.scores(scaled_names).items()}
    return PartScores(scores, _by_step(answers, names), _by_entity(answers, names))


def scales_for(config: ExperimentConfig, panel: Panel) -> SeriesScales | None:
    """Return what the errors of an experiment are scaled by, from its training rows; None if no metric asks for it."""
    return SeriesScales.of(panel, config.targets, config.season) if reading(config.metrics, "scale") else None


def _by_step(answers: _Answers, names: tuple[str, ...]) -> dict[str, list[float]]:
    steps = [answers.take(slice(None), slice(step, step + 1)).scores(names) for step in range(answers.truth.shape[1])]
    return {name: [step[name] for step in steps] for name in steps[0]}


def _by_entity(answers: _Answers, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    # Samples are ordered by entity.
    entities = answers.entities
    starts = np.flatnonzero(np.concatenate([[True], entities[1:] != entities[:-1]]))
    if len(starts) < 2:
        return {}
    ends = np.append(starts[1:], len(entities))
    return {
        str(entities[start]): answers.take(slice(int(start), int(end))).scores(names)
        for start, end in zip(starts, ends, strict=True)
    }
