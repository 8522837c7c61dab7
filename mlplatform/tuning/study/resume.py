"""A new run goes on with the study of a killed one that had the same inputs.

Every run has a journal of its own, which stays as the record of its study. A run notes the path of its journal where
the next one with the same inputs will look, and the next one starts from a copy.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.config import ExperimentConfig
from mlplatform.storage import atomic_file
from mlplatform.training import FoldData
from mlplatform.tuning.study.study import load_study, study_digest
from mlplatform.tuning.trials import ATTEMPT, ATTEMPTS, DIGEST, best_of, finished, running

if TYPE_CHECKING:
    import optuna


def adopt_study(
    config: ExperimentConfig, folds: Sequence[FoldData], note: Path, journal: Path, log: logging.Logger
) -> None:
    """Copy the journal that `note` names to `journal`, unless that exists, and name `journal` in the note.

    A study that cannot be gone on with is left alone, and the log says why.
    """
    if note.exists() and not journal.exists():
        earlier = Path(note.read_text())
        if earlier.exists():
            refused = _copy(config, folds, earlier, journal)
            log.info(
                f"going on with the study of an interrupted run in {earlier}"
                if refused is None
                else f"not going on with the study in {earlier}: {refused}"
            )
    with atomic_file(note) as half:
        half.write_text(str(journal.resolve()))


def _copy(config: ExperimentConfig, folds: Sequence[FoldData], earlier: Path, journal: Path) -> str | None:
    """Copy a journal with the arrays of its best trial; return why not, if it cannot be used."""
    from mlplatform.tuning.study.journal import only_search, repair

    try:
        with only_search(earlier), atomic_file(journal) as half:
            shutil.copyfile(earlier, half)
            repair(half)
            refused = _unfit(load_study(config, half), study_digest(config, folds))
            if refused is not None:
                raise ValueError(refused)
            # The journal comes last: whatever trial is the best in it, its arrays are there.
            for arrays in earlier.parent.glob(f"{earlier.name}.trial_*.npz"):
                shutil.copyfile(arrays, journal.with_name(journal.name + arrays.name.removeprefix(earlier.name)))
    except (RuntimeError, ValueError) as error:
        return str(error)
    return None


def _unfit(study: optuna.Study, digest: str) -> str | None:
    """Return why a study cannot be gone on with, or None if it can."""
    if study.user_attrs.get(DIGEST) != digest:
        return "its configuration or its folds were others"
    if any(trial.user_attrs.get(ATTEMPT, 1) >= ATTEMPTS for trial in running(study)):
        return f"one of its trials was interrupted {ATTEMPTS} times"
    if finished(study) and best_of(study) is None:
        return "none of its trials completed"
    return None
