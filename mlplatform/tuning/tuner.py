"""The tuner: one study per training run, every trial scored on all folds, poor ones pruned early."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.config import ExperimentConfig
from mlplatform.models.base import Iterations, create_model
from mlplatform.plugins import METRICS
from mlplatform.training.cross_validation import FoldData
from mlplatform.training.trainers import trainer_for
from mlplatform.tuning.search_space import space_of, suggest

if TYPE_CHECKING:
    import optuna

# Steps reserved per fold, so that the pruner compares like with like: global step = fold * budget + iteration. A fold's
# own score is reported at the last of its steps.
FOLD_BUDGET = 100_000


@dataclass(frozen=True)
class FittedTrial:
    """A trial's outcome on every fold.

    Attributes:
        params: the model's full parameters.
        fold_scores: metrics per fold, in original units.
        fold_iterations: iterations in use per fold after early stopping.
        fit_seconds: time spent fitting, without scoring.
    """

    params: dict[str, Any]
    fold_scores: tuple[dict[str, float], ...]
    fold_iterations: tuple[Iterations, ...]
    fit_seconds: float

    def iterations(self) -> Iterations:
        """Return the number of iterations for a refit: the median over the folds, per sub-model."""
        if not all(self.fold_iterations):
            return ()
        medians = np.median(np.array(self.fold_iterations), axis=0)
        return tuple(round(float(value)) for value in medians)

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the folds."""
        return float(np.mean([scores[metric] for scores in self.fold_scores]))

    def std(self, metric: str) -> float:
        """Return the standard deviation of a metric over the folds."""
        return float(np.std([scores[metric] for scores in self.fold_scores]))


@dataclass(frozen=True)
class TuningResult:
    """The best trial and the table of all trials.

    Attributes:
        trials: one row per trial: number, state, value, seconds and parameters.
        fit_seconds: time spent fitting, over all trials.
    """

    best: FittedTrial
    trials: tuple[dict[str, Any], ...]
    fit_seconds: float


def tune(
    config: ExperimentConfig, folds: Sequence[FoldData], journal: Path, log: logging.Logger | None = None
) -> TuningResult:
    """Search the experiment's space; the first trial is always the configured parameters themselves.

    Parameters:
        folds: prepared folds, earliest first.
        journal: file of the study's Optuna journal; it must not exist yet.
        log: told about every trial.

    Raises:
        RuntimeError: if no trial completed.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    from mlplatform.tuning.pruner import MedianAtStep

    log = log or logging.getLogger(__name__)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    metric = METRICS.get(config.metric)
    space = space_of(config)
    study = optuna.create_study(
        study_name=config.name,
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
        sampler=optuna.samplers.TPESampler(seed=config.seed),
        pruner=MedianAtStep(config.tuning.pruner_startup_trials, config.tuning.warmup_steps),
        direction="minimize",
    )
    fitted: dict[int, FittedTrial] = {}
    spent = [0.0]

    def objective(trial: optuna.Trial) -> float:
        params = dict(config.model.params) if trial.number == 0 else config.model.params | suggest(trial, space)
        outcome = fit_on_folds(config, folds, config.model.family, params, trial, spent)
        fitted[trial.number] = outcome
        return float(metric.loss(outcome.mean(config.metric)))

    trials = config.tuning.trials if space else 1
    study.optimize(
        objective,
        n_trials=trials,
        timeout=config.tuning.timeout_s,
        callbacks=[lambda _, trial: log.info(_describe(config, trial, trials))],
    )
    if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        raise RuntimeError(
            f"none of the {len(study.trials)} trials of {config.name!r} completed: a loss was not a number, or the "
            f"trials failed; see the log, and check model.params {config.model.params}"
        )
    return TuningResult(fitted[study.best_trial.number], tuple(_row(trial) for trial in study.trials), spent[0])


def fit_on_folds(
    config: ExperimentConfig,
    folds: Sequence[FoldData],
    family: str,
    params: dict[str, Any],
    trial: optuna.Trial | None = None,
    spent: list[float] | None = None,
) -> FittedTrial:
    """Fit and score one parameter set on every fold, reporting to `trial`, which may prune.

    Parameters:
        spent: its only element is increased by the seconds spent fitting, also when the trial is pruned.
    """
    spent = [0.0] if spent is None else spent
    before = spent[0]
    metric = METRICS.get(config.metric)
    scores: list[dict[str, float]] = []
    iterations: list[Iterations] = []
    for position, fold in enumerate(folds):

        def progress(step: int, loss: float, base: int = position * FOLD_BUDGET) -> None:
            if trial is not None:
                _report(trial, loss, base + min(step, FOLD_BUDGET - 2))

        model = create_model(family, params, fold.spec)
        started = time.perf_counter()
        try:
            result = trainer_for(model).fit(
                model, fold.train, fold.validation, seed=config.seed, on_progress=progress if trial else None
            )
        finally:
            spent[0] += time.perf_counter() - started
        scores.append(fold.score(model.predict(fold.validation)))
        iterations.append(result.iterations)
        if trial is not None:
            running = float(np.mean([metric.loss(score[config.metric]) for score in scores]))
            _report(trial, running, (position + 1) * FOLD_BUDGET - 1)
    return FittedTrial(params, tuple(scores), tuple(iterations), spent[0] - before)


def _report(trial: optuna.Trial, loss: float, step: int) -> None:
    import optuna

    trial.report(loss, step)
    if trial.should_prune():
        raise optuna.TrialPruned


def _describe(config: ExperimentConfig, trial: optuna.trial.FrozenTrial, trials: int) -> str:
    head = f"trial {trial.number + 1}/{trials} {trial.state.name.lower()}"
    if trial.value is None or trial.state.name != "COMPLETE":
        return head
    value = -trial.value if METRICS.get(config.metric).greater_is_better else trial.value
    return f"{head}: {config.metric} {value:.5g}"


def _row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    seconds = trial.duration.total_seconds() if trial.duration else None
    return {"number": trial.number, "state": trial.state.name, "loss": trial.value, "seconds": seconds, **trial.params}
