"""The study of a training run: opened or resumed, its interrupted trials repeated.

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
from mlplatform.datamodule import WindowSamples
from mlplatform.training import FoldData
from mlplatform.tuning.search_space import alternatives_of, space_of
from mlplatform.tuning.trials import ATTEMPT, ATTEMPTS, CHANGES, CONFIGURED, DIGEST, RETRIES, interrupted, running

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def load_study(config: ExperimentConfig, journal: Path) -> optuna.Study:
    """Return the experiment's study in a journal; it is made if there is none."""
    import optuna

    from mlplatform.tuning.study.journal import open_storage
    from mlplatform.tuning.study.pruner import MedianAtStep
    from mlplatform.tuning.study.sampler import RepeatableTPE

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

    No other process may be using the journal. The first trial of a new study is the configuration itself, the
    next ones are the changes of it that its family names.

    Raises:
        ValueError: if the journal holds a study of something else.
    """
    from mlplatform.tuning.study.journal import open_storage, repair

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
        for changes in alternatives_of(config):
            study.enqueue_trial({}, user_attrs={CHANGES: changes})
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
    document: dict[str, Any] = {
        "folds": config.fold_digest(),
        "model": config.model.model_dump(mode="json", include={"family", "params"}),
        "space": {name: dimension.model_dump(mode="json") for name, dimension in space_of(config).items()},
        "uncertainty": config.uncertainty.model_dump(mode="json", include={"coverage", "quantiles"}),
        "metrics": config.metrics,
        "seed": config.seed,
        "pruner": config.tuning.model_dump(mode="json", include={"pruner_startup_trials", "warmup_steps"}),
    }
    if config.tuning.prune_at != "step":
        document["pruner"]["prune_at"] = config.tuning.prune_at
    if alternatives := alternatives_of(config):
        document["alternatives"] = alternatives
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
            attributes |= {key: trial.user_attrs[key] for key in (CONFIGURED, CHANGES) if key in trial.user_attrs}
            study.enqueue_trial(trial.params, user_attrs=attributes)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
