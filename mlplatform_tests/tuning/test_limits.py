"""When a search ends, and the figures about it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import optuna
import pytest

from mlplatform.config import ExperimentConfig, SearchDimension
from mlplatform.testing.search_process import searching
from mlplatform.training.cross_validation import FoldData
from mlplatform.tuning.limits import trials_without_progress
from mlplatform.tuning.trials import saved_share
from mlplatform.tuning.tuner import tune

START = dt.datetime(2025, 1, 1)
STATES = optuna.trial.TrialState


def ended(*losses: float | None) -> list[optuna.trial.FrozenTrial]:
    """Return trials that finished one after another; `None` stands for a pruned one."""
    trials = []
    for number, loss in enumerate(losses):
        state = STATES.PRUNED if loss is None else STATES.COMPLETE
        trial = optuna.trial.create_trial(state=state, value=loss)
        trial.number = number
        trial.datetime_complete = START + dt.timedelta(seconds=number)
        trials.append(trial)
    return trials


@pytest.mark.parametrize(
    ("losses", "least", "expected"),
    [
        ((), 0.0, 0),
        ((3.0,), 0.0, 0),
        ((3.0, 3.0), 0.0, 1),
        ((3.0, None, 4.0), 0.0, 2),
        ((3.0, 4.0, 2.9), 0.0, 0),
        ((3.0, 4.0, 2.9), 0.1, 2),
        ((3.0, 2.9, 2.8, 2.6), 0.1, 0),  # small steps add up: each is compared with the last that counted
        ((-1.0, -1.05), 0.1, 1),
        ((-1.0, -1.2), 0.1, 0),
        ((None, None), 0.0, 2),
    ],
)
def test_progress_is_a_loss_that_is_smaller_by_enough(
    losses: tuple[float | None, ...], least: float, expected: int
) -> None:
    assert trials_without_progress(ended(*losses), least) == expected


def test_progress_follows_the_order_in_which_trials_finished() -> None:
    trials = ended(3.0, 2.0, 4.0)
    trials[1].datetime_complete = START + dt.timedelta(hours=1)
    assert trials_without_progress(trials, 0.0) == 0


def test_a_search_without_progress_ends_early(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    worse = {"learning_rate": SearchDimension(type="categorical", choices=(1e-6,))}
    tuned = searching(config, worse, trials=30, patience_trials=3, pruner_startup_trials=1)
    result = tune(tuned, folds, tmp_path / "journal")
    assert len(result.trials) == 4
    assert tune(tuned, folds, tmp_path / "journal").trials == result.trials


def test_the_share_that_pruning_saved() -> None:
    def spent(state: optuna.trial.TrialState, seconds: float) -> optuna.trial.FrozenTrial:
        value = 1.0 if state == STATES.COMPLETE else None
        return optuna.trial.create_trial(state=state, value=value, user_attrs={"fit_seconds": seconds})

    trials = [spent(STATES.COMPLETE, 2.0), spent(STATES.COMPLETE, 4.0), spent(STATES.PRUNED, 0.5)]
    assert saved_share(trials) == pytest.approx(1 - 6.5 / 9.0)
    assert saved_share(trials[:2]) == 0
    assert saved_share(trials[2:]) == 0


def test_pruning_is_accounted_for(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    hopeless = {"learning_rate": SearchDimension(type="categorical", choices=(1e-6,))}
    pruning = searching(config, hopeless, trials=4, pruner_startup_trials=1)
    result = tune(pruning, folds, tmp_path / "pruning")
    assert [row["state"] for row in result.trials] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    # What pruned trials spent is counted too.
    assert result.fit_seconds > result.best.fit_seconds
    assert result.saved_share == pytest.approx(1 - result.fit_seconds / (4 * result.best.fit_seconds))
    patient = searching(config, hopeless, trials=3, pruner_startup_trials=9)
    assert tune(patient, folds, tmp_path / "patient").saved_share == 0
