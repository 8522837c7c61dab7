"""Metrics: one decorated function each, found by name through `plugins.METRICS`.

Every metric takes the truth and the prediction in the same units and shape and averages over all values. Some read
more: the bounds of prediction intervals, or the scale that errors are divided by. Metrics are reported in original
units; a metric computed in preprocessed space is named with the suffix `_scaled`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.config import ExperimentConfig, bound_levels, percent
from mlplatform.models import Bounds
from mlplatform.plugins import METRICS, PluginUse
from mlplatform.training.per_series import Entities, Scale, series_mean, series_weights

Values = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
CONTINUOUS = frozenset({"forecast", "regression"})
# What measures errors by how much a series changes: rows of a table have no such measure.
SERIES = frozenset({"forecast"})
CLASSES = frozenset({"classification"})


@dataclass(frozen=True)
class Truth:
    """What a metric is going to score predictions against, as it is known before anything is fitted.

    Attributes:
        values: in original units, of shape (samples, horizon, targets) or (samples,); classification: class indices.
        targets: names of the target columns.
        classes: of a classification, by index.
        changes: whether a target changes over a season in the training rows of any series that is scored, of shape
            (targets,). None unless a metric of the experiment reads the scale of its series.
    """

    values: Values
    targets: tuple[str, ...]
    classes: tuple[str, ...] = ()
    changes: npt.NDArray[np.bool_] | None = None


Demands = Callable[[Truth], Iterator[str]]


@dataclass(frozen=True)
class Metric:
    """A score and which way is better.

    Attributes:
        score: maps (truth, prediction) to a number. Classification: truth of shape (n,) holds class indices and the
            prediction of shape (n, classes) holds probabilities. What it `reads` comes as keyword arguments.
        tasks: what it can be used for.
        greater_is_better: direction.
        reads: what else it needs: `bounds` (a `Bounds`) or `scale` (a `Scale`, in original units).
        decides: whether it can be the metric of an experiment; the others describe.
        always: the tasks whose experiments report it also where they do not name it.
        is_relative: whether it divides by the size of the values, so that it means nothing in preprocessed space, where
            values are relative already and may be negative.
        demands: yields what keeps it from scoring a truth: a sentence without its subject, the metric, that names the
            column, what was found and what to do. Asked for every fold and part before anything is fitted.
        mean_of: of a score that is the mean over the samples of something, what that is: maps the arguments of `score`
            to values of shape (samples,). The promotion gate resamples these; of other metrics the whole score.
        by_series: whether every series counts alike, however many samples it has. It needs `mean_of`, where NaN leaves
            a sample out.
    """

    score: Callable[..., float]
    tasks: frozenset[str]
    greater_is_better: bool = False
    reads: str | None = None
    decides: bool = True
    always: frozenset[str] = frozenset()
    is_relative: bool = False
    demands: Demands | None = None
    mean_of: Callable[..., Float64] | None = None
    by_series: bool = False

    def __post_init__(self) -> None:
        # A registry tells by these which module a plug-in comes from.
        for name in ("__module__", "__qualname__", "__doc__"):
            object.__setattr__(self, name, getattr(self.score, name, getattr(type(self), name)))

    def check(self, use: PluginUse, params: None, config: ExperimentConfig) -> Iterator[str]:  # noqa: ARG002 (as all)
        """Yield what keeps the metric from being reported, or from deciding, in an experiment."""
        if use.section == "metric" and not self.decides:
            yield f"metric {use.name!r} describes a model, but cannot decide; name it in extra_metrics"
        if self.reads == "bounds" and config.uncertainty.coverage is None:
            yield f"{use.key} {use.name!r} reads prediction intervals, but uncertainty.coverage is null"

    def loss(self, value: float) -> float:
        """Return the value with its sign turned so that smaller is better."""
        return -value if self.greater_is_better else value

    def value(self, truth: Values, prediction: Values, entities: Entities | None, **read: Any) -> float:
        """Return the score; that of a metric by series is the mean over the series where they are told."""
        if not self.by_series or entities is None or self.mean_of is None:
            return self.score(truth, prediction, **read)
        return series_mean(self.mean_of(truth, prediction, **read), entities)

    def losses(self, truth: Values, prediction: Values, entities: Entities | None, **read: Any) -> Float64 | None:
        """Return what the loss is the mean of, of shape (samples,); None if it is no mean."""
        if self.mean_of is None:
            return None
        values = np.asarray(self.mean_of(truth, prediction, **read), dtype=np.float64)
        if self.by_series and entities is not None:
            values = np.where(np.isfinite(values), values, 0) * series_weights(values, entities)
        return -values if self.greater_is_better else values


def metric(
    name: str,
    tasks: frozenset[str],
    *,
    greater_is_better: bool = False,
    reads: str | None = None,
    decides: bool = True,
    always: frozenset[str] = frozenset(),
    is_relative: bool = False,
    demands: Demands | None = None,
    mean_of: Callable[..., Float64] | None = None,
    by_series: bool = False,
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Return a decorator that makes a function the metric called `name`; parameters as the attributes of `Metric`."""

    def add(score: Callable[..., float]) -> Callable[..., float]:
        METRICS.register(name)(
            Metric(score, tasks, greater_is_better, reads, decides, always, is_relative, demands, mean_of, by_series)
        )
        return score

    return add


