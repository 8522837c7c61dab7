"""A study that was interrupted goes on where it was, with the values it would have tried."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from mlplatform.config import ExperimentConfig
from mlplatform.testing.search_process import SPACE, searching, slow_search, start_search, wait_for
from mlplatform.training.cross_validation import FoldData
from mlplatform.tuning.study.journal import KernelLock, only_search, open_storage, part_of_search, session_file
from mlplatform.tuning.study.outcome import arrays_path
from mlplatform.tuning.study.study import interrupt, load_study
from mlplatform.tuning.trials import ATTEMPTS, finished, position_of, running
from mlplatform.tuning.tuner import TuningResult, tune


def without_seconds(rows: Sequence[dict[str, Any]], *more: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in ("seconds", *more)} for row in rows]


def assert_same_outcome(left: TuningResult, right: TuningResult) -> None:
    assert left.best.params == right.best.params
    assert left.best.fold_scores == right.best.fold_scores
    assert left.best.fold_iterations == right.best.fold_iterations
    assert left.best.curves == right.best.curves
    for mine, other in zip(left.best.bounds, right.best.bounds, strict=True):
        np.testing.assert_array_equal(np.stack(mine[:3]), np.stack(other[:3]))


def test_a_finished_study_is_read_back_whole(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    tuned = searching(config, SPACE, trials=4, pruner_startup_trials=9)
    first = tune(tuned, folds, tmp_path / "journal")
    again = tune(tuned, folds, tmp_path / "journal")
    assert_same_outcome(first, again)
    assert len(again.best.bounds) == len(folds)
    assert again.trials == first.trials
    assert again.fit_seconds == first.fit_seconds
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_a_study_can_be_prolonged(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    short = tune(searching(config, SPACE, trials=3), folds, tmp_path / "journal")
    longer = tune(searching(config, SPACE, trials=14), folds, tmp_path / "journal")
    at_once = tune(searching(config, SPACE, trials=14), folds, tmp_path / "other")
    assert longer.trials[:3] == short.trials
    assert without_seconds(longer.trials) == without_seconds(at_once.trials)
    assert_same_outcome(longer, at_once)


def test_trials_keep_their_scores_and_iterations(
    config: ExperimentConfig, folds: list[FoldData], tmp_path: Path
) -> None:
    tuned = searching(config, SPACE, trials=3, pruner_startup_trials=9)
    tune(tuned, folds, tmp_path / "journal")
    for trial in load_study(tuned, tmp_path / "journal").trials:
        outcome = trial.user_attrs["outcome"]
        assert outcome["params"] == config.model.params | trial.params
        assert np.mean([scores["mae"] for scores in outcome["fold_scores"]]) == trial.value
        assert [len(rounds) for rounds in outcome["fold_iterations"]] == [3, 3]
        assert 0 < outcome["fit_seconds"] == trial.user_attrs["fit_seconds"]


def test_a_lost_file_of_bounds_is_made_again(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    tuned = searching(config, SPACE, trials=2)
    first = tune(tuned, folds, tmp_path / "journal")
    (path,) = tmp_path.glob("*.npz")
    path.unlink()
    assert_same_outcome(first, tune(tuned, folds, tmp_path / "journal"))
    arrays_path(tmp_path / "journal", int(path.suffixes[0].partition("_")[2])).write_bytes(b"PK no archive")
    assert_same_outcome(first, tune(tuned, folds, tmp_path / "journal"))


@pytest.mark.parametrize("other", ["params", "space", "seed", "folds", "experiment"])
def test_a_journal_of_something_else_is_refused(
    config: ExperimentConfig, folds: list[FoldData], tmp_path: Path, other: str
) -> None:
    tune(searching(config, SPACE, trials=1), folds, tmp_path / "journal")
    changed = searching(config, SPACE, trials=1)
    if other == "params":
        model = changed.model.model_copy(update={"params": {**changed.model.params, "max_depth": 2}})
        changed = changed.model_copy(update={"model": model})
    elif other == "space":
        changed = searching(config, {"max_depth": SPACE["max_depth"]}, trials=1)
    elif other == "folds":
        folds = folds[:1]
    else:
        changed = changed.model_copy(update={"seed": 4} if other == "seed" else {"name": "pump_other"})
    with pytest.raises(ValueError, match=r"holds a study of .* delete the file to start over, or use another path"):
        tune(changed, folds, tmp_path / "journal")


@pytest.mark.parametrize("victim", [0, 5])
def test_an_interrupted_trial_is_repeated(
    config: ExperimentConfig,
    folds: list[FoldData],
    tmp_path: Path,
    victim: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process stops in the middle of a trial without a chance to say so, as under kill -9."""
    from mlplatform.tuning import search

    tuned = searching(config, SPACE, trials=14, pruner_startup_trials=3)
    whole = tune(tuned, folds, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Killed

    fit = search.fit_on_folds
    calls = [0]

    def fits_until_killed(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == victim + 1:
            raise Killed
        return fit(*args)

    with monkeypatch.context() as patch:
        patch.setattr(search, "fit_on_folds", fits_until_killed)
        patch.setattr(search, "interrupt", dies)
        with pytest.raises(Killed):
            tune(tuned, folds, tmp_path / "journal")
    assert [trial.number for trial in running(load_study(tuned, tmp_path / "journal"))] == [victim]

    resumed = tune(tuned, folds, tmp_path / "journal")
    assert [row["number"] for row in resumed.trials] == [k for k in range(15) if k != victim]
    assert without_seconds(resumed.trials, "number") == without_seconds(whole.trials, "number")
    assert_same_outcome(whole, resumed)


def test_a_trial_that_kills_its_process_is_given_up(
    config: ExperimentConfig, folds: list[FoldData], tmp_path: Path
) -> None:
    tuned = searching(config, SPACE, trials=3)
    tune(searching(config, SPACE, trials=1), folds, tmp_path / "journal")
    study = load_study(tuned, tmp_path / "journal")
    taken = []
    for _ in range(ATTEMPTS):
        trial = study.ask()
        taken.append(trial.suggest_int("max_depth", 1, 4))
        interrupt(study, running(study))
    assert len(set(taken)) == 1
    assert [trial.state.name for trial in finished(study)] == ["COMPLETE", "FAIL"]
    assert position_of(study, study.ask().number) == 2
    interrupt(study, running(study))
    result = tune(tuned, folds, tmp_path / "journal")
    assert [row["state"] for row in result.trials[:2]] == ["COMPLETE", "FAIL"]
    assert len(result.trials) == 3


def test_an_unfinished_last_line_is_cut_off(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    tune(searching(config, SPACE, trials=2), folds, journal)
    with journal.open("ab") as stream:
        stream.write(b'{"op_code": 4, "wor')
    assert len(tune(searching(config, SPACE, trials=4), folds, journal).trials) == 4
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_only_reports_of_a_trial_under_way_do_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    study = optuna.create_study(study_name="pump", storage=open_storage(tmp_path / "journal"))
    trial = study.ask()
    waits = len(synced)
    assert waits > 0
    for step in range(3):
        trial.report(1.0 / (step + 1), step)
    assert len(synced) == waits
    elsewhere = optuna.load_study(study_name="pump", storage=open_storage(tmp_path / "journal"))
    assert elsewhere.trials[0].intermediate_values == {0: 1.0, 1: 0.5, 2: 1 / 3}
    study.tell(trial, 1.0)
    assert len(synced) > waits


def hold_lock(path: Path, ready: Any) -> None:
    KernelLock(path).acquire()
    ready.set()
    time.sleep(600)


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold_lock, args=(tmp_path / "file", ready), daemon=True)
    holder.start()
    assert ready.wait(60)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    started = time.monotonic()
    with KernelLock(tmp_path / "file"):
        assert time.monotonic() - started < 2


def test_two_searches_do_not_share_a_journal(
    config: ExperimentConfig, folds: list[FoldData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlplatform.tuning.study.journal.HANDOVER_S", 0.1)
    journal = tmp_path / "journal"
    with part_of_search(journal), part_of_search(journal), pytest.raises(RuntimeError, match="another process"):
        tune(searching(config, SPACE, trials=1), folds, journal)
    assert len(tune(searching(config, SPACE, trials=1), folds, journal).trials) == 1
    with only_search(journal):
        assert session_file(journal).exists()


def test_a_killed_search_loses_one_trial(pump_folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    config, folds = slow_search(pump_folder, 5, "inline", 1)
    process = start_search(pump_folder, journal, 5, "inline", 1)
    wait_for(journal, config, 2, 1)
    process.kill()
    process.wait()
    kept = finished(load_study(config, journal))
    result = tune(config, folds, journal)
    whole = tune(config, folds, tmp_path / "whole")
    assert 2 <= len(kept) < 5
    assert [row["loss"] for row in result.trials[: len(kept)]] == [trial.value for trial in kept]
    assert without_seconds(result.trials, "number") == without_seconds(whole.trials, "number")
    assert max(row["number"] for row in result.trials) == 5
