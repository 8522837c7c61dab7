"""Trials in worker processes of this machine that share one study through its journal.

Every worker maps the prepared folds into its memory, keeps their quantised matrices, and fits on one core. One that is
killed loses the trial at hand; the trial is repeated, and another worker takes its place. All end with their parent.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.config import ExperimentConfig
from mlplatform.plugins import EXECUTORS

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    import optuna

    from mlplatform.training import RunCheckpoints
    from mlplatform.tuning.handover import HandedFolds
    from mlplatform.tuning.search import Search

POLL_S = 0.25
# Workers that die one after another, without a trial finished in between, until the search gives up.
DEATHS = 4
ERROR_FILE = "error.txt"


@dataclass(frozen=True)
class Task:
    """What a worker is told.

    Attributes:
        name: of the worker, noted on its trials.
        folder: for the lock that workers take trials under, and for the text of an error.
    """

    name: str
    config: ExperimentConfig
    handed: HandedFolds
    journal: Path
    folder: Path
    deadline: float | None
    checkpoints: RunCheckpoints | None


@EXECUTORS.register("process")
class Processes:
    """Runs one trial per worker process; which values are tried depends on which trials finish first."""

    def run(self, study: optuna.Study, search: Search) -> None:
        """Run trials until a limit of the search is reached.

        Raises:
            RuntimeError: if a trial raised an error, or workers die one after another.
        """
        from mlplatform.models import DEFAULT_OPTIONS
        from mlplatform.tuning.handover import hand_over
        from mlplatform.tuning.limits import may_start, trial_budget
        from mlplatform.tuning.study import interrupt
        from mlplatform.tuning.trials import running

        wanted = min(search.config.tuning.workers or DEFAULT_OPTIONS.workers, trial_budget(search.config))
        with tempfile.TemporaryDirectory(prefix="mlp-tuning-") as name:
            folder = Path(name)
            pool = Pool(study, search, folder, hand_over(search.folds, folder))
            try:
                while may_start(search.config, study, search.deadline):
                    pool.fill(wanted)
                    while pool.watch():
                        pool.fill(wanted)
                    # Of a worker that died before it could write its name on the trial.
                    interrupt(study, running(study))
            finally:
                pool.stop()


class Pool:
    """The worker processes of a search.

    Attributes:
        started: how many workers were started so far.
    """

    def __init__(self, study: optuna.Study, search: Search, folder: Path, handed: HandedFolds) -> None:
        from mlplatform.tuning.trials import finished

        self.study = study
        self.search = search
        self.folder = folder
        self.handed = handed
        self.started = 0
        self._workers: dict[str, SpawnProcess] = {}
        self._told = {trial.number for trial in finished(study)}
        self._deaths = 0

    def fill(self, wanted: int) -> None:
        """Start workers until `wanted` run, if there is still something to do."""
        from mlplatform.tuning.limits import may_start

        while len(self._workers) < wanted and may_start(self.search.config, self.study, self.search.deadline):
            # Unique beyond this process: names of earlier sessions stay in the journal.
            name = f"{os.getpid()}-{self.started}"
            self.started += 1
            search = self.search
            task = Task(
                name,
                search.config,
                self.handed,
                search.journal,
                self.folder,
                search.deadline,
                search.checkpoints,
            )
            # Started anew instead of forked: threads of numerical libraries do not survive a fork.
            process = multiprocessing.get_context("spawn").Process(target=work, args=(task,), name=name, daemon=True)
            process.start()
            self._workers[name] = process

    def watch(self) -> bool:
        """Wait a moment; log finished trials, and repeat those of workers that died. Return whether workers are left.

        Raises:
            RuntimeError: as `Processes.run`.
        """
        from mlplatform.tuning.study import interrupt
        from mlplatform.tuning.trials import running

        wait([process.sentinel for process in self._workers.values()], timeout=POLL_S)
        gone = {name: process for name, process in self._workers.items() if process.exitcode is not None}
        self._log_finished()
        for name, process in gone.items():
            del self._workers[name]
            if process.exitcode == 0:
                continue
            interrupt(self.study, running(self.study, name))
            error = self.folder / ERROR_FILE
            if error.exists():
                raise RuntimeError(f"a trial raised an error in a worker process:\n{error.read_text()}")
            self._deaths += 1
            self.search.log.warning(
                f"worker {name} ended with exit code {process.exitcode}; its trial will be repeated by another one"
            )
            if self._deaths >= DEATHS:
                raise RuntimeError(
                    f"{self._deaths} workers died one after another, the last with exit code {process.exitcode}, and "
                    "no trial finished in between; if memory is short, set tuning.workers to a smaller number"
                )
        return bool(self._workers)

    def _log_finished(self) -> None:
        from mlplatform.tuning.search import describe
        from mlplatform.tuning.trials import finished

        done = finished(self.study)
        for trial in done:
            if trial.number not in self._told:
                self._told.add(trial.number)
                self._deaths = 0
                self.search.log.info(describe(self.search.config, trial, len(self._told)))

    def stop(self) -> None:
        """End all workers."""
        for process in self._workers.values():
            process.terminate()
        for process in self._workers.values():
            process.join(5)
            if process.exitcode is None:
                process.kill()
                process.join()
        self._workers.clear()


def work(task: Task) -> None:
    """Run trials in a worker process until a limit of the search is reached."""
    # An interrupt from the keyboard reaches the parent too, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from mlplatform.tuning.handover import take_over
    from mlplatform.tuning.search import Search, run_trials
    from mlplatform.tuning.study import KernelLock, load_study, part_of_search

    try:
        with part_of_search(task.journal):
            log = logging.getLogger(__name__)
            folds = take_over(task.handed)
            search = Search(task.config, folds, task.journal, task.deadline, log, task.checkpoints)
            claim = KernelLock(task.folder / "claim")
            run_trials(load_study(task.config, task.journal), search, workers=1, worker=task.name, claim=claim)
    except BaseException:
        (task.folder / ERROR_FILE).write_text(traceback.format_exc())
        raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    # In the middle of a trial: the next search repeats it.
    os._exit(1)
