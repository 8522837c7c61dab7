"""The process executor: one study, several workers, any of which may die."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.config import ExperimentConfig
from mlplatform.models.base import FitOptions
from mlplatform.testing.experiments import prepare_folds, pump_config, pump_module
from mlplatform.testing.search_process import SPACE, searching, settings_in, slow_search, start_search, wait_for
from mlplatform.training.checkpoints import write_checkpoint
from mlplatform.training.cross_validation import FoldData
from mlplatform.training.run_checkpoints import RunCheckpoints
from mlplatform.tuning.handover import hand_over, take_over, without_caches
from mlplatform.tuning.objective import fit_on_folds
from mlplatform.tuning.study.study import load_study
from mlplatform.tuning.trials import finished, interrupted, running
from mlplatform.tuning.tuner import TuningResult, tune


def worker_pids(parent: int) -> list[int]:
    """Return the processes that a search has started, without Python's own helpers."""
    children = [pid for path in Path(f"/proc/{parent}/task").glob("*/children") for pid in path.read_text().split()]
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_share_one_study(pump_folder: Path, tmp_path: Path) -> None:
    config, folds = slow_search(pump_folder, 7, "process", 2)
    result = tune(config, folds, tmp_path / "journal")
    assert sorted(row["number"] for row in result.trials) == list(range(7))
    assert {row["state"] for row in result.trials} == {"COMPLETE"}
    study = load_study(config, tmp_path / "journal")
    assert len({trial.user_attrs["worker"] for trial in study.trials}) == 2
    # Two workers at once, and no value twice.
    trials = sorted(study.trials, key=lambda trial: trial.datetime_start)
    assert any(b.datetime_start < a.datetime_complete for a, b in pairwise(trials))
    assert len({row["subsample"] for row in result.trials[1:]}) == 6
    # What a worker found is what this process finds, bounds included.
    again = fit_on_folds(config, folds, "xgboost", result.best.params)
    assert again.fold_scores == result.best.fold_scores
    np.testing.assert_array_equal(np.stack(again.bounds[0][:3]), np.stack(result.best.bounds[0][:3]))
    assert result.best.mean("mae") == min(row["loss"] for row in result.trials)
    assert sorted(path.name for path in tmp_path.iterdir())[0] == "journal"
    assert len(list(tmp_path.glob("*.npz*"))) == 1


def test_workers_keep_the_checkpoints_of_the_run(
    pump_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = pump_config(settings_in(pump_folder), "model=pump_nlinear_v1")
    config = searching(config, {}, trials=1, executor="process", workers=1)
    checkpoints = RunCheckpoints(tmp_path / "checkpoints" / "run", seconds=0)
    options = checkpoints.of_fit(FitOptions(), "fold_1", "nlinear", config.model.params)
    assert options.checkpoint is not None
    write_checkpoint(options.checkpoint, {"identity": {}})
    tune(config, prepare_folds(pump_module(config)), tmp_path / "journal", checkpoints=checkpoints)
    assert f"{options.checkpoint}/fit.pt is of another fit" in capfd.readouterr().err
    assert not list(checkpoints.folder.iterdir())


def test_a_killed_worker_loses_its_trial_only(
    pump_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "journal"
    config, folds = slow_search(pump_folder, 8, "process", 2)
    found: list[TuningResult] = []
    search = threading.Thread(target=lambda: found.append(tune(config, folds, journal)))
    search.start()
    wait_for(journal, config, 2, 2)
    (victim, *_) = worker_pids(os.getpid())
    os.kill(victim, signal.SIGKILL)
    search.join(120)
    (result,) = found
    assert len(result.trials) == 8
    study = load_study(config, journal)
    assert len(interrupted(study)) <= 1
    assert [record.message for record in caplog.records if "exit code -9" in record.message]
    assert running(study) == []


def test_a_killed_search_leaves_no_worker_and_goes_on(pump_folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    process = start_search(pump_folder, journal, 8, "process", 2)
    config, folds = slow_search(pump_folder, 8, "process", 2)
    wait_for(journal, config, 2, 2)
    workers = worker_pids(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(_is_alive(pid) for pid in workers), 10)
    kept = {trial.number: trial.value for trial in finished(load_study(config, journal))}
    result = tune(config, folds, journal)
    assert len(result.trials) == 8
    assert kept.items() <= {row["number"]: row["loss"] for row in result.trials}.items()
    assert len(interrupted(load_study(config, journal))) <= 2


def test_an_error_in_a_trial_ends_the_search(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    broken = searching(config, SPACE, trials=4, executor="process", workers=1)
    model = broken.model.model_copy(update={"params": {"max_depth": 99}})
    with pytest.raises(RuntimeError, match=r"a trial raised an error in a worker process:(.|\n)*max_depth"):
        tune(broken.model_copy(update={"model": model}), folds, tmp_path / "journal")
    assert worker_pids(os.getpid()) == []


def test_handed_folds_are_the_same_and_share_their_arrays(folds: list[FoldData], tmp_path: Path) -> None:
    folds[0].train.cache["matrix"] = threading.Lock()  # like a quantised matrix, it cannot be pickled
    handed = hand_over(folds, tmp_path)
    del folds[0].train.cache["matrix"]
    for mine, other in zip(folds, take_over(handed), strict=True):
        assert other.name == mine.name
        assert other.spec == mine.spec
        np.testing.assert_array_equal(other.train.inputs(), mine.train.inputs())
        np.testing.assert_array_equal(other.truth, mine.truth)
        assert other.train.cache == {}
        outputs = mine.validation.outputs()
        assert other.score(outputs) == mine.score(outputs)
        # Views of the file, not copies; a write stays in this process.
        assert not other.train.values.flags.owndata
        other.train.values[0, 0] = 7e7
    for mine, other in zip(folds, take_over(handed), strict=True):
        np.testing.assert_array_equal(other.train.values, mine.train.values)
    assert len(handed.document) < sum(handed.lengths)


def test_folds_without_caches_share_their_arrays(folds: list[FoldData]) -> None:
    (first, *_) = without_caches(folds)
    assert first.train.values is folds[0].train.values
    assert first.train.cache is not folds[0].train.cache


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
