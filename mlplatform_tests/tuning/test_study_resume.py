"""A run goes on with the study of an earlier one that was killed, and only with one that it can go on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from mlplatform.config import ExperimentConfig
from mlplatform.testing.search_process import SPACE, searching
from mlplatform.training.cross_validation import FoldData
from mlplatform.training.run_checkpoints import RunCheckpoints
from mlplatform.tuning import search
from mlplatform.tuning.study.journal import part_of_search
from mlplatform.tuning.study.study import interrupt, load_study
from mlplatform.tuning.trials import ATTEMPTS, finished, running
from mlplatform.tuning.tuner import TuningResult, tune
from mlplatform_tests.tuning.test_resume import assert_same_outcome, without_seconds

TRIALS = 6
Start = Callable[..., TuningResult]


class Killed(BaseException):
    """Stops a run without a chance to say so, as kill -9 does."""


@pytest.fixture
def tuned(config: ExperimentConfig) -> ExperimentConfig:
    return searching(config, SPACE, trials=TRIALS)


@pytest.fixture
def start(
    tuned: ExperimentConfig, folds: list[FoldData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Start, list[int]]:
    """Return what starts a run, which is killed in its trial number `victim`, and the number of trials it fitted."""
    fitted = [0]
    fit = search.fit_on_folds

    def run(journal: str, victim: int | None = None, on: list[FoldData] = folds) -> TuningResult:
        def count(*args: Any) -> Any:
            if fitted[0] == victim:
                raise Killed
            fitted[0] += 1
            return fit(*args)

        def die(*_: object) -> None:
            raise Killed

        fitted[0] = 0
        with monkeypatch.context() as patch:
            patch.setattr(search, "fit_on_folds", count)
            if victim is not None:
                patch.setattr(search, "interrupt", die)
            return tune(tuned, on, tmp_path / journal, checkpoints=RunCheckpoints(tmp_path / "checkpoints"))

    return run, fitted


def test_a_new_run_goes_on_with_the_study_of_a_killed_one(
    start: tuple[Start, list[int]], tuned: ExperimentConfig, folds: list[FoldData], tmp_path: Path
) -> None:
    run, fitted = start
    for journal, victim in (("first", 3), ("second", 1)):
        with pytest.raises(Killed):
            run(journal, victim)
    result = run("third")
    # Three trials of the first run and one of the second were finished.
    assert fitted == [TRIALS - 4]
    whole = tune(tuned, folds, tmp_path / "whole")
    assert without_seconds(result.trials, "number") == without_seconds(whole.trials, "number")
    assert_same_outcome(result, whole)
    assert len(finished(load_study(tuned, tmp_path / "first"))) == 3
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("obstacle", ["folds", "attempts", "failures", "in use"])
def test_a_study_that_cannot_be_gone_on_with_is_left_alone(
    start: tuple[Start, list[int]],
    tuned: ExperimentConfig,
    folds: list[FoldData],
    tmp_path: Path,
    obstacle: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("mlplatform.tuning.study.journal.HANDOVER_S", 0.1)
    run, fitted = start
    with pytest.raises(Killed):
        run("first", 0 if obstacle == "failures" else 2)
    study = load_study(tuned, tmp_path / "first")
    if obstacle == "attempts":
        for _ in range(ATTEMPTS - 1):
            interrupt(study, running(study))
            study.ask()
    elif obstacle == "failures":
        study.tell(running(study)[0].number, state=optuna.trial.TrialState.FAIL)
    if obstacle == "in use":
        with part_of_search(tmp_path / "first"):
            run("second")
    else:
        run("second", on=folds[:1] if obstacle == "folds" else folds)
    reasons = {
        "folds": "its configuration or its folds were others",
        "attempts": "one of its trials was interrupted 3 times",
        "failures": "none of its trials completed",
        "in use": "another process is searching",
    }
    assert f"not going on with the study in {tmp_path / 'first'}: {reasons[obstacle]}" in caplog.text
    assert fitted == [TRIALS]


def test_a_study_whose_journal_is_gone_starts_over(start: tuple[Start, list[int]], tmp_path: Path) -> None:
    run, fitted = start
    with pytest.raises(Killed):
        run("first", 2)
    (tmp_path / "first").unlink()
    run("second")
    assert fitted == [TRIALS]
