"""What the boosted forecasting families share: one-threaded models, fitted side by side."""

from __future__ import annotations

import queue
from abc import abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.base import FitOptions, FitResult, ProgressCallback
from mlplatform.models.forecasting import StrategyForecast, Table
from mlplatform.models.trees.fitted import Boosted


@dataclass(frozen=True)
class Task:
    """One model to fit.

    Attributes:
        labels: of shape (rows,).
        held_out_labels: of shape (rows,); `None` without validation data.
        iterations: the fixed number of iterations, or `None` to stop early within the family's budget.
        report: called after every iteration, with the best loss so far.
    """

    labels: Float32
    held_out_labels: Float32 | None
    iterations: int | None
    seed: int
    report: ProgressCallback | None


class BoostedForecast(StrategyForecast):
    """A family with one booster per model of its strategy; missing values are read as they are."""

    has_quantiles = True
    reads_missing = True

    @abstractmethod
    def workspaces(self, table: Table, held_out: Table | None, samples: list[WindowSamples], count: int) -> list[Any]:
        """Return what `count` models, fitted at the same time, work on.

        Parameters:
            samples: those of `table` and, with validation data, of `held_out`.
        """

    @abstractmethod
    def fit_one(self, workspace: Any, task: Task) -> Boosted:
        """Fit one model on one thread."""

    def _fit(self, train: WindowSamples, validation: WindowSamples | None, options: FitOptions) -> FitResult:
        """Fit the models target by target, step by step, at most `options.workers` of them at a time.

        The result does not depend on how many run at a time. Progress is told after every iteration of a single model,
        otherwise after every model, with the mean of the losses so far.
        """
        table = self.table(train)
        held_out = None if validation is None else self.table(validation)
        samples = [train] if validation is None else [train, validation]
        count = max(1, min(options.workers, self.models))
        free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for workspace in self.workspaces(table, held_out, samples, count):
            free.put(workspace)

        def work(position: int) -> Boosted:
            workspace = free.get()
            try:
                return self.fit_one(workspace, self._task(position, table, held_out, options))
            finally:
                free.put(workspace)

        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(work, position) for position in range(self.models)]
            try:
                fitted = self._collect(futures, options.on_progress)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self.parts_: list[Any] = [one.model for one in fitted]
        losses = [one.history[one.iterations - 1] for one in fitted if one.history]
        history = fitted[0].history if self.models == 1 else tuple(losses)
        return FitResult(tuple(one.iterations for one in fitted), history)

    def _task(self, position: int, table: Table, held_out: Table | None, options: FitOptions) -> Task:
        return Task(
            labels=table.labels[:, position],
            held_out_labels=None if held_out is None else held_out.labels[:, position],
            iterations=options.iterations[position] if options.iterations else None,
            seed=options.seed,
            report=options.on_progress if self.models == 1 and held_out is not None else None,
        )

    def _collect(self, futures: list[Future[Boosted]], report: ProgressCallback | None) -> list[Boosted]:
        """Return the fitted models in order."""
        fitted: list[Boosted] = []
        losses: list[float] = []
        for position, future in enumerate(futures):
            fitted.append(one := future.result())
            if one.history:
                losses.append(one.history[one.iterations - 1])
                if report is not None and self.models > 1:
                    report(position, float(np.mean(losses)))
        return fitted
