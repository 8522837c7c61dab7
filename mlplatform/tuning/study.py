"""The study of a training run: opened or resumed, its interrupted trials repeated, its results read back.

Interrupted trials: one whose process died is marked as failed and its values are queued again; the new trial names the
old one in its `retries` attribute, and the old one no longer counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.samples import WindowSamples
from mlplatform.training.cross_validation import FoldData
from mlplatform.tuning.search_space import space_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

# Attributes of the study and of its trials.
DIGEST = "digest"
CONFIGURED = "configured"
RETRIES = "retries"
ATTEMPT = "attempt"
WORKER = "worker"
OUTCOME = "outcome"
FIT_SECONDS = "fit_seconds"

# A trial whose process dies this often counts as failed: its parameters may be what kills it.
ATTEMPTS = 3


def load_study(config: ExperimentConfig, journal: Path) -> optuna.Study:
    """Return the experiment's study in a journal; it is made if there is none."""
    import optuna

    from mlplatform.tuning.journal import open_storage
    from mlplatform.tuning.pruner import MedianAtStep
    from mlplatform.tuning.sampler import RepeatableTPE

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=config.name,
        storage=open_storage(journal),
        sampler=RepeatableTPE(config.seed),
        pruner=MedianAtStep(config.tuning.pruner_startup_trials, config.tuning.warmup_steps),
        direction="minimize",
        load_if_exists=True,
    )


def open_study(config: ExperimentConfig, folds: Sequence[FoldData], journal: Path) -> optuna.Study:
    """Return a new study, or the one that the journal already holds, ready to go on.

    No other process may be using the journal. The first trial of a new study is the configuration itself.

    Raises:
        ValueError: if the journal holds a study of something else.
    """
    from mlplatform.tuning.journal import open_storage, repair

    journal.parent.mkdir(parents=True, exist_ok=True)
    repair(journal)
    digest = study_digest(config, folds)
    others = {study.study_name for study in open_storage(journal).get_all_studies()} - {config.name}
    if others:
        raise ValueError(_not_ours(journal, f"the experiment {', '.join(sorted(others))}", repr(config.name)))
    study = load_study(config, journal)
    known = study.user_attrs.get(DIGEST)
    if known is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(DIGEST, digest)
    elif known != digest:
        found = "no digest" if known is None else f"digest {known[:12]}"
        raise ValueError(_not_ours(journal, f"{config.name!r} with {found}", f"digest {digest[:12]}"))
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial({}, user_attrs={CONFIGURED: True})
    interrupt(study, running(study))
    return study


def _not_ours(journal: Path, found: str, expected: str) -> str:
    return (
        f"the journal {journal} holds a study of {found}, expected {expected}: the configuration or the folds were "
        "others; delete the file to start over, or use another path"
    )


def study_digest(config: ExperimentConfig, folds: Sequence[FoldData]) -> str:
    """Return a SHA-256 of all that a trial's loss, or the choice of its values, depends on.

    How many trials there are and where they run is not part of it: a study can be prolonged, and moved.
    """
    document = {
        "folds": config.fold_digest(),
        "model": config.model.model_dump(mode="json", include={"family", "params"}),
        "space": {name: dimension.model_dump(mode="json") for name, dimension in space_of(config).items()},
        "uncertainty": config.uncertainty.model_dump(mode="json"),
        "metrics": config.metrics,
        "seed": config.seed,
        "pruner": config.tuning.model_dump(mode="json", include={"pruner_startup_trials", "warmup_steps"}),
    }
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for fold in folds:
        digest.update(fold.name.encode())
        for samples in (fold.train, fold.validation):
            chosen = samples.origins if isinstance(samples, WindowSamples) else samples.labels
            for array in (chosen, samples.values):
                digest.update(str(array.shape).encode())
                digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def interrupt(study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Mark running trials, whose processes are gone, as failed, and queue their values again."""
    import optuna

    repeated = interrupted(study)
    for trial in trials:
        attempt = trial.user_attrs.get(ATTEMPT, 1)
        # Queued before it is marked: if this process dies in between, the next one finds it still running.
        if trial.number not in repeated and attempt < ATTEMPTS:
            attributes = {RETRIES: trial.number, ATTEMPT: attempt + 1}
            if trial.user_attrs.get(CONFIGURED):
                attributes[CONFIGURED] = True
            study.enqueue_trial(trial.params, user_attrs=attributes)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def interrupted(study: optuna.Study) -> set[int]:
    """Return the numbers of the trials that were, or are to be, repeated."""
    trials = study.get_trials(deepcopy=False)
    return {trial.user_attrs[RETRIES] for trial in trials if RETRIES in trial.user_attrs}


def position_of(study: optuna.Study, number: int) -> int:
    """Return a trial's place in the study as it would be had nothing been interrupted."""
    return number - sum(earlier < number for earlier in interrupted(study))


def running(study: optuna.Study, worker: str | None = None) -> list[FrozenTrial]:
    """Return the trials under way, all or those of one worker."""
    import optuna

    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    return [trial for trial in trials if worker is None or trial.user_attrs.get(WORKER) == worker]


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count towards the number of trials, in order of their numbers."""
    repeated = interrupted(study)
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state.is_finished() and trial.number not in repeated]


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """Return the completed trial with the smallest loss, the earlier of equals; `None` if none completed."""
    import optuna

    completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return min(completed, key=rank, default=None)


def rank(trial: FrozenTrial) -> tuple[float, int]:
    """Return what completed trials are ordered by."""
    assert trial.value is not None
    return trial.value, trial.number


def row_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial as a row of the table of trials; `loss` of a pruned one is the last it reported."""
    seconds = trial.duration.total_seconds() if trial.duration else None
    return {"number": trial.number, "state": trial.state.name, "loss": trial.value, "seconds": seconds, **trial.params}


def saved_share(trials: Sequence[FrozenTrial]) -> float:
    """Return the share of the compute that pruning saved, between 0 and 1.

    A pruned trial is taken to have cost, in full, the median of the completed ones; what trials spent beyond that
    counts against the saving, so the result can be below 0.
    """
    costs = {state: [float(t.user_attrs.get(FIT_SECONDS, 0.0)) for t in trials if t.state.name == state]
             for state in ("COMPLETE", "PRUNED")}  # fmt: skip
    full = sum(costs["COMPLETE"])
    if not full:
        return 0.0
    full += len(costs["PRUNED"]) * float(np.median(costs["COMPLETE"]))
    return 1.0 - (sum(costs["COMPLETE"]) + sum(costs["PRUNED"])) / full
