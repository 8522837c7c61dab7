"""Direct multi-horizon forecasting with XGBoost: one booster per horizon step and target, one shared matrix."""

from __future__ import annotations

import os
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples, WindowSamples
from mlplatform.models.base import DirectFitModel, FitResult, Iterations, ProgressCallback, as_float32
from mlplatform.models.boosting import SEARCH_SPACE, BoostingParams, load_boosters, quantile_matrix, save_boosters
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import xgboost

    Slot = tuple[xgboost.QuantileDMatrix, xgboost.QuantileDMatrix | None]

DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
# Windows per block of the trailing averages: bounds memory, whatever the number of samples.
BLOCK = 8192

# Steps into the past. A negative lag would read the future.
Steps = Annotated[int, Field(ge=1)]


class XGBoostForecastParams(BoostingParams):
    """Boosting parameters and the features cut from a window.

    Lags count steps before the origin; those behind the lookback are left out. Means are lengths, in steps, of trailing
    averages.
    """

    target_lags: tuple[Steps, ...] = (1, 2, 3, 4, 6, 9, 12, 18, 23, 24, 47, 48, 72, 96, 144, 167, 168)
    target_means: tuple[Steps, ...] = (6, 24, 168)
    covariate_lags: tuple[Steps, ...] = (1, 24)
    covariate_means: tuple[Steps, ...] = (24,)
    calendar: bool = True
    num_boost_round: int = Field(default=80, ge=1)
    max_bin: int = Field(default=64, ge=2)


@MODELS.register("xgboost")
class XGBoostForecast(DirectFitModel):
    """Direct multi-horizon gradient boosting (Chen and Guestrin, XGBoost, KDD 2016).

    Features are differences to the last value, which makes trees independent of the level; labels are differences to
    the last value of their target. All boosters read the same quantised matrix.
    """

    tasks = frozenset({"forecast"})
    Params = XGBoostForecastParams
    params: XGBoostForecastParams

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the boosting parameters."""
        del task
        return dict(SEARCH_SPACE)

    def features(self, samples: WindowSamples) -> Float32:
        """Return the feature matrix, of shape (samples, features)."""
        params = self.params
        key = ("features", params.target_lags, params.target_means, params.covariate_lags, params.covariate_means)
        if (*key, params.calendar) not in samples.cache:
            samples.cache[(*key, params.calendar)] = self._features(samples)
        matrix: Float32 = samples.cache[(*key, params.calendar)]
        return matrix

    def _features(self, samples: WindowSamples) -> Float32:
        params = self.params
        blocks = []
        for channel in range(len(self.spec.channels)):
            is_target = channel in self.spec.targets
            lags = params.target_lags if is_target else params.covariate_lags
            means = params.target_means if is_target else params.covariate_means
            history = samples.lags(channel, [0, *(lag for lag in lags if lag < self.spec.lookback)])
            last = history[:, :1]
            blocks += [last, history[:, 1:] - last]
            blocks += [
                _trailing_mean(samples, channel, length)[:, None] - last
                for length in means
                if length <= self.spec.lookback
            ]
        if self.params.calendar:
            blocks.append(_calendar(samples.origin_times))
        return as_float32(np.hstack(blocks))

    def fit(
        self,
        train: Samples,
        validation: Samples | None,
        *,
        iterations: Iterations | None = None,
        seed: int = 0,
        on_progress: ProgressCallback | None = None,
    ) -> FitResult:
        """Fit one booster per (target, horizon step), in this order, several of them side by side.

        The result does not depend on how many run at a time.
        """
        assert isinstance(train, WindowSamples)
        assert validation is None or isinstance(validation, WindowSamples)
        workers = len(os.sched_getaffinity(0))
        labels = _labels(train)
        held_out_labels = None if validation is None else _labels(validation)
        slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in range(workers):
            slots.put(self._slot(train, validation, slot))

        def boost(position: int) -> tuple[xgboost.Booster, int, float | None]:
            matrix, held_out = slot = slots.get()
            try:
                matrix.set_label(labels[:, position])
                if held_out is not None and held_out_labels is not None:
                    held_out.set_label(held_out_labels[:, position])
                budget = iterations[position] if iterations else self.params.num_boost_round
                return self._boost(matrix, held_out, budget, iterations is None, seed)
            finally:
                slots.put(slot)

        self.boosters_: list[xgboost.Booster] = []
        rounds: list[int] = []
        losses: list[float] = []
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(boost, position) for position in range(labels.shape[1])]
            try:
                for position, future in enumerate(futures):
                    booster, best, loss = future.result()
                    self.boosters_.append(booster)
                    rounds.append(best)
                    if loss is not None:
                        losses.append(loss)
                        if on_progress is not None:
                            on_progress(position, float(np.mean(losses)))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return FitResult(tuple(rounds), tuple(losses))

    def _slot(self, train: WindowSamples, validation: WindowSamples | None, slot: int) -> Slot:
        """Return the matrices that one booster at a time works on."""
        matrix = quantile_matrix(train.cache, self.features(train), self.params.max_bin, slot=slot)
        if validation is None:
            return matrix, None
        features = self.features(validation)
        return matrix, quantile_matrix(validation.cache, features, self.params.max_bin, matrix, slot)

    def _boost(
        self,
        matrix: xgboost.QuantileDMatrix,
        held_out: xgboost.QuantileDMatrix | None,
        budget: int,
        stop_early: bool,
        seed: int,
    ) -> tuple[xgboost.Booster, int, float | None]:
        """Return a booster cut to its best round, that round's number counted from 1, and its validation loss."""
        import xgboost

        params = {**self.params.booster_params(seed), "objective": "reg:squarederror", "base_score": 0.0}
        if held_out is None:
            return xgboost.train(params, matrix, budget), budget, None
        scores: dict[str, dict[str, list[float]]] = {}
        booster = xgboost.train(
            params,
            matrix,
            budget,
            evals=[(held_out, "validation")],
            evals_result=scores,
            early_stopping_rounds=self.params.patience if stop_early else None,
            verbose_eval=False,
        )
        history = scores["validation"]["rmse"]
        best = int(np.argmin(history)) + 1 if stop_early else budget
        return booster[:best], best, history[best - 1]

    def predict(self, samples: Samples) -> Float32:
        """Return the forecast."""
        assert isinstance(samples, WindowSamples)
        features = self.features(samples)
        targets = list(self.spec.targets)
        last = samples.values[samples.origins][:, targets]
        changes = np.column_stack([booster.inplace_predict(features) for booster in self.boosters_])
        changes = changes.reshape(len(samples), len(targets), self.spec.horizon).transpose(0, 2, 1)
        return as_float32(changes + last[:, None, :])

    def save(self, folder: Path) -> None:
        """Write the boosters."""
        save_boosters(self.boosters_, folder)

    def restore(self, folder: Path) -> None:
        """Read the boosters."""
        self.boosters_ = load_boosters(folder)


