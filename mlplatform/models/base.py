"""The contract every model family keeps.

A model sees preprocessed samples only and answers in preprocessed space; units are the preprocessor's business. It
stores itself without pickle. Fitting belongs to training, but the arithmetic of a family's fit lives with the family
(`_fit`), except for neural networks, whose loop is shared by the deep-learning trainer.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVar

from mlplatform.config import ExperimentConfig, SearchDimension, bound_levels
from mlplatform.cores import usable_cores
from mlplatform.datamodule import Float32, ModelSpec, Samples, TabularSamples, WindowSamples
from mlplatform.models.calibration import Bounds, Calibration, Intervals
from mlplatform.models.explanation import CannotExplainError, Explanation
from mlplatform.models.window_scale import scaled_channels
from mlplatform.plugins import MODELS, PluginUse

CALIBRATION_FILE = "calibration.json"
MISSING = "missing values"

Iterations = tuple[int, ...]
ProgressCallback = Callable[[int, float], None]
S = TypeVar("S", bound=Samples, default=Any)


class ModelParams(BaseModel):
    """Base of a family's hyperparameters: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class FitOptions:
    """How a fit is run; nothing in here belongs to the model itself.

    Attributes:
        iterations: fixed numbers of iterations, as an earlier `FitResult` reported; turns early stopping off.
        seed: of everything random in the fit.
        on_progress: called with (step, validation loss so far); may raise to abandon the fit.
        workers: threads that a family may use. The result does not depend on it.
        checkpoint: folder for the state of an unfinished fit; a fit that finds one there goes on from it, and reports
            the progress of its earlier iterations again. Families that fit in minutes ignore it.
        checkpoint_seconds: least time between two states.
    """

    iterations: Iterations = ()
    seed: int = 0
    on_progress: ProgressCallback | None = None
    workers: int = field(default_factory=usable_cores)
    checkpoint: Path | None = None
    checkpoint_seconds: float = 0.0


DEFAULT_OPTIONS = FitOptions()


@dataclass(frozen=True)
class FitResult:
    """What a fit reports back.

    Attributes:
        iterations: boosting rounds or epochs in use after early stopping, one number per sub-model.
        history: validation loss per iteration, in preprocessed space; empty without validation data.
        curves: further series by name, one value per iteration, for example `train_loss` or `learning_rate`.
    """

    iterations: Iterations = ()
    history: tuple[float, ...] = ()
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