def _no_negative(truth: Truth) -> Iterator[str]:
    per_target = truth.values.reshape(-1, len(truth.targets))
    for target, least in zip(truth.targets, per_target.min(axis=0), strict=True):
        if least < 0:
            yield (
                f"needs true values of at least 0, but column {target!r} goes down to {least:.6g}; use rmse, or send "
                f"such rows to quarantine with min: 0 in dataset.columns"
            )


def _some_change(truth: Truth) -> Iterator[str]:
    assert truth.changes is not None
    for target, changes in zip(truth.targets, truth.changes, strict=True):
        if not changes:
            yield (
                f"divides by how much a target changes over a season, but column {target!r} never changes in the "
                "training rows of the series that are scored; use mae"
            )


def _every_class(truth: Truth) -> Iterator[str]:
    missing = sorted(set(range(len(truth.classes))) - set(truth.values.astype(int).tolist()))
    if missing:
        names = ", ".join(repr(truth.classes[code]) for code in missing)
        yield (
            f"needs samples of every class, but column {truth.targets[0]!r} has none of {names} among "
            f"{len(truth.values)}; use log_loss, a stratified scheme in split.cv, fewer folds or a larger part"
        )


def _per_sample(values: npt.NDArray[Any]) -> Float64:
    """Return the mean of every sample, of shape (samples,)."""
    return np.asarray(values.reshape(len(values), -1).mean(axis=1, dtype=np.float64))


def _percentage_errors(truth: Values, prediction: Values) -> Float64:
    size = np.abs(truth, dtype=np.float64) + np.abs(prediction, dtype=np.float64)
    error = np.abs(truth.astype(np.float64) - prediction)
    return np.asarray(200 * np.divide(error, size, out=np.zeros_like(size), where=size > 0))


def _scaled_errors(truth: Values, prediction: Values, scale: Scale) -> Float64:
    return _mean_in_units(np.abs(truth.astype(np.float64) - prediction), scale.absolute)


def _root_scaled_errors(truth: Values, prediction: Values, scale: Scale) -> Float64:
    squares = np.square(truth.astype(np.float64) - prediction)
    steps = squares.mean(axis=1) if squares.ndim == 3 else squares
    return _mean_in_units(np.sqrt(steps), scale.root)


def _mean_in_units(errors: Float64, scale: Float64) -> Float64:
    """Return the mean of every sample's errors over its scale, of shape (samples,); NaN where it has none."""
    # A scale per sample and target stands beside errors with a step between the two.
    units = scale[:, None, :] if errors.ndim == 3 and scale.ndim == 2 else scale
    shares = np.divide(errors, units, out=np.full(errors.shape, np.nan), where=np.broadcast_to(units > 0, errors.shape))
    shares = shares.reshape(len(errors), -1)
    counts = np.isfinite(shares).sum(axis=1)
    sums = np.where(np.isfinite(shares), shares, 0).sum(axis=1)
    return np.asarray(np.divide(sums, counts, out=np.full(len(errors), np.nan), where=counts > 0))


def _quantile_losses(truth: Values, prediction: Values, bounds: Bounds) -> list[Float64]:
    low, high = bound_levels(bounds.coverage)
    losses = []
    for level, quantile in ((low, bounds.lower), (0.5, prediction), (high, bounds.upper)):
        missed = truth.astype(np.float64) - quantile
        losses.append(np.maximum(level * missed, (level - 1) * missed))
    return losses


def _interval_scores(truth: Values, bounds: Bounds) -> Float64:
    lower, upper = bounds.lower.astype(np.float64), bounds.upper.astype(np.float64)
    missed = np.maximum(lower - truth, 0) + np.maximum(truth - upper, 0)
    return np.asarray(upper - lower + 2 / (1 - bounds.coverage) * missed)


def _covered(truth: Values, bounds: Bounds) -> npt.NDArray[np.bool_]:
    return np.asarray((bounds.lower <= truth) & (truth <= bounds.upper))


def _right(truth: Values, prediction: Values) -> npt.NDArray[np.bool_]:
    return np.asarray(np.argmax(prediction, axis=1) == truth)


