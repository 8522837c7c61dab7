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
from typing import Annotated, Any, ClassVar, Generic, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from typing_extensions import TypeVar, override

from mlplatform.config import ExperimentConfig, SearchDimension, bound_levels
from mlplatform.cores import usable_cores
from mlplatform.datamodule import Float32, ModelSpec, Samples, TabularSamples, WindowSamples
from mlplatform.models.calibration import Bounds, Calibration, Intervals
from mlplatform.models.explanation import CannotExplainError, Contributions, Explanation
from mlplatform.models.window_scale import scaled_channels
from mlplatform.plugins import MODELS, PluginUse

CALIBRATION_FILE = "calibration.json"
MISSING = "missing values"

Iterations = tuple[int, ...]
ProgressCallback = Callable[[int, float], None]
S = TypeVar("S", bound=Samples, default=Any)


class ModelParams(BaseModel):
    """Base of a family's hyperparameters: immutable, and unknown keys are errors.

    `difference` lets any forecasting family learn the targets' changes from so many steps before, 1 for first
    differences, or from a `season` before; see `Differenced`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Parameters of this class, beside those of its bases, that came later: at their default they are not written, so
    # that stored models keep their bits.
    later: ClassVar[frozenset[str]] = frozenset({"difference"})

    difference: Annotated[int, Field(ge=1)] | Literal["season"] | None = None

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        fields = type(self).model_fields
        later = {name for kind in type(self).__mro__ for name in vars(kind).get("later", ())}
        return {
            name: value
            for name, value in values.items()
            if name not in later or getattr(self, name) != fields[name].default
        }


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
            the horizon are known), `static` (columns that are constant per entity) and `calendar` (what
            `features.calendar` says about the time).
        reads_targets_only: whether it reads the history of the targets and no other column's.
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
    reads_targets_only: ClassVar[bool] = False
    has_quantiles: ClassVar[bool] = False
    reads_missing: ClassVar[bool] = False
    is_exact: ClassVar[bool] = False
    explains: ClassVar[Literal["contributions", "weights"] | None] = None

    def __init__(self, params: ModelParams, spec: ModelSpec) -> None:
        self.params = params
        self.spec = spec
        self.calibration: Calibration | None = None

    @classmethod
    def create(cls, params: Any, spec: ModelSpec) -> Model:
        """Return an unfitted model for checked parameters: of the family, or one that makes use of it."""
        return cls(params, spec)

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Return parameters with which a fit is quick; the contract tests fit with a lookback of 12."""
        return {}

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:  # noqa: ARG003 (for subclasses)
        """Return the default search space for a task; empty when there is nothing to tune."""
        return {}

    @classmethod
    def alternatives(
        cls,
        params: Any,  # noqa: ARG003 (for subclasses)
        config: ExperimentConfig,  # noqa: ARG003 (for subclasses)
    ) -> tuple[dict[str, Any], ...]:
        """Return what a search of the default space tries first beside these parameters, as changes of them."""
        return ()

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
        yield from _difference_mistakes(use, params, config)
        least = cls.least_lookback(params) + _period(params, config)
        if config.task == "forecast" and 1 <= config.lookback < least:
            yield f"{use.section}: {use.name!r} needs a lookback of at least {least}, but lookback is {config.lookback}"
        if use.section != "model":
            return  # a baseline may leave inputs and quantiles to the model
        features = config.features
        calendar = () if features.calendar is None else (features.calendar.text,)
        for kind, names in (("known", features.known_future), ("static", features.static), ("calendar", calendar)):
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
            ValueError: if it does not read missing values and is given some, which naive rules may do, or is refused.
        """
        kind = WindowSamples if self.spec.task == "forecast" else TabularSamples
        for part in (each for each in samples if each is not None):
            if not isinstance(part, kind):
                raise TypeError(f"{type(self).__name__} is fitted to {kind.__name__}, but got {type(part).__name__}")
            unreadable = self.unreadable(part)
            if unreadable:
                raise ValueError(
                    f"{type(self).__name__} cannot read missing values, found in {', '.join(unreadable)}; add an "
                    "impute step to the preprocessing, or use a family that reads them"
                )
        for refusal in self.refusals(*samples):
            raise ValueError(f"{type(self).__name__} {refusal}")

    def refusals(self, train: Samples | None, validation: Samples | None = None) -> Iterator[str]:  # noqa: ARG002
        """Yield what keeps the model from being fitted to samples, beside missing values.

        A family with demands on the rows yields them here, so that they are told before anything is fitted.

        Returns:
            predicates, which begin with what the family does and end with what to do.
        """
        yield from ()

    def unreadable(self, samples: Samples) -> tuple[str, ...]:
        """Return the columns of the samples with missing values that the model does not read.

        Naive rules may read them; what the scaling of windows fills is not missing, and what the family does not look
        at may be.
        """
        if self.reads_missing or self.is_naive:
            return ()
        passed = {*scaled_channels(self.spec)}
        if self.reads_targets_only:
            passed |= {*range(len(self.spec.channels))} - {*self.spec.targets}
        return tuple(samples.channels[column] for column in _missing(samples) if column not in passed)

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


class Wrapped(Model[WindowSamples]):
    """A model that answers by another one, which is given samples of its own.

    Attributes:
        inner: that one.
    """

    inner: Model

    @abstractmethod
    def inner_samples(self, samples: WindowSamples) -> WindowSamples:
        """Return what the inner model is given for samples."""

    @override
    def refusals(self, train: Samples | None, validation: Samples | None = None) -> Iterator[str]:
        """Yield what keeps the inner model from being fitted."""
        yield from self.inner.refusals(train, validation)

    @property
    @override
    def inference(self) -> str:
        """How the inner model answers."""
        return self.inner.inference

    @override
    def confirm_inference(self, samples: WindowSamples) -> None:
        """Compare the ways of answering of the inner model."""
        self.inner.confirm_inference(self.inner_samples(samples))


class Differenced(Wrapped):
    """A model of another family that is fitted to differences and answers in the units of what was differenced.

    The inverse adds what is known at the origin of a window, the same to a forecast, its quantiles and its bounds, so
    that intervals are moved and never widened, and errors do not add up over the horizon. It is part of the model, so
    that every route undoes it alike.

    Attributes:
        inner: the model that sees differences; its windows are one period shorter.
        period: steps between the values of a difference.
    """

    tasks = frozenset({"forecast"})
    Params = ModelParams

    def __init__(self, family: type[Model], params: ModelParams, spec: ModelSpec) -> None:
        self.period = period_of(params, spec)
        inner_spec = replace(spec, lookback=spec.lookback - self.period, history=0)
        least = family.least_lookback(params)
        if inner_spec.lookback < least:
            raise ValueError(
                f"difference {params.difference!r} leaves {inner_spec.lookback} of {spec.lookback} steps of lookback, "
                f"but {family.__name__} needs at least {least}; use a longer lookback or a shorter difference"
            )
        self.inner = family(params, inner_spec)
        super().__init__(self.inner.params, spec)

    def inner_samples(self, samples: WindowSamples) -> WindowSamples:
        """Return the differences."""
        return samples.differenced(self.period)

    @override
    def refusals(self, train: Samples | None, validation: Samples | None = None) -> Iterator[str]:
        """Yield what keeps the model of differences from being fitted."""
        parts = (self.inner_samples(part) if isinstance(part, WindowSamples) else None for part in (train, validation))
        yield from super().refusals(*parts)

    def predict(self, samples: WindowSamples) -> Float32:
        """Return the forecast."""
        inner = self.inner_samples(samples)
        forecast: Float32 = self.inner.predict(inner) + inner.anchors()
        return forecast

    @override
    def predict_quantiles(self, samples: WindowSamples) -> Float32:
        """Return the forecast's quantiles."""
        inner = self.inner_samples(samples)
        quantiles: Float32 = self.inner.predict_quantiles(inner) + inner.anchors()[..., None]
        return quantiles

    @override
    def explain(self, samples: WindowSamples) -> Explanation:
        """Return why the differences are what they are; what they are differences from is in the base."""
        inner = self.inner_samples(samples)
        found = self.inner.explain(inner)
        if isinstance(found, Contributions):
            return replace(found, base=found.base + inner.anchors().astype(np.float64))
        return found

    def save(self, folder: Path) -> None:
        """Write the model of differences."""
        self.inner.save(folder)

    def restore(self, folder: Path) -> None:
        """Read the model of differences."""
        self.inner.restore(folder)


