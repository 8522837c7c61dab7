"""A search on the pump experiment, and a process of its own that runs it, to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.config import ExperimentConfig, SearchDimension
from mlplatform.settings import Settings
from mlplatform.testing.experiments import prepare_folds, pump_config, pump_module
from mlplatform.testing.forks import Fork
from mlplatform.training.cross_validation import FoldData
from mlplatform.tuning.study.study import load_study
from mlplatform.tuning.trials import finished, running
from mlplatform.tuning.tuner import TuningResult, tune

if TYPE_CHECKING:
    import optuna

SPACE = {
    "max_depth": SearchDimension(type="int", low=1, high=4),
    "subsample": SearchDimension(type="float", low=0.5, high=1.0),
}


def searching(config: ExperimentConfig, space: dict[str, SearchDimension], **tuning: object) -> ExperimentConfig:
    """Return the experiment with a search space and tuning options of its own."""
    model = config.model.model_copy(update={"search_space": space})
    return config.model_copy(update={"model": model, "tuning": config.tuning.model_copy(update=tuning)})


def settings_in(folder: Path) -> Settings:
    """Return the installation that `pump_settings` made in a folder."""
    names = {"MLPLATFORM_HOME": "home", "MLPLATFORM_CONF_DIR": "conf", "MLPLATFORM_DATA_DIR": "input"}
    return Settings.from_env({key: str(folder / name) for key, name in names.items()})


def slow_search(folder: Path, trials: int, executor: str, workers: int) -> tuple[ExperimentConfig, list[FoldData]]:
    """Return an experiment whose trials take a few tenths of a second, and its folds."""
    config = pump_config(settings_in(folder), "model.params.num_boost_round=60", "model.params.patience=60")
    config = searching(config, SPACE, trials=trials, executor=executor, workers=workers, pruner_startup_trials=99)
    return config, prepare_folds(pump_module(config))


def start_search(folder: Path, journal: Path, trials: int, executor: str, workers: int) -> Fork:
    """Start a search in a process of its own; it prints how many trials there are at its end."""
    return Fork(_search, folder, journal, trials, executor, workers, environ={"OMP_NUM_THREADS": "1"})


def wait_for(journal: Path, config: ExperimentConfig, done: int, under_way: int) -> optuna.Study:
    """Return the study once so many trials are finished and so many under way."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if journal.exists() and journal.stat().st_size:
            study = load_study(config, journal)
            if len(finished(study)) >= done and len(running(study)) >= under_way:
                return study
        time.sleep(0.02)
    raise AssertionError(f"{journal} did not get to {done} finished and {under_way} running trials")


def _search(folder: Path, journal: Path, trials: int, executor: str, workers: int) -> None:
    config, folds = slow_search(folder, trials, executor, workers)
    result: TuningResult = tune(config, folds, journal)
    sys.stdout.write(f"{len(result.trials)}\n")