def _log_likelihoods(truth: Values, prediction: Values) -> Values:
    chosen = prediction[np.arange(len(truth)), truth.astype(np.int64)]
    return np.asarray(np.log(np.clip(chosen, 1e-7, 1.0)))


# Drift is judged by the errors that this one reports.
@metric(
    "mae",
    CONTINUOUS,
    always=frozenset({"forecast"}),
    mean_of=lambda truth, prediction: _per_sample(np.abs(truth - prediction)),
)
def mean_absolute_error(truth: Values, prediction: Values) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(truth - prediction), dtype=np.float64))


@metric("mse", CONTINUOUS, mean_of=lambda truth, prediction: _per_sample(np.square(truth - prediction)))
def mean_squared_error(truth: Values, prediction: Values) -> float:
    """Mean squared error."""
    return float(np.mean(np.square(truth - prediction), dtype=np.float64))


@metric("rmse", CONTINUOUS)
def root_mean_squared_error(truth: Values, prediction: Values) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(mean_squared_error(truth, prediction)))


@metric("r2", CONTINUOUS, greater_is_better=True)
def coefficient_of_determination(truth: Values, prediction: Values) -> float:
    """Share of the variance explained; 0 where the truth is constant."""
    variance = float(np.var(truth, dtype=np.float64))
    return 1.0 - mean_squared_error(truth, prediction) / variance if variance > 0 else 0.0


@metric("rmsle", CONTINUOUS, is_relative=True, demands=_no_negative)
def root_mean_squared_logarithmic_error(truth: Values, prediction: Values) -> float:
    """Root of the mean squared difference of log(1 + value); predictions below 0 count as 0.

    Raises:
        ValueError: if a true value is negative, for which relative errors mean nothing.
    """
    if truth.min() < 0:
        raise ValueError(f"rmsle needs true values of at least 0, but the least is {truth.min():.6g}; use rmse")
    logs = np.log1p(truth, dtype=np.float64) - np.log1p(np.maximum(prediction, 0), dtype=np.float64)
    return float(np.sqrt(np.mean(np.square(logs))))


@metric(
    "smape",
    CONTINUOUS,
    is_relative=True,
    mean_of=lambda truth, prediction: _per_sample(_percentage_errors(truth, prediction)),
    by_series=True,
)
def symmetric_mean_absolute_percentage_error(truth: Values, prediction: Values) -> float:
    """Mean of 200 |truth - prediction| / (|truth| + |prediction|), percent, per series; 0 where both are 0.

    As the M4 competition has it: Makridakis, Spiliotis and Assimakopoulos, International Journal of Forecasting, 2020.
    """
    return float(np.mean(_percentage_errors(truth, prediction)))


@metric(
    "mase",
    SERIES,
    reads="scale",
    is_relative=True,
    demands=_some_change,
    mean_of=lambda truth, prediction, scale: _scaled_errors(truth, prediction, scale),
    by_series=True,
)
def mean_absolute_scaled_error(truth: Values, prediction: Values, scale: Scale) -> float:
    """Mean absolute error in units of the seasonal naive forecast's error on the training rows, per series.

    A series that never changes over a season in its training rows is left out. Hyndman and Koehler, Another look at
    measures of forecast accuracy, International Journal of Forecasting, 2006.
    """
    return float(np.nanmean(_scaled_errors(truth, prediction, scale)))


@metric(
    "rmsse",
    SERIES,
    reads="scale",
    is_relative=True,
    demands=_some_change,
    mean_of=lambda truth, prediction, scale: _root_scaled_errors(truth, prediction, scale),
    by_series=True,
)
def root_mean_squared_scaled_error(truth: Values, prediction: Values, scale: Scale) -> float:
    """Root of a forecast's mean squared error in units of the seasonal naive forecast's in training, per series.

    The root is taken of every forecast and target; a series is left out as for MASE. Makridakis, Spiliotis and
    Assimakopoulos, M5 accuracy competition, International Journal of Forecasting, 2022, with the season for its lag.
    """
    return float(np.nanmean(_root_scaled_errors(truth, prediction, scale)))


@metric(
    "pinball",
    CONTINUOUS,
    reads="bounds",
    mean_of=lambda truth, prediction, bounds: _per_sample(np.mean(_quantile_losses(truth, prediction, bounds), axis=0)),
)
def pinball_loss(truth: Values, prediction: Values, bounds: Bounds) -> float:
    """Mean quantile loss of the lower bound, the point prediction as median, and the upper bound.

    Koenker and Bassett, Regression Quantiles, Econometrica, 1978.
    """
    return float(np.mean([np.mean(losses) for losses in _quantile_losses(truth, prediction, bounds)]))


