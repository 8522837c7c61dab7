"""Where the fits of a training run keep their unfinished state: a folder per fit, found again by the run's inputs.

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
from mlplatform.models.base import FitOptions
from mlplatform.settings import Settings
from mlplatform.training.checkpoints import LOCK_SUFFIX, claimed, remove_checkpoint

# Fits that take less than this are repeated sooner than their state would be written and read.
SECONDS = 10.0
ABANDONED_AFTER_S = 7 * 86_400


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

    def of_fit(self, options: FitOptions, purpose: str, family: str, params: Mapping[str, Any]) -> FitOptions:
        """Return the options of a fit with its checkpoint.

        Parameters:
            purpose: `refit`, or the name of a fold.
        """
        folder = self.folder / f"{purpose}-{family}-{_digest(params)}"
        return replace(options, checkpoint=folder, checkpoint_seconds=self.seconds)

    def clear(self) -> None:
        """Remove what this run's fits left, and what killed runs of the experiment left that nobody repeated.

        What another run is using stays.
        """
        oldest = time.time() - ABANDONED_AFTER_S
        for folder in (self.folder, *self.folder.parent.glob("*")):
            if folder == self.folder or _last_used(folder) < oldest:
                _remove_unused(folder)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


def _last_used(folder: Path) -> float:
    times = [0.0]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times)


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