class Model(ABC, Generic[S]):
    """A model family, by the kind of samples that it reads.

    Class attributes:
        tasks: what the family can be used for.
        Params: its hyperparameters.
        is_naive: whether it is a rule so simple that a candidate must beat it to be promoted.
        covariates: the kinds of input it reads beside the history of its columns: `known` (columns whose values over
            the horizon are known) and `static` (columns that are constant per entity).
        has_quantiles: whether it can be fitted to the quantiles of the spec.
        reads_missing: whether it reads NaN as it is; a fit of the others refuses it.
        is_exact: whether the answer to a sample is the same to the last bit, whatever samples stand beside it.
        explains: what its `explain` returns: `contributions`, `weights`, or nothing.

    Attributes:
        calibration: what turns its answers into prediction intervals; part of the stored model. `None` while there is
            none.
    """

    tasks: ClassVar[frozenset[str]]
    Params: ClassVar[type[ModelParams]]
    is_naive: ClassVar[bool] = False
    covariates: ClassVar[frozenset[str]] = frozenset()
    has_quantiles: ClassVar[bool] = False
    reads_missing: ClassVar[bool] = False
    is_exact: ClassVar[bool] = False
    explains: ClassVar[Literal["contributions", "weights"] | None] = None

    def __init__(self, params: ModelParams, spec: ModelSpec) -> None:
        self.params = params
        self.spec = spec
        self.calibration: Calibration | None = None

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Return parameters with which a fit is quick; the contract tests fit with a lookback of 12."""
        return {}

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:  # noqa: ARG003 (for subclasses)
        """Return the default search space for a task; empty when there is nothing to tune."""
        return {}

    @classmethod
    def least_lookback(cls, params: Any) -> int:  # noqa: ARG003 (for subclasses)
        """Return the shortest lookback, in steps, that a forecast with these parameters can work with."""
        return 1

    @classmethod
    def season(cls, params: Any) -> int | None:  # noqa: ARG003 (for subclasses)
        """Return the length of the season, in steps, that the parameters state; `None` for a family without one.

        That of an experiment's first baseline with a season is the season of the experiment.
        """
        return None

    @classmethod
    def check(cls, use: PluginUse, params: Any, config: ExperimentConfig) -> Iterator[str]:
        """Yield what keeps the family from being used in an experiment, as its model or as a baseline.

        A family with further demands yields them after these.
        """
        least = cls.least_lookback(params)
        if config.task == "forecast" and 1 <= config.lookback < least:
            yield f"{use.section}: {use.name!r} needs a lookback of at least {least}, but lookback is {config.lookback}"
        if use.section != "model":
            return  # a baseline may leave inputs and quantiles to the model
        for kind, names in (("known", config.features.known_future), ("static", config.features.static)):
            if names and kind not in cls.covariates:
                yield (
                    f"model.family {use.name!r} does not read {kind} inputs, but features version "
                    f"{config.features.version!r} has {', '.join(names)}; families that do: "
                    f"{', '.join(name for name, family in MODELS if kind in family.covariates) or 'none'}"
                )
        if config.uncertainty.quantiles and not cls.has_quantiles:
            yield (
                f"model.family {use.name!r} has no quantile outputs, so uncertainty.quantiles must be empty; "
                f"families that have: {', '.join(name for name, family in MODELS if family.has_quantiles) or 'none'}"
            )

    def check_samples(self, *samples: Samples | None) -> None:
        """Make sure that the model can be fitted to these samples; `None` is skipped.

        Raises:
            TypeError: if they are not of the kind that its task has.
            ValueError: if it does not read missing values and is given some. Naive rules may read them.
        """
        kind = WindowSamples if self.spec.task == "forecast" else TabularSamples
        for part in (each for each in samples if each is not None):
            if not isinstance(part, kind):
                raise TypeError(f"{type(self).__name__} is fitted to {kind.__name__}, but got {type(part).__name__}")
            missing = "" if self.reads_missing or self.is_naive else _missing(part, scaled_channels(self.spec))
            if missing:
                raise ValueError(
                    f"{type(self).__name__} cannot read missing values, found in {missing}; add an impute step to the "
                    "preprocessing, or use a family that reads them"
                )

    @abstractmethod
    def predict(self, samples: S) -> Float32:
        """Predict in preprocessed space.

        Returns:
            Forecast: of shape (samples, horizon, targets). Regression: of shape (samples,).
            Classification: probabilities of shape (samples, classes).
        """

    def predict_quantiles(self, samples: S) -> Float32:  # noqa: ARG002 (for subclasses)
        """Predict the spec's quantiles in preprocessed space; they never cross.

        Returns:
            Forecast: of shape (samples, horizon, targets, quantiles). Regression: of shape (samples, quantiles).
            `predict` answers their median.

        Raises:
            ValueError: if the model was not fitted to quantiles.
        """
        raise ValueError(f"{type(self).__name__} was not fitted to quantiles: its spec has {self.spec.quantiles}")

    def predict_bounds(self, samples: S, *coverages: float) -> Intervals:
        """Return the point prediction and the model's own bounds for coverages, before any calibration.

        Without quantiles all bounds are the point prediction. One pass over the model gives everything.
        """
        if not self.spec.quantiles:
            point = self.predict(samples)
            return Intervals(point, point, point)
        quantiles = self.predict_quantiles(samples)

        def at(coverage: float) -> Bounds:
            lower, upper = (quantiles[..., self.spec.quantile_position(level)] for level in bound_levels(coverage))
            return Bounds(lower, upper, coverage)

        main, *others = map(at, coverages)
        point = quantiles[..., self.spec.quantile_position(0.5)]
        return Intervals(point, main.lower, main.upper, tuple(others))

    def predict_intervals(self, samples: S) -> Intervals:
        """Predict in preprocessed space, with calibrated prediction intervals.

        Raises:
            ValueError: if the model was not calibrated.
        """
        if self.calibration is None:
            raise ValueError(f"{type(self).__name__} was not calibrated, so it has no prediction intervals")
        return self.calibration.apply(self.predict_bounds(samples, *self.calibration.coverages), samples)

    @property
    def inference(self) -> str:
        """How it answers, in words, of a family that has a faster way for models that were loaded."""
        return "as fitted"

    def confirm_inference(self, samples: S) -> None:
        """Compare a faster way of answering with the model as fitted, bit for bit; where they differ, give it up.

        Parameters:
            samples: preprocessed, for example those of a pair's stored example.
        """

    def explain(self, samples: S) -> Explanation:  # noqa: ARG002 (for subclasses)
        """Return why it answers the samples as it does, in preprocessed space.

        Raises:
            CannotExplainError: if the family, or this model of it, has no such explanation.
        """
        able = ", ".join(name for name, family in MODELS if family.explains and self.spec.task in family.tasks)
        raise CannotExplainError(
            f"models of this family have no exact explanation; families that have for task {self.spec.task}: {able}"
        )

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted state into an existing, empty folder, without pickle."""

    @abstractmethod
    def restore(self, folder: Path) -> None:
        """Read the fitted state that `save` wrote."""