@metric(
    "coverage",
    CONTINUOUS,
    reads="bounds",
    greater_is_better=True,
    decides=False,
    mean_of=lambda truth, _prediction, bounds: _per_sample(_covered(truth, bounds)),
)
def interval_coverage(truth: Values, _prediction: Values, bounds: Bounds) -> float:
    """Share of the true values that lie inside their prediction interval."""
    return float(np.mean(_covered(truth, bounds)))


@metric(
    "interval_width",
    CONTINUOUS,
    reads="bounds",
    decides=False,
    mean_of=lambda _truth, _prediction, bounds: _per_sample(bounds.upper - bounds.lower),
)
def interval_width(_truth: Values, _prediction: Values, bounds: Bounds) -> float:
    """Mean width of the prediction intervals."""
    return float(np.mean(bounds.upper - bounds.lower, dtype=np.float64))


@metric(
    "interval_score",
    CONTINUOUS,
    reads="bounds",
    mean_of=lambda truth, _prediction, bounds: _per_sample(_interval_scores(truth, bounds)),
)
def interval_score(truth: Values, _prediction: Values, bounds: Bounds) -> float:
    """Mean width of the prediction intervals, and for every miss its distance times 2 by the share of misses allowed.

    Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, JASA, 2007.
    """
    return float(np.mean(_interval_scores(truth, bounds)))


@metric("f1", CLASSES, greater_is_better=True)
def f1_score(truth: Values, prediction: Values) -> float:
    """Mean over the classes of the harmonic mean of precision and recall; 0 for a class that is never right."""
    chosen = np.argmax(prediction, axis=1)
    scores = []
    for label in range(prediction.shape[1]):
        hits = np.sum((chosen == label) & (truth == label))
        named = np.sum(chosen == label) + np.sum(truth == label)
        if named:
            scores.append(2 * hits / named)
    return float(np.mean(scores))


@metric(
    "accuracy",
    CLASSES,
    greater_is_better=True,
    mean_of=lambda truth, prediction: _per_sample(_right(truth, prediction)),
)
def accuracy(truth: Values, prediction: Values) -> float:
    """Share of samples whose most probable class is the true one."""
    return float(np.mean(_right(truth, prediction)))


@metric("log_loss", CLASSES, mean_of=lambda truth, prediction: _per_sample(-_log_likelihoods(truth, prediction)))
def log_loss(truth: Values, prediction: Values) -> float:
    """Mean negative log-probability of the true class, clipped at 1e-7."""
    return float(-np.mean(_log_likelihoods(truth, prediction), dtype=np.float64))


@metric("roc_auc", CLASSES, greater_is_better=True, demands=_every_class)
def roc_auc(truth: Values, prediction: Values) -> float:
    """Area under the ROC curve; one-versus-rest average for more than two classes."""
    from sklearn.metrics import roc_auc_score

    if prediction.shape[1] == 2:
        return float(roc_auc_score(truth, prediction[:, 1]))
    return float(roc_auc_score(truth, prediction, multi_class="ovr"))


def reading(names: Collection[str], extra: str) -> tuple[str, ...]:
    """Return those of the named metrics that read `extra`."""
    return tuple(name for name in names if METRICS.get(name).reads == extra)


def evaluate(
    names: Collection[str],
    truth: Values,
    prediction: Values,
    bounds: Bounds | None = None,
    scale: Scale | None = None,
    entities: Entities | None = None,
    others: Collection[Bounds] = (),
) -> dict[str, float]:
    """Return the named metrics.

    Parameters:
        bounds: of the prediction intervals; without them metrics that read bounds are left out.
        scale: what scaled errors are divided by; without it they are left out.
        entities: of every sample, of shape (samples,), for metrics by series; without them every sample counts alike.
        others: bounds of further coverages; their metrics have the coverage in their names, as in `pinball_95`.

    Raises:
        ValueError: if shapes differ where they must agree, or there is nothing to score.
    """
    if not len(truth):
        raise ValueError("there are no samples to score")
    if len(truth) != len(prediction):
        raise ValueError(f"{len(truth)} true values cannot be compared with {len(prediction)} predictions")
    metrics = {name: METRICS.get(name) for name in names}
    if truth.shape != prediction.shape and any(metric.tasks & CONTINUOUS for metric in metrics.values()):
        # Broadcasting would compare every value with every other.
        raise ValueError(f"true values of shape {truth.shape} cannot be compared with shape {prediction.shape}")
    extras: dict[str | None, Any] = {"bounds": bounds, "scale": scale}
    scores = {}
    for name, metric in metrics.items():
        if metric.reads is None:
            scores[name] = metric.value(truth, prediction, entities)
        elif extras[metric.reads] is not None:
            scores[name] = metric.value(truth, prediction, entities, **{metric.reads: extras[metric.reads]})
    return scores | {
        f"{name}_{percent(each.coverage)}": metrics[name].value(truth, prediction, entities, bounds=each)
        for each in others
        for name in reading(names, "bounds")
    }
