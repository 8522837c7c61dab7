"""The objective: one parameter set fitted and scored on every fold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mlplatform.config import ExperimentConfig
from mlplatform.models import (
    DEFAULT_OPTIONS,
    DirectFitModel,
    FitOptions,
    FitResult,
    Intervals,
    Iterations,
    Model,
    create_model,
)
from mlplatform.plugins import METRICS
from mlplatform.training import FoldData, RunCheckpoints, trainer_for

# Steps reserved per fold, so that the pruner compares like with like: global step = fold * budget + iteration. A fold's
# own score is reported at the last of its steps.
FOLD_BUDGET = 100_000


class Reports(Protocol):
    """What hears how a trial is doing and may end it; an Optuna trial is one."""

    def report(self, value: float, step: int) -> None:
        """Take note of the loss at a step."""

    def should_prune(self) -> bool:
        """Return whether the latest report is so poor that the trial should end."""


@dataclass(frozen=True)
class FittedTrial:
    """A trial's outcome on every fold.

    Attributes:
        params: the model's full parameters.
        fold_scores: metrics per fold, in original units.
        fold_iterations: iterations in use per fold after early stopping.
        fit_seconds: time spent fitting, without scoring.
        bounds: per fold, the model's own bounds for its validation samples, before calibration; empty for
            classification, without a coverage, and for trials that are not the best of their study.
        curves: per fold, series by name with one value per iteration; `validation_loss` is in preprocessed space.
    """

    params: dict[str, Any]
    fold_scores: tuple[dict[str, float], ...]
    fold_iterations: tuple[Iterations, ...]
    fit_seconds: float
    bounds: tuple[Intervals, ...] = ()
    curves: tuple[Mapping[str, tuple[float, ...]], ...] = ()

    def iterations(self, without: int | None = None) -> Iterations:
        """Return the number of iterations for a refit: the median over the folds, per sub-model.

        Parameters:
            without: position of a fold that has no say in it.
        """
        if not all(self.fold_iterations):
            return ()
        found = [each for position, each in enumerate(self.fold_iterations) if position != without]
        medians = np.median(np.array(found), axis=0)
        return tuple(round(float(value)) for value in medians)

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the folds."""
        return float(np.mean([scores[metric] for scores in self.fold_scores]))

    def std(self, metric: str) -> float:
        """Return the standard deviation of a metric over the folds."""
        return float(np.std([scores[metric] for scores in self.fold_scores]))

    def loss(self, metric: str) -> float:
        """Return what a search minimises: the mean over the folds, negated for metrics that grow."""
        return float(METRICS.get(metric).loss(self.mean(metric)))


class Stopwatch:
    """Adds up the time spent inside its context.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *raised: object) -> None:
        self.seconds += time.perf_counter() - self._started


def fit_on_folds(
    config: ExperimentConfig,
    folds: Sequence[FoldData],
    family: str,
    params: dict[str, Any],
    trial: Reports | None = None,
    watch: Stopwatch | None = None,
    workers: int | None = None,
    checkpoints: RunCheckpoints | None = None,
) -> FittedTrial:
    """Fit and score one parameter set on every fold, reporting to `trial`, which may prune.

    Parameters:
        folds: prepared folds, earliest first.
        watch: runs while a model is fitted, so that its holder knows the time of a trial that is pruned, too.
        workers: threads that a fit may use; by default all cores.
        checkpoints: where a fit keeps its state, so that a killed run does not lose it; nowhere by default.

    Raises:
        optuna.TrialPruned: if `trial` says so.
    """
    watch = watch or Stopwatch()
    workers = DEFAULT_OPTIONS.workers if workers is None else workers
    metric = METRICS.get(config.metric)
    scores: list[dict[str, float]] = []
    iterations: list[Iterations] = []
    bounds: list[Intervals] = []
    curves: list[Mapping[str, tuple[float, ...]]] = []
    for position, fold in enumerate(folds):

        def progress(step: int, loss: float, base: int = position * FOLD_BUDGET) -> None:
            if trial is not None:
                _report(trial, loss, base + min(step, FOLD_BUDGET - 2))

        model = create_model(family, params, fold.spec)
        by_step = trial is not None and config.tuning.prune_at == "step"
        options = FitOptions(seed=config.seed, on_progress=progress if by_step else None, workers=workers)
        if checkpoints is not None:
            options = checkpoints.of_fit(options, fold.name, family, params)
        with watch:
            result = trainer_for(model).fit(model, fold.train, fold.validation, options)
        intervals = _bounds(config, model, fold)
        scores.append(_score(config, model, fold, intervals))
        bounds += [] if intervals is None else [intervals]
        iterations.append(result.iterations)
        curves.append(_curves(result))
        if trial is not None:
            running = float(np.mean([metric.loss(score[config.metric]) for score in scores]))
            _report(trial, running, (position + 1) * FOLD_BUDGET - 1)
    return FittedTrial(
        params, tuple(scores), tuple(iterations), watch.seconds, bounds=tuple(bounds), curves=tuple(curves)
    )


def unseen_bounds(
    config: ExperimentConfig, folds: Sequence[FoldData], family: str, trial: FittedTrial
) -> tuple[Intervals, ...]:
    """Return a trial's bounds per fold by models that had no sight of the fold's validation samples.

    Those of the trial were stopped early on the same samples, on which they look better than on any others: of few
    samples by so much that intervals are too narrow. Here every fold is fitted again for the iterations that the others
    found. A trial that stopped nowhere, or a single fold, has nothing else to go by, and networks take too long.
    """
    if not trial.bounds or len(folds) < 2 or not trial.iterations():
        return trial.bounds
    found: list[Intervals] = []
    for position, fold in enumerate(folds):
        model = create_model(family, trial.params, fold.spec)
        if not isinstance(model, DirectFitModel):
            return trial.bounds
        trainer_for(model).fit(
            model, fold.train, None, FitOptions(iterations=trial.iterations(without=position), seed=config.seed)
        )
        found.append(model.predict_bounds(fold.validation, *config.uncertainty.coverages))
    return tuple(found)


def _bounds(config: ExperimentConfig, model: Model, fold: FoldData) -> Intervals | None:
    """Return the point prediction with the model's bounds, or None where no intervals are asked for."""
    coverages = config.uncertainty.coverages
    if not coverages or config.task == "classification":
        return None
    return model.predict_bounds(fold.validation, *coverages)


def _score(config: ExperimentConfig, model: Model, fold: FoldData, intervals: Intervals | None) -> dict[str, float]:
    """Return the fold's metrics; those of the bounds, which take as long again, only where one of them decides."""
    if intervals is None:
        return fold.score(model.predict(fold.validation))
    if METRICS.get(config.metric).reads != "bounds":
        return fold.score(intervals.point)
    return fold.score_bounds(intervals, config.uncertainty.coverages[0])


def _curves(result: FitResult) -> dict[str, tuple[float, ...]]:
    return {**result.curves, **({"validation_loss": result.history} if result.history else {})}


def _report(trial: Reports, loss: float, step: int) -> None:
    import optuna

    trial.report(loss, step)
    if trial.should_prune():
        raise optuna.TrialPruned