class DirectFitModel(Model[S]):
    """A family that fits itself (boosted trees, closed forms, naive rules); run by the machine-learning trainer."""

    def fit(self, train: S, validation: S | None, options: FitOptions = DEFAULT_OPTIONS) -> FitResult:
        """Fit on `train`.

        Parameters:
            validation: stops early where the family can; `None` fits the full budget.

        Raises:
            TypeError, ValueError: if the family cannot be fitted to these samples.
        """
        self.check_samples(train, validation)
        return self._fit(train, validation, options)

    @abstractmethod
    def _fit(self, train: S, validation: S | None, options: FitOptions) -> FitResult:
        """Fit on samples that were checked; see `fit`."""


def create_model(family: str, params: Mapping[str, Any], spec: ModelSpec) -> Model:
    """Return an unfitted model of the family called `family`; one without quantiles is built for a point prediction."""
    plugin = MODELS.get(family)
    if not plugin.has_quantiles:
        spec = replace(spec, quantiles=())
    model: Model = plugin(plugin.Params.model_validate(dict(params)), spec)
    return model


def save_model(model: Model, family: str, folder: Path) -> None:
    """Write a fitted model and what is needed to rebuild it into `folder`, which must not exist."""
    folder.mkdir(parents=True)
    header = {"family": family, "params": model.params.model_dump(mode="json"), "spec": model.spec.to_json()}
    (folder / "model.json").write_text(json.dumps(header, indent=1))
    if model.calibration is not None:
        (folder / CALIBRATION_FILE).write_text(model.calibration.to_json())
    state = folder / "state"
    state.mkdir()
    model.save(state)


def load_model(folder: Path) -> Model:
    """Read a model that `save_model` wrote."""
    header = json.loads((folder / "model.json").read_text())
    model = create_model(header["family"], header["params"], ModelSpec.from_json(header["spec"]))
    model.restore(folder / "state")
    if (folder / CALIBRATION_FILE).exists():
        model.calibration = Calibration.from_json((folder / CALIBRATION_FILE).read_text())
    return model


def _missing(samples: Samples, filled: tuple[int, ...]) -> str:
    """Return the names of the columns with missing values, joined; looked up once per samples.

    Parameters:
        filled: positions of columns whose missing values the scaling of windows fills.
    """
    if MISSING not in samples.cache:
        columns = np.flatnonzero(np.isnan(samples.values).any(axis=0))
        samples.cache[MISSING] = ", ".join(samples.channels[column] for column in columns if column not in filled)
    return str(samples.cache[MISSING])


def as_float32(values: Any) -> Float32:
    """Return values as a C-contiguous float32 array."""
    return np.ascontiguousarray(values, dtype=np.float32)
