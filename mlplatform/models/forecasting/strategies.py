"""How models of one number become a forecast of many steps: direct, with the step as a feature, or recursive.

The strategies are those of Ben Taieb et al., A review and comparison of strategies for multi-step ahead time series
forecasting (2012). All predict changes from the last observed value of their target, or from the forecast of a linear
model, in units of the window's scale where windows are scaled one by one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import Float32, Int64, ModelSpec, WindowSamples
from mlplatform.models.base import DirectFitModel, Model, as_float32
from mlplatform.models.explanation import Feature
from mlplatform.models.forecasting.feature_names import origin_feature_names, step_feature_names
from mlplatform.models.forecasting.lag_features import LagFeatureParams, last_observed, origin_features, step_features
from mlplatform.models.forecasting.on_linear import on_linear
from mlplatform.models.forecasting.with_smoothing import with_smoothing
from mlplatform.models.sample_cache import keep_latest
from mlplatform.models.window_scale import window_scales
from mlplatform.plugins import PluginUse

# Windows per block of a forecast: bounds the memory of what is made of every window.
BLOCK = 1024

Answer = Callable[[Float32], Float32]


class StrategyParams(LagFeatureParams):
    """The features and the strategy.

    `direct` fits one model per target and step. `horizon_feature` fits one per target, which reads the number of the
    step, and what is known about it, beside the window; it learns from at most `max_origins` evenly spaced windows,
    each repeated for every step. `recursive` fits one per target for the next step and applies it to its own output;
    columns that are neither targets nor known keep their last value. With `on_linear` the models learn what `ridge`
    leaves of the targets, so that a trend goes on; see `OnLinear`. With `with_smoothing` the forecast is the mean of
    theirs and of exponential smoothing's; see `WithSmoothing`.
    """

    later: ClassVar[frozenset[str]] = frozenset({"on_linear", "with_smoothing"})

    strategy: Literal["direct", "horizon_feature", "recursive"] = "direct"
    max_origins: int = Field(default=4000, ge=1)
    on_linear: bool = False
    with_smoothing: bool = False

    @property
    def learns_levels(self) -> bool:
        """Whether the models answer the targets themselves instead of changes from the last observed value."""
        return False


@dataclass(frozen=True)
class Table:
    """What the models of a strategy learn from.

    Attributes:
        features: of shape (rows, features), read by all models.
        labels: of shape (rows, models): scaled changes from the last observed value; one contiguous column per model.
    """

    features: Float32
    labels: Float32


class StrategyForecast(DirectFitModel[WindowSamples]):
    """A forecasting family made of models that answer one number per row of a table."""

    tasks = frozenset({"forecast"})
    covariates = frozenset({"known", "static", "calendar"})
    params: StrategyParams

    @classmethod
    @override
    def create(cls, params: Any, spec: ModelSpec) -> Model:
        """Return an unfitted model, on a linear one and averaged with smoothing where the parameters say so."""
        made = cls(params, spec)
        whole = on_linear(made) if params.on_linear else made
        return with_smoothing(whole) if params.with_smoothing else whole

    @classmethod
    def can_stand_on_linear(cls, params: StrategyParams) -> bool:
        """Return whether a model with these parameters could learn what a linear one leaves, and does not yet."""
        is_free = params.difference is None and not params.learns_levels
        return is_free and not params.on_linear and params.strategy != "recursive"

    @classmethod
    def on_linear_alternatives(
        cls, params: StrategyParams, config: ExperimentConfig, on_linear: dict[str, Any]
    ) -> tuple[dict[str, Any], ...]:
        """Return what a search tries beside the parameters: a model on a linear one, and with smoothing too.

        Series are short where the experiment has forecasts read a history behind the lookback.

        Parameters:
            on_linear: the parameters of the family on a linear model.
        """
        if not cls.can_stand_on_linear(params):
            return ()
        return (on_linear,) if config.history is None else (on_linear, {**on_linear, "with_smoothing": True})

    @classmethod
    @override
    def check(cls, use: PluginUse, params: Any, config: ExperimentConfig) -> Iterator[str]:
        """Yield also what cannot stand on a linear model."""
        yield from super().check(use, params, config)
        if params.with_smoothing and params.difference is not None:
            yield (
                f"{use.params_key}.with_smoothing is true, but difference is {params.difference!r}, of which smoothing "
                "knows no level; leave one of them out"
            )
        if not params.on_linear:
            return
        for is_other, what in (
            (params.strategy == "recursive", "strategy is 'recursive', which has one step of it only"),
            (params.learns_levels, "loss is one of counts, which learns no changes"),
            (params.difference is not None, f"difference is {params.difference!r}, which it takes the place of"),
        ):
            if is_other:
                yield f"{use.params_key}.on_linear is true, but {what}; leave one of them out"

    def __init__(self, params: StrategyParams, spec: ModelSpec) -> None:
        seasonal = params.for_season(spec.season, dense=bool(spec.scaling)) if spec.season else params
        super().__init__(seasonal, spec)
        if spec.quantiles and params.strategy == "recursive":
            raise ValueError(
                "strategy 'recursive' cannot be fitted to quantiles: those of the next step do not add up to those of "
                "later ones; use 'direct' or 'horizon_feature', or leave the quantiles out"
            )

    @property
    def models(self) -> int:
        """Number of models that the strategy needs."""
        return len(self.spec.targets) * (self.spec.horizon if self.params.strategy == "direct" else 1)

    def table(self, samples: WindowSamples) -> Table:
        """Return what the models learn from, cached beside the samples."""
        return learning_table(samples, self.spec, self.params)

    @abstractmethod
    def changes(self, features: Float32) -> Float32:
        """Return the answers of all models to the rows of a table.

        Returns:
            of shape (rows, models, levels); `levels` is 1 without quantiles.
        """

    def predict(self, samples: WindowSamples) -> Float32:
        """Return the forecast."""
        if self.spec.quantiles:
            return as_float32(self.predict_quantiles(samples)[..., self.spec.quantile_position(0.5)])
        return as_float32(forecast(samples, self.spec, self.params, self.changes)[..., 0])

    def predict_quantiles(self, samples: WindowSamples) -> Float32:
        """Return the sorted quantiles, of shape (samples, horizon, targets, quantiles)."""
        if not self.spec.quantiles:
            return super().predict_quantiles(samples)
        return np.sort(forecast(samples, self.spec, self.params, self.changes), axis=-1)


def learning_table(samples: WindowSamples, spec: ModelSpec, params: StrategyParams) -> Table:
    """Return the table of a strategy, cached beside the samples.

    Rows are samples; with the strategy `horizon_feature`, samples x steps. Models are target by target, step by step.
    """
    if params.strategy == "direct":
        features = origin_features(samples, spec, params, with_known=True)
        if samples.base is not None:
            return Table(features, _all_changes(samples, spec, params))
        setting = (spec.scaling, spec.season, params.learns_levels)
        return Table(
            features, keep_latest(samples.cache, "changes", setting, lambda: _all_changes(samples, spec, params))
        )
    features = origin_features(samples, spec, params, with_known=False)
    if samples.base is not None:
        return _step_table(samples, spec, params, features)
    # The features made of samples are cached by their settings, so their address stands for these.
    of_table = (params.strategy, params.max_origins, params.learns_levels, id(features))
    table, _ = keep_latest(
        samples.cache, "strategy_table", of_table, lambda: (_step_table(samples, spec, params, features), features)
    )
    return table


def forecast_start(samples: WindowSamples, params: StrategyParams) -> Float32:
    """Return what the models answer changes from, of shape (samples, horizon, targets); a horizon of 1 is all steps."""
    if samples.base is not None:
        return samples.base
    last = last_observed(samples)[:, None, :]
    return np.zeros_like(last) if params.learns_levels else last


def _all_changes(samples: WindowSamples, spec: ModelSpec, params: StrategyParams) -> Float32:
    change = samples.outputs() - forecast_start(samples, params)
    if spec.scaling:
        change /= window_scales(samples, spec, spec.targets)[:, None, :]
    return np.asfortranarray(change.transpose(0, 2, 1).reshape(len(samples), -1))


def _step_table(samples: WindowSamples, spec: ModelSpec, params: StrategyParams, features: Float32) -> Table:
    """Return the table of a strategy whose models read the step."""
    if params.strategy == "recursive":
        chosen, steps = np.arange(len(samples)), [1]
    else:
        count = min(len(samples), params.max_origins)
        chosen = np.linspace(0, len(samples) - 1, count).astype(np.int64)
        steps = list(range(1, spec.horizon + 1))
    parts = samples.select(chosen)
    rows = _rows_of_steps(parts, spec, params, features[chosen], steps)
    scales = window_scales(parts, spec, spec.targets)
    changes = parts.outputs() - forecast_start(parts, params)
    labels = np.empty((len(parts), len(steps), len(spec.targets)), dtype=np.float32)
    for position, step in enumerate(steps):
        labels[:, position] = changes[:, step - 1] / scales
    return Table(rows, np.asfortranarray(labels.reshape(-1, len(spec.targets))))


def _rows_of_steps(
    samples: WindowSamples, spec: ModelSpec, params: StrategyParams, features: Float32, steps: list[int]
) -> Float32:
    """Return the features of every sample and step, of shape (samples * steps, features), sample by sample."""
    first = step_features(samples, spec, params, steps[0])
    width = features.shape[1] + first.shape[1]
    rows = np.empty((len(samples), len(steps), width), dtype=np.float32)
    rows[:, :, : features.shape[1]] = features[:, None]
    for position, step in enumerate(steps):
        rows[:, position, features.shape[1] :] = step_features(samples, spec, params, step) if position else first
    return rows.reshape(-1, width)


def forecast(samples: WindowSamples, spec: ModelSpec, params: StrategyParams, answer: Answer) -> Float32:
    """Return the forecast of a strategy, of shape (samples, horizon, targets, levels).

    Parameters:
        answer: takes rows of the strategy's features, and returns changes of shape (rows, models, levels).
    """
    ways = {"direct": _direct, "horizon_feature": _by_step, "recursive": _recursive}
    if params.strategy == "direct" or len(samples) <= BLOCK:
        return ways[params.strategy](samples, spec, params, answer)
    starts = range(0, len(samples), BLOCK)
    blocks = [samples.select(np.arange(start, min(start + BLOCK, len(samples)))) for start in starts]
    return np.concatenate([ways[params.strategy](block, spec, params, answer) for block in blocks])


def strategy_rows(samples: WindowSamples, spec: ModelSpec, params: StrategyParams) -> Float32:
    """Return the rows that the models of a strategy read for its forecast: one per sample, or per sample and step.

    Those of `recursive` depend on its own forecasts; here are those of its first step.
    """
    if params.strategy == "direct":
        return origin_features(samples, spec, params, with_known=True)
    features = origin_features(samples, spec, params, with_known=False)
    steps = [1] if params.strategy == "recursive" else list(range(1, spec.horizon + 1))
    return _rows_of_steps(samples, spec, params, features, steps)


def strategy_features(spec: ModelSpec, params: StrategyParams) -> tuple[Feature, ...]:
    """Return what the columns of `strategy_rows` are."""
    if params.strategy == "direct":
        return origin_feature_names(spec, params, with_known=True)
    return (*origin_feature_names(spec, params, with_known=False), *step_feature_names(spec, params))


def _direct(samples: WindowSamples, spec: ModelSpec, params: StrategyParams, answer: Answer) -> Float32:
    changes = answer(origin_features(samples, spec, params, with_known=True))
    changes = changes.reshape(len(samples), len(spec.targets), spec.horizon, changes.shape[-1])
    return _from_start(changes.transpose(0, 2, 1, 3), samples, spec, params)


def _by_step(samples: WindowSamples, spec: ModelSpec, params: StrategyParams, answer: Answer) -> Float32:
    features = origin_features(samples, spec, params, with_known=False)
    steps = list(range(1, spec.horizon + 1))
    changes = answer(_rows_of_steps(samples, spec, params, features, steps))
    changes = changes.reshape(len(samples), spec.horizon, len(spec.targets), changes.shape[-1])
    return _from_start(changes, samples, spec, params)


def _from_start(changes: Float32, samples: WindowSamples, spec: ModelSpec, params: StrategyParams) -> Float32:
    """Return the values that changes of shape (samples, horizon, targets, levels) lead to."""
    scales = window_scales(samples, spec, spec.targets)
    forecast: Float32 = changes * scales[:, None, :, None] + forecast_start(samples, params)[..., None]
    return forecast


def _recursive(samples: WindowSamples, spec: ModelSpec, params: StrategyParams, answer: Answer) -> Float32:
    """Write every forecast behind its window and move the window one step, as often as the horizon is long."""
    past = spec.lookback + samples.period
    length = past + spec.horizon
    rows = samples.origins[:, None] + np.arange(1 - past, 1)
    unrolled = np.empty((len(samples), length, len(spec.channels)), dtype=np.float32)
    unrolled[:, :past] = samples.values[rows]
    unrolled[:, past:] = unrolled[:, past - 1 : past]
    levels = None
    if samples.levels is not None:
        levels = np.zeros((len(samples), length, len(spec.targets)), dtype=np.float32)
        levels[:, :past] = samples.levels[rows]
    if spec.known:
        for step in range(spec.horizon):
            ahead = samples.values[samples.origins + step + 1]
            unrolled[:, past + step, list(spec.known)] = ahead[:, list(spec.known)]
    times = samples.origin_times
    for step in range(spec.horizon):
        moved = _moved(unrolled, levels, samples.period, spec.calendar.ahead(times, step), step, spec)
        features = origin_features(moved, spec, params, with_known=False)
        changes = answer(_rows_of_steps(moved, spec, params, features, [1]))[..., 0]
        scales = window_scales(moved, spec, spec.targets)
        found = forecast_start(moved, params)[:, 0] + changes * scales
        unrolled[:, past + step, list(spec.targets)] = found
        if levels is not None:
            levels[:, past + step] = found + moved.anchors()[:, 0]
    if levels is not None:
        return (levels[:, past:] - samples.anchors())[..., None]
    return unrolled[:, past:, list(spec.targets), None]


def _moved(
    unrolled: Float32, levels: Float32 | None, period: int, times: np.ndarray, step: int, spec: ModelSpec
) -> WindowSamples:
    """Return the unrolled windows as samples whose origin is `step` steps behind the end of the window."""
    count, length, channels = unrolled.shape
    origins: Int64 = np.arange(count, dtype=np.int64) * length + (length - spec.horizon - 1 + step)
    timestamps = np.zeros(count * length, dtype="datetime64[ns]")
    timestamps[origins] = times
    return WindowSamples(
        values=unrolled.reshape(-1, channels),
        timestamps=timestamps,
        origins=origins,
        channels=spec.channels,
        targets=spec.targets,
        lookback=spec.lookback,
        horizon=1,
        known=spec.known,
        static=spec.static,
        step_seconds=spec.step_seconds,
        calendar_text=spec.calendar_text,
        period=period,
        levels=None if levels is None else levels.reshape(-1, len(spec.targets)),
    )
