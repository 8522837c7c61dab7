"""What the boosted forecasting families share: one-threaded models, fitted side by side."""

from __future__ import annotations

import logging
import queue
import threading
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.base import FitOptions, FitResult, ProgressCallback
from mlplatform.models.explanation import Contributions, Float64
from mlplatform.models.forecasting import StrategyForecast, Table, forecast
from mlplatform.models.trees.contributions import forecast_contributions
from mlplatform.models.trees.counts import LearnsCounts, refuse_explanation
from mlplatform.models.trees.fitted import Boosted, CannotMergeError
from mlplatform.models.trees.merged import differing_values

logger = logging.getLogger(__name__)

Answer = Callable[[Float32], Float32]

# Two requests may be the first to ask a model.
_MERGING = threading.Lock()


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


class BoostedForecast(LearnsCounts[WindowSamples], StrategyForecast):
    """A family with one booster per model of its strategy; missing values are read as they are.

    A model that was loaded answers from all boosters merged into one form, where that has the same bits. They are
    merged when the first answer is asked for: many who load a model read what it was made of and ask nothing.

    Class attributes:
        most_merged_rows: rows from which on the boosters are faster one by one; `None` if they never are.
    """

    has_quantiles = True
    reads_missing = True
    explains = "contributions"
    most_merged_rows: ClassVar[int | None] = None
    _merged: Answer | None = None
    _is_to_be_merged = False
    _apart_because = "boosters are merged when they are loaded"

    @abstractmethod
    def separate_changes(self, features: Float32) -> Float32:
        """Return the answers of the boosters, asked one by one; see `changes`."""

    @abstractmethod
    def shares(self, features: Float32) -> Float64:
        """Return the shares of the features, and the base behind them, in the answers of the boosters.

        Returns:
            of shape (rows, models * levels, features + 1).
        """

    @override
    def explain(self, samples: WindowSamples) -> Contributions:
        """Return the shares of the features in the forecast; merged or apart, the trees are the same."""
        refuse_explanation(self.params)
        return forecast_contributions(samples, self.spec, self.params, self.changes, self.shares)

    @abstractmethod
    def merge(self) -> Answer:
        """Return a way to have the answers of all boosters at once, tried on rows beside the splits.

        Raises:
            CannotMergeError: if there is none with the same bits.
        """

    def changes(self, features: Float32) -> Float32:
        """Return the answers of all boosters."""
        rows = len(features)
        if not rows or (self.most_merged_rows is not None and rows > self.most_merged_rows):
            return self.separate_changes(features)
        return (self.merged_ or self.separate_changes)(features)

    @property
    def merged_(self) -> Answer | None:
        """What answers as `separate_changes` does, faster; `None` after a fit, and where the boosters stay apart."""
        if self._is_to_be_merged:
            with _MERGING:
                if self._is_to_be_merged:
                    self._merge_parts()
                    self._is_to_be_merged = False
        return self._merged

    def merge_when_asked(self) -> None:
        """Have the boosters, which were just read, merged before the first answer, if that changes no bit."""
        self._is_to_be_merged = True

    def _merge_parts(self) -> None:
        if len(self.parts_) < 2:
            self._apart_because = "there is one booster"
            return
        try:
            self._merged = self.merge()
        except CannotMergeError as error:
            self._keep_apart(str(error))

    @property
    @override
    def inference(self) -> str:
        """Say whether the boosters answer merged or one by one, and why."""
        if self.merged_ is not None:
            return f"merged: one answer of {len(self.parts_)} boosters"
        return f"separate: {self._apart_because}"

    @override
    def confirm_inference(self, samples: WindowSamples) -> None:
        """Answer the samples merged and one by one; where a bit differs the boosters stay apart from now on."""
        if self.merged_ is None:
            return
        # One sample may go another way than several.
        for some in (samples, samples.select(np.arange(min(1, len(samples))))):
            ways = (self.changes, self.separate_changes)
            merged, separate = (forecast(some, self.spec, self.params, way) for way in ways)
            if differing := differing_values(merged, separate):
                self._keep_apart(f"merged they answer {differing} of {separate.size} values of samples with other bits")
                return

    def _keep_apart(self, reason: str) -> None:
        self._merged, self._apart_because = None, reason
        logger.warning("%d boosters are not merged and answer more slowly: %s", len(self.parts_), reason)

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
