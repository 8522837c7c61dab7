"""The Ray executor, on a cluster of this machine that the test starts and kills an actor of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlplatform.testing.search_process import slow_search, start_search, wait_for
from mlplatform.tuning.executors.ray import LocalReports
from mlplatform.tuning.study.pruner import Thresholds
from mlplatform.tuning.study.study import load_study
from mlplatform.tuning.trials import interrupted


def actors_of(pid: int) -> list[int]:
    """Return the processes of a search's actors."""
    found = []
    lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    for child in (int(text) for children in lists for text in children):
        is_actor = Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ray::TrialActor")
        found += [child] if is_actor else actors_of(child)
    return found


@pytest.mark.integration
def test_a_search_on_ray_survives_a_killed_actor(pump_folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    config, _ = slow_search(pump_folder, 8, "ray", 2)
    process = start_search(pump_folder, journal, 8, "ray", 2)
    wait_for(journal, config, 2, 2)
    os.kill(actors_of(process.pid)[0], signal.SIGKILL)
    assert process.wait(timeout=200) == 0, process.stderr
    assert process.stdout.split()[-1] == "8"
    study = load_study(config, journal)
    (lost,) = interrupted(study)
    # What an actor reports goes with its result; that of the killed one, whichever trial it had, is lost with it.
    assert all(trial.intermediate_values for trial in study.trials if trial.number != lost)
    # A finished study is read back without starting anything.
    again = start_search(pump_folder, journal, 8, "inline", 1)
    assert again.wait(timeout=60) == 0, again.stderr
    assert again.stdout.split()[-1] == "8"


def test_an_actor_prunes_by_the_medians_it_was_given() -> None:
    reports = LocalReports(Thresholds({0: 1.0, 7: 5.0}, warmup_steps=1))
    for value, step, is_poor in ((9.0, 0, False), (5.0, 7, False), (5.1, 7, True), (9.0, 8, False)):
        reports.report(value, step)
        assert reports.should_prune() is is_poor
    reports.report(float("nan"), 0)
    assert reports.should_prune()
    assert len(reports.reports) == 5


def test_executors_do_not_load_ray_or_optuna() -> None:
    code = "import sys; from mlplatform.plugins import EXECUTORS; print(EXECUTORS.names()); "
    code += "sys.exit(any(name in sys.modules for name in ('ray', 'optuna', 'torch', 'mlplatform.tuning.search')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "('inline', 'process', 'ray')"
