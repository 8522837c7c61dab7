"""The tuner: one study per training run, every trial scored on all folds, poor ones pruned early."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.config import ExperimentConfig
from mlplatform.plugins import EXECUTORS
from mlplatform.training import FoldData, RunCheckpoints
from mlplatform.tuning.choice import chosen_of
from mlplatform.tuning.objective import FOLD_BUDGET as FOLD_BUDGET
from mlplatform.tuning.objective import FittedTrial, fit_on_folds
from mlplatform.tuning.search import Executor, Search
from mlplatform.tuning.study import adopt_study, drop_arrays, from_json, load_arrays, open_study
from mlplatform.tuning.trials import FIT_SECONDS, OUTCOME, finished, row_of, saved_share

if TYPE_CHECKING:
    import optuna


# How trials end beside completing, in words.
ENDINGS = {"PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True)
class TuningResult:
    """The chosen trial and the table of all trials.

    Attributes:
        trials: one row per finished trial: number, state, loss, seconds and parameters. Numbers of trials whose process
            died are missing; they were repeated under later ones.
        fit_seconds: time spent fitting, over all finished trials, those of earlier sessions included.
        saved_share: share of the compute that pruning saved.
    """

    best: FittedTrial
    trials: tuple[dict[str, Any], ...]
    fit_seconds: float
    saved_share: float = 0.0

    @property
    def counts(self) -> str:
        """How many trials really ran to their end, in words."""
        states = Counter(trial["state"] for trial in self.trials)
        others = "".join(f", {states[state]} {word}" for state, word in ENDINGS.items() if states[state])
        return f"{states['COMPLETE']} of {len(self.trials)} trials completed{others}"


def tune(
    config: ExperimentConfig,
    folds: Sequence[FoldData],
    journal: Path,
    log: logging.Logger | None = None,
    checkpoints: RunCheckpoints | None = None,
) -> TuningResult:
    """Search the experiment's space; the first trial is always the configured parameters themselves.

    A journal that already holds the study is gone on with, up to the configured number of trials; a new journal starts
    with the study of an interrupted run that had the same checkpoints. The best trial's bounds and curves are kept
    beside the journal.

    Parameters:
        folds: prepared folds, earliest first.
        journal: file of the study's Optuna journal.
        log: told about every trial.
        checkpoints: where fits keep their state, except those on a Ray cluster, whose machines need not see the folder.

    Raises:
        ValueError: if the journal holds the study of another configuration, or of other folds.
        RuntimeError: if no trial completed, or another process is searching with the same journal.
    """
    from mlplatform.tuning.study import only_search, part_of_search

    log = log or logging.getLogger(__name__)
    journal.parent.mkdir(parents=True, exist_ok=True)
    if checkpoints is not None:
        adopt_study(config, folds, checkpoints.study_note, journal, log)
    with only_search(journal):
        study = open_study(config, folds, journal)
    deadline = None if config.tuning.timeout_s is None else time.time() + config.tuning.timeout_s
    search = Search(config, folds, journal, deadline, log, checkpoints)
    done = len(finished(study))
    if done:
        log.info(f"going on with the study in {journal}: {done} trials are finished")
    executor: Executor = EXECUTORS.get(config.tuning.executor)()
    with part_of_search(journal):
        executor.run(study, search)
        return _result(study, search)


def _result(study: optuna.Study, search: Search) -> TuningResult:
    config, done = search.config, finished(study)
    best = chosen_of(config, study)
    if best is None:
        raise RuntimeError(
            f"none of the {len(done)} trials of {config.name!r} completed: a loss was not a number, or the "
            f"trials failed; see the log, and check model.params {config.model.params}"
        )
    outcome = from_json(best.user_attrs[OUTCOME])
    drop_arrays(search.journal, {best.number})
    try:
        outcome = load_arrays(outcome, search.journal, best.number)
    except (OSError, ValueError) as error:
        search.log.warning(f"the bounds of the best trial are lost ({error}); it is fitted again")
        family, checkpoints = config.model.family, search.checkpoints
        outcome = fit_on_folds(config, search.folds, family, outcome.params, checkpoints=checkpoints)
    spent = sum(float(trial.user_attrs.get(FIT_SECONDS, 0.0)) for trial in done)
    return TuningResult(outcome, tuple(row_of(trial) for trial in done), spent, saved_share(done))