def model_of_differences(family: type[Model], params: ModelParams, spec: ModelSpec) -> Differenced:
    """Return an unfitted model of a family's differences, which can do what the family can.

    Raises:
        ValueError: if the lookback leaves no window for the family, or a season is asked for where none is told.
    """
    able = {name: getattr(family, name) for name in ("reads_missing", "is_exact", "explains", "has_quantiles")}
    kind: type[Differenced] = type(f"Differenced{family.__name__}", (Differenced,), able)
    return kind(family, params, spec)


def period_of(params: ModelParams, spec: ModelSpec) -> int:
    """Return the steps between the values of a difference.

    Raises:
        ValueError: if it is a season, and the spec has none.
    """
    if params.difference != "season":
        return params.difference or 0
    if not spec.season:
        raise ValueError(
            "difference 'season' needs to know the season, which models are told with preprocessing.scaling auto or "
            "window; use one of them, or give the number of steps"
        )
    return spec.season


def create_model(family: str, params: Mapping[str, Any], spec: ModelSpec) -> Model:
    """Return an unfitted model of the family called `family`; one without quantiles is built for a point prediction."""
    plugin: Any = MODELS.get(family)
    if not plugin.has_quantiles:
        spec = replace(spec, quantiles=())
    checked = plugin.Params.model_validate(dict(params))
    if checked.difference is not None:
        return model_of_differences(plugin, checked, spec)
    model: Model = plugin.create(checked, spec)
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


def _period(params: ModelParams, config: ExperimentConfig) -> int:
    return config.season if params.difference == "season" else params.difference or 0


def _difference_mistakes(use: PluginUse, params: ModelParams, config: ExperimentConfig) -> Iterator[str]:
    if params.difference is None:
        return
    if config.task != "forecast":
        yield f"{use.params_key}.difference is {params.difference!r}, but only forecasts have steps; leave it out"
    elif params.difference == "season" and config.preprocessing.scaling == "none":
        yield (
            f"{use.params_key}.difference is 'season', which models are told with preprocessing.scaling auto or window "
            f"only; use one of them, or give the number of steps ({config.season})"
        )


def _missing(samples: Samples) -> tuple[int, ...]:
    """Return the positions of the columns with missing values; looked up once per samples."""
    if MISSING not in samples.cache:
        samples.cache[MISSING] = tuple(np.flatnonzero(np.isnan(samples.values).any(axis=0)).tolist())
    found: tuple[int, ...] = samples.cache[MISSING]
    return found


def as_float32(values: Any) -> Float32:
    """Return values as a C-contiguous float32 array."""
    return np.ascontiguousarray(values, dtype=np.float32)
