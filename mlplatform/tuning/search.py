"""The loop that a process runs: take a trial, fit it, tell the study, until a limit is reached."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mlplatform.config import ExperimentConfig
from mlplatform.plugins import METRICS
from mlplatform.training import FoldData, RunCheckpoints
from mlplatform.tuning.choice import configured_of
from mlplatform.tuning.limits import may_start, trial_budget
from mlplatform.tuning.objective import FittedTrial, Stopwatch, fit_on_folds
from mlplatform.tuning.search_space import space_of, suggest
from mlplatform.tuning.study import drop_arrays, interrupt, save_arrays, to_json
from mlplatform.tuning.trials import CHANGES, CONFIGURED, FIT_SECONDS, OUTCOME, WORKER, best_of, finished, rank, running

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

# How a trial ended: with an outcome, pruned, or with a fit that did not stay finite.
Ended = FittedTrial | Literal["PRUNED", "FAIL"]


@dataclass(frozen=True)
class Search:
    """A search under way.

    Attributes:
        journal: the study's file; the study in it is open for this search.
        deadline: in Unix time; no trial starts after it.
        checkpoints: of the trials' fits.
    """

    config: ExperimentConfig
    folds: Sequence[FoldData]
    journal: Path
    deadline: float | None
    log: logging.Logger
    checkpoints: RunCheckpoints | None = None


class Executor(Protocol):
    """Where trials run."""

    def run(self, study: optuna.Study, search: Search) -> None:
        """Run trials until a limit of the search is reached."""


def run_trials(
    study: optuna.Study,
    search: Search,
    *,
    workers: int | None = None,
    worker: str = "",
    claim: AbstractContextManager[object] | None = None,
    on_finished: Callable[[FrozenTrial], None] | None = None,
) -> None:
    """Run trials in this process, one after another, until a limit is reached.

    Parameters:
        workers: threads that a fit may use; by default all cores.
        worker: name of this process, noted on its trials.
        claim: held while a trial is taken, so that processes side by side do not take more than there should be.
    """
    while (trial := take(study, search, worker, claim or nullcontext())) is not None:
        try:
            evaluate(study, search, trial, workers)
        except BaseException:
            interrupt(study, [each for each in running(study) if each.number == trial.number])
            raise
        if on_finished is not None:
            on_finished(next(each for each in finished(study) if each.number == trial.number))


def take(
    study: optuna.Study, search: Search, worker: str = "", claim: AbstractContextManager[object] | None = None
) -> optuna.Trial | None:
    """Return the next trial, or None if a limit is reached."""
    with claim or nullcontext():
        if not may_start(search.config, study, search.deadline):
            return None
        trial = study.ask()
        if worker:
            trial.set_user_attr(WORKER, worker)
        return trial


def params_of(config: ExperimentConfig, trial: optuna.Trial) -> dict[str, Any]:
    """Return a trial's full parameters: the configured ones, overridden by what the study suggests."""
    if trial.user_attrs.get(CONFIGURED):
        return dict(config.model.params)
    if CHANGES in trial.user_attrs:
        return {**config.model.params, **trial.user_attrs[CHANGES]}
    return config.model.params | suggest(trial, space_of(config))


def evaluate(study: optuna.Study, search: Search, trial: optuna.Trial, workers: int | None) -> None:
    """Fit one trial and tell the study."""
    import optuna

    config = search.config
    watch = Stopwatch()
    try:
        ended: Ended = fit_on_folds(
            config,
            search.folds,
            config.model.family,
            params_of(config, trial),
            trial,
            watch,
            workers,
            search.checkpoints,
        )
    except optuna.TrialPruned:
        ended = "PRUNED"
    except FloatingPointError as error:
        search.log.warning(f"trial {trial.number} failed: {error}")
        ended = "FAIL"
    record(study, search, trial, ended, watch.seconds)


def record(study: optuna.Study, search: Search, trial: optuna.Trial, ended: Ended, seconds: float) -> None:
    """Write down how a trial ended; a loss that is not a number fails it.

    Parameters:
        seconds: spent fitting.
    """
    from optuna.trial import TrialState

    trial.set_user_attr(FIT_SECONDS, seconds)
    if not isinstance(ended, FittedTrial):
        study.tell(trial, state=TrialState[ended])
        return
    outcome, loss = ended, ended.loss(search.config.metric)
    if math.isnan(loss):
        study.tell(trial, state=TrialState.FAIL)
        return
    best = best_of(study)
    is_best = best is None or (loss, trial.number) < rank(best)
    if is_best or trial.user_attrs.get(CONFIGURED):
        # Bounds are as large as the validation samples, so only those of trials that may be chosen are kept. Written
        # before the trial completes: whatever trial is the best in the journal, its arrays are there.
        save_arrays(outcome, search.journal, trial.number)
    trial.set_user_attr(OUTCOME, to_json(outcome))
    study.tell(trial, loss)
    drop_beaten(study, search)


def drop_beaten(study: optuna.Study, search: Search) -> None:
    """Delete the arrays of all trials but those under way, the best, and the configuration where it may be chosen."""
    kept = {trial.number for trial in running(study)}
    candidates = [best_of(study), configured_of(study) if search.config.tuning.standard_errors else None]
    drop_arrays(search.journal, kept | {trial.number for trial in candidates if trial is not None})


def describe(config: ExperimentConfig, trial: FrozenTrial, done: int) -> str:
    """Return a line for the log about the trial that finished as the `done`-th."""
    head = f"trial {done}/{trial_budget(config)} {trial.state.name.lower()}"
    if trial.value is None or trial.state.name != "COMPLETE":
        return head
    value = -trial.value if METRICS.get(config.metric).greater_is_better else trial.value
    return f"{head}: {config.metric} {value:.5g}"
