"""Where a training run keeps its unfinished state: a folder per fit, and a note of its study, found by its inputs.

A run that was killed and one that starts later with the same inputs look in the same place, whatever their names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlplatform.config import ExperimentConfig
from mlplatform.models import FitOptions
from mlplatform.settings import Settings
from mlplatform.training.checkpoints import LOCK_SUFFIX, claimed, remove_checkpoint

# Fits that take less than this are repeated sooner than their state would be written and read.
SECONDS = 10.0
ABANDONED_AFTER_S = 7 * 86_400
NOTE_SUFFIX = ".study"


@dataclass(frozen=True)
class RunCheckpoints:
    """The checkpoints of one training run.

    Attributes:
        folder: holds nothing else.
        seconds: least time between two states of a fit.
    """

    folder: Path
    seconds: float = SECONDS

    @classmethod
    def of(cls, settings: Settings, config: ExperimentConfig, *inputs: str) -> RunCheckpoints:
        """Return those of a run of an experiment.

        Parameters:
            inputs: what the fits depend on beside the configuration, for example a hash of the data.
        """
        key = _digest([config.model_dump(mode="json"), inputs])
        return cls(settings.checkpoints_dir / config.name / key, SECONDS)

    @property
    def study_note(self) -> Path:
        """The file that names the journal of the run's study."""
        # Beside the folder, which another run with the same inputs may remove at any time.
        return self.folder.with_name(f"{self.folder.name}{NOTE_SUFFIX}")

    def of_fit(self, options: FitOptions, purpose: str, family: str, params: Mapping[str, Any]) -> FitOptions:
        """Return the options of a fit with its checkpoint.

        Parameters:
            purpose: `refit`, or the name of a fold.
        """
        folder = self.folder / f"{purpose}-{family}-{_digest(params)}"
        return replace(options, checkpoint=folder, checkpoint_seconds=self.seconds)

    def clear(self) -> None:
        """Remove what this run left, and what killed runs of the experiment left that nobody repeated.

        What another run is using stays.
        """
        _remove_unused(self.folder)
        self.study_note.unlink(missing_ok=True)
        oldest = time.time() - ABANDONED_AFTER_S
        for path in self.folder.parent.glob("*"):
            if _last_used(path) >= oldest:
                continue
            if path.suffix == NOTE_SUFFIX:
                path.unlink(missing_ok=True)
            else:
                _remove_unused(path)


def _last_used(path: Path) -> float:
    """Return when a path or anything below it was changed last, now if it is being removed."""
    try:
        return max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except FileNotFoundError:
        return time.time()


def _remove_unused(folder: Path) -> None:
    fits = {path.with_name(path.name.removesuffix(LOCK_SUFFIX)) for path in folder.glob("*")}
    for fit in fits:
        with claimed(fit) as is_own:
            if is_own:
                remove_checkpoint(fit)
    # Another run may be in it.
    with contextlib.suppress(OSError):
        folder.rmdir()


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