def _labels(samples: WindowSamples) -> Float32:
    """Return the change from the last value, of shape (samples, targets * horizon), target by target."""
    if "labels" not in samples.cache:
        last = samples.values[samples.origins][:, list(samples.targets)]
        change = samples.outputs() - last[:, None, :]
        samples.cache["labels"] = np.asfortranarray(change.transpose(0, 2, 1).reshape(len(samples), -1))
    labels: Float32 = samples.cache["labels"]
    return labels


def _trailing_mean(samples: WindowSamples, channel: int, length: int) -> Float32:
    """Return the mean of the last `length` values, origin included, of shape (samples,).

    Each window is summed on its own instead of from a running total: a running total carries rounding from rows before
    the window, and the same window would give other bits online.
    """
    column = np.ascontiguousarray(samples.values[:, channel])
    windows = np.lib.stride_tricks.sliding_window_view(column, length)
    means = np.empty(len(samples), dtype=np.float32)
    for start in range(0, len(samples), BLOCK):
        first = samples.origins[start : start + BLOCK] - (length - 1)
        means[start : start + BLOCK] = windows[first].mean(axis=1)
    return means


def _calendar(times: np.ndarray) -> Float32:
    """Return sine and cosine of the time of day and of the week, of shape (samples, 4)."""
    seconds = times.astype("datetime64[s]").astype(np.int64)
    angles = np.column_stack([(seconds % period) / period for period in (DAY_SECONDS, WEEK_SECONDS)]) * (2 * np.pi)
    return as_float32(np.hstack([np.sin(angles), np.cos(angles)]))
