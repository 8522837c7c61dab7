"""A pair's answers and scores on one part of a split, and two pairs beside one another on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mlplatform.datamodule import DataModule, Float32, Int64, Panel, padded_for, tabular_samples
from mlplatform.models import Bounds
from mlplatform.plugin_kinds import MetricPlugin
from mlplatform.promotion.bootstrap import (
    Comparison,
    Float64,
    compare_losses,
    compare_scores,
    forecast_units,
    row_units,
)
from mlplatform.registry import Answers, Forecaster
from mlplatform.training import Entities, Scale, SeriesScales, evaluate


@dataclass(frozen=True)
class Scored:
    """A pair's answers to all samples of a split part, with their scores, in original units.

    Attributes:
        scores: the experiment's metrics.
        truth, point: of shape (samples, horizon, targets); classification: class indices of shape (samples,) and
            probabilities of shape (samples, classes).
        bounds: of the prediction intervals, if the pair or the experiment has any.
        entities: of the samples, of a forecast.
        scale: what scaled errors are divided by, if the experiment asks for it.
    """

    scores: Mapping[str, float]
    truth: Float32
    point: Float32
    bounds: Bounds | None = None
    entities: Entities | None = None
    scale: Scale | None = None

    @cached_property
    def errors(self) -> Float32:
        """The error of every sample, of shape (samples,)."""
        return _sample_errors(self.truth, self.point)

    def losses(self, metric: MetricPlugin) -> Float64 | None:
        """Return the losses, of shape (samples,), that a metric is the mean of; None if it is no mean."""
        found: Float64 | None = metric.losses(self.truth, self.point, self.entities, **self._read(metric))
        return found

    def loss_of(self, metric: MetricPlugin) -> Callable[[Int64], float]:
        """Return what maps the indices of samples to the metric's loss on them."""

        def loss(chosen: Int64) -> float:
            return metric.loss(metric.score(self.truth[chosen], self.point[chosen], **self._read(metric, chosen)))

        return loss

    def _read(self, metric: MetricPlugin, chosen: Int64 | slice = slice(None)) -> dict[str, Any]:
        """Return what a metric reads beside truth and answers."""
        if metric.reads == "scale" and self.scale is not None:
            return {"scale": self.scale.take(chosen)}
        if metric.reads == "bounds" and self.bounds is not None:
            return {"bounds": self.bounds.map(lambda values: values[chosen])}
        return {}


def compare_pairs(metric: MetricPlugin, candidate: Scored, champion: Scored, module: DataModule) -> Comparison:
    """Compare two pairs on the samples of a module that both answered.

    Raises:
        ValueError: if the metric cannot be computed for resampled samples.
    """
    config = module.config
    if config.task == "forecast":
        panel = module.panel
        units = forecast_units(panel.timestamps[module.rows], panel.row_entities[module.rows], config.horizon)
    else:
        units = row_units(len(module.rows))
    losses = candidate.losses(metric), champion.losses(metric)
    if losses[0] is not None and losses[1] is not None:
        return compare_losses(losses[0], losses[1], units, config.seed)
    difference = candidate.errors.astype(np.float64) - champion.errors
    return compare_scores((candidate.loss_of(metric), champion.loss_of(metric)), difference, units, config.seed)


def shared_samples(module: DataModule, needed: Sequence[int]) -> DataModule:
    """Return the samples that both contenders answer: those of training, for the rows that the candidate needs.

    A champion that looks back further loses a sample only with an entity that is younger than the reference set; with
    the others it cannot be compared.

    Parameters:
        needed: rows that the candidate needs, then those that the champion does, if there is one.
    """
    module = module.with_history(needed[0])
    times, offsets = module.panel.timestamps, module.panel.offsets
    is_young = np.repeat(times[offsets[:-1]] > times.min(), np.diff(offsets))
    return module.only(~is_young | (module.panel.history >= max(needed)))


def score_pair(
    forecaster: Forecaster, module: DataModule, frame: pd.DataFrame, scales: SeriesScales | None = None
) -> Scored:
    """Score a pair on all samples of a split part, whatever features and lookback it was trained with.

    Parameters:
        module: defines samples and truth.
        frame: the rows of the part.
        scales: of the training rows, for metrics that read a scale.

    Raises:
        ValueError: if the pair predicts something else, or needs columns or rows the part does not have.
    """
    answers = answer_part(forecaster, module, frame)
    point, truth = answers.point, module.truth(forecaster.preprocessor, module.rows)
    # A pair without intervals is judged by its point prediction: an interval that is one point wide.
    wanted = next(iter(module.config.uncertainty.coverages), None)
    bounds = next(iter(answers.bounds), None if wanted is None else Bounds(point, point, wanted))
    entities = module.panel.row_entities[module.rows] if module.config.task == "forecast" else None
    scale = None if scales is None or entities is None else scales.at(entities)
    scores = evaluate(module.config.metrics, truth, point, bounds, scale, entities)
    return Scored(scores, truth, point, bounds, entities, scale)


def answer_part(forecaster: Forecaster, module: DataModule, frame: pd.DataFrame) -> Answers:
    """Return a pair's answers, in original units, for all samples of a split part.

    Raises:
        ValueError: as `score_pair` does.
    """
    contract, config = forecaster.contract, module.config
    if contract.task != config.task:
        raise ValueError(f"its task is {contract.task} instead of {config.task}")
    if (contract.targets, contract.horizon) != (config.targets, config.horizon):
        raise ValueError(
            f"it predicts {', '.join(contract.targets)} over {contract.horizon} steps instead of "
            f"{', '.join(config.targets)} over {config.horizon}; register what changed under a new experiment name"
        )
    if not len(module.rows):
        raise ValueError(f"no entity of the reference set has the {contract.input_rows} rows that it looks back")
    missing = [name for name in contract.columns if name not in frame]
    if missing:
        raise ValueError(f"it reads {', '.join(missing)}, which the reference set does not have")
    rows = padded_for(config, frame)
    transformed = forecaster.preprocessor.transform(Panel.from_frame(rows, contract.columns))
    if contract.task == "forecast":
        short = contract.input_rows - int(transformed.history[module.rows].min(initial=contract.input_rows))
        if short > 0:
            raise ValueError(f"it looks back {contract.input_rows} steps, {short} more than the reference set has")
        windows = forecaster.windows(transformed, module.rows)
        return forecaster.postprocess_answers(forecaster.infer_answers(windows))
    samples = tabular_samples(transformed, contract.columns, None, len(contract.classes), module.rows)
    return forecaster.postprocess_answers(forecaster.infer_answers(samples))


def _sample_errors(truth: Float32, answers: Float32) -> Float32:
    """Return the mean absolute error of every sample; for classes, the probability that was given to the wrong ones."""
    if answers.ndim == 2 and truth.ndim == 1:
        return np.asarray(1 - answers[np.arange(len(truth)), truth.astype(np.int64)], dtype=np.float32)
    return np.asarray(np.abs(truth - answers).reshape(len(truth), -1).mean(axis=1), dtype=np.float32)
