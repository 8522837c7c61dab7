"""A pair at work: preprocessor and model applied one after the other, under a contract.

Training's parity check, the promotion gate, the MLflow pyfuncs and both servers all predict through this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlplatform.calendars import Calendar, calendar_of
from mlplatform.config import ExperimentConfig, Task
from mlplatform.datamodule import (
    Float32,
    Panel,
    Samples,
    WindowSamples,
    invert_targets,
    last_origins,
    tabular_samples,
    window_samples,
)
from mlplatform.models import Bounds, Model, load_model, nested
from mlplatform.preprocessing import TransformManager

CONTRACT_FILE = "contract.json"

# The least and the greatest value.
Limits = tuple[float | None, float | None]
# Of one coverage: of shape (horizon,), or (1,) for rows of a table.
Scale = tuple[float, ...]
# Of all coverages of a pair, in their order.
Scales = tuple[Scale, ...]


class Answers(NamedTuple):
    """Point predictions and, of a calibrated model, the bounds of their prediction intervals, in the same shape.

    Attributes:
        coverage: share of truths that the intervals are meant to cover; `None` without intervals.
        others: the bounds of further coverages.
    """

    point: Float32
    lower: Float32 | None = None
    upper: Float32 | None = None
    coverage: float | None = None
    others: tuple[Bounds, ...] = ()

    @property
    def bounds(self) -> tuple[Bounds, ...]:
        """All bounds, those of the main coverage first; empty without intervals."""
        if self.lower is None or self.upper is None or self.coverage is None:
            return ()
        return Bounds(self.lower, self.upper, self.coverage), *self.others

    @property
    def coverages(self) -> tuple[float, ...]:
        """The coverages of all bounds, the main one first."""
        return tuple(each.coverage for each in self.bounds)

    @property
    def arrays(self) -> tuple[Float32, ...]:
        """Point predictions, then lower and upper bounds of one coverage after the other."""
        return self.point, *(side for bounds in self.bounds for side in (bounds.lower, bounds.upper))

    @property
    def by_coverage(self) -> tuple[Bounds, ...]:
        """All bounds, the narrowest first."""
        return tuple(sorted(self.bounds, key=lambda each: each.coverage))

    @classmethod
    def of(cls, point: Float32, bounds: Sequence[Bounds]) -> Answers:
        """Return point predictions with bounds, those of the main coverage first, if there are any."""
        if not bounds:
            return cls(point)
        main, *others = bounds
        return cls(point, main.lower, main.upper, main.coverage, tuple(others))

    def map(self, change: Callable[[Float32], Float32]) -> Answers:
        """Return what a function makes of every array."""
        return Answers.of(change(self.point), [each.map(change) for each in self.bounds])

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Return the answers of parts one after another, with bounds if all have those of the same coverages."""
        coverages = parts[0].coverages
        if any(part.coverages != coverages for part in parts):
            return cls(np.concatenate([part.point for part in parts]))
        point, *sides = (np.concatenate(same) for same in zip(*(part.arrays for part in parts), strict=True))
        return cls.of(point, [Bounds(*each) for each in zip(sides[::2], sides[1::2], coverages, strict=True)])

    def is_broken(self, is_fallback: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
        """Return which answers have NaN or infinity, of shape (samples,).

        Parameters:
            is_fallback: which of them stand in for a forecast; these have no interval.
        """
        if all(np.isfinite(values).all() for values in self.arrays):
            return np.zeros(len(self.point), dtype=bool)
        broken = ~_is_finite(self.point)
        for lower, upper, _ in self.bounds:
            is_missing = ~(_is_finite(lower) & _is_finite(upper))
            broken |= is_missing if is_fallback is None else is_missing & ~is_fallback
        return broken

    def scaled(self, scales: Scales | None) -> Answers:
        """Return answers in preprocessed space with their bounds moved away from the point predictions, or to them.

        Parameters:
            scales: the new distance of either bound in units of the one it has; `None` leaves the bounds where they
                are.
        """
        if scales is None or not self.bounds:
            return self
        bounds = [self._scaled(each, scale) for each, scale in zip(self.bounds, scales, strict=True)]
        return Answers.of(self.point, nested(bounds))

    def _scaled(self, bounds: Bounds, scale: Scale) -> Bounds:
        factors: Float32 = np.asarray(scale, dtype=np.float32)
        factors = factors[None, :, None] if self.point.ndim == 3 else factors
        lower = self.point - factors * (self.point - bounds.lower)
        return Bounds(lower, self.point + factors * (bounds.upper - self.point), bounds.coverage)


@dataclass(frozen=True)
class Contract:
    """What a pair reads and what it answers.

    Attributes:
        columns: raw input columns, categorical ones included, in model order.
        targets: predicted columns.
        lookback: input steps of a window; 0 for tabular tasks.
        context: rows before the window that preprocessing needs.
        horizon: output steps; 0 for tabular tasks.
        step_seconds: length of a time step, in the mean; 0 for tabular tasks.
        classes: class labels in the order of the probabilities; empty unless the task is classification.
        known: input columns whose values over the horizon come with the request; empty for tabular tasks.
        min_observed: least share of the lookback that must have been measured, as the experiment said at registration;
            the pyfunc goes by it.
        below_min_observed: what the pyfunc does below it: `refuse` or `fallback`.
        limits: per target, the least and the greatest value that it can have; `None` where there is none. Answers and
            their bounds are cut to them. Empty if no target has any.
        short: what the pyfunc does with series that begin inside the lookback, as `ShortSeries` has it.
        calendar_text: what counts the steps, if it is not their seconds (see `mlplatform.calendars`).
        history: rows of the past that a forecast reads where they are there, the lookback among them; 0 stands for the
            lookback.
        planned: columns of the dataset, input columns or not, that were known further ahead than the targets where the
            pair was trained, and that it does not read ahead: rows that have nothing but these stand behind the past.
        fallback, season: what the pyfunc answers where the model cannot, as `FallbackPolicy` has it; it knows no last
            forecasts.
    """

    experiment: str
    task: Task
    dataset: str
    columns: tuple[str, ...]
    targets: tuple[str, ...]
    lookback: int = 0
    context: int = 0
    horizon: int = 0
    step_seconds: int = 0
    classes: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    min_observed: float = 0.0
    below_min_observed: str = "refuse"
    limits: tuple[Limits, ...] = ()
    calendar_text: str = ""
    fallback: str = "none"
    season: int = 1
    short: str = ""
    history: int = 0
    planned: tuple[str, ...] = ()

    @classmethod
    def for_experiment(
        cls, config: ExperimentConfig, manager: TransformManager, planned: Collection[str] = ()
    ) -> Contract:
        """Return the contract of a pair trained with `config`.

        Parameters:
            planned: columns that went on behind the last observed target, as the split's manifest has them.
        """
        forecast = config.task == "forecast"
        columns = [config.dataset.columns[target] for target in config.targets]
        names = dict.fromkeys((*config.features.columns, *config.dataset.columns))
        limits = tuple((column.min, column.max) for column in columns)
        short = (config.observation.short or "") if forecast else ""
        has_season = config.serving.fallback == "seasonal_naive" or short == "naive"
        return cls(
            experiment=config.name,
            task=config.task,
            dataset=config.dataset.name,
            columns=config.features.columns,
            targets=config.targets,
            lookback=config.lookback,
            context=manager.context if forecast else 0,
            horizon=config.horizon,
            step_seconds=int(config.dataset.nominal_step.total_seconds()) if forecast else 0,
            classes=manager.classes(config.targets[0]) if config.task == "classification" else (),
            known=config.features.known_future,
            min_observed=config.observation.min_observed if forecast else 0.0,
            below_min_observed=config.observation.action if forecast else "refuse",
            limits=limits if any(limit != (None, None) for limit in limits) else (),
            calendar_text=config.dataset.calendar.stored_text if forecast else "",
            fallback="seasonal_naive" if config.serving.fallback == "seasonal_naive" else "none",
            season=config.season if has_season else 1,
            short=short,
            history=(config.history or 0) if forecast else 0,
            planned=tuple(name for name in names if name in planned and name not in config.features.known_future),
        )

    @property
    def calendar(self) -> Calendar:
        """What counts the steps of a forecast."""
        return calendar_of(self.calendar_text, self.step_seconds)

    def moments_ahead(self, last: npt.NDArray[np.datetime64]) -> npt.NDArray[np.datetime64]:
        """Return the moments that are predicted from the last moments looked at: shape (n,) becomes (n, horizon)."""
        return self.calendar.ahead(last[:, None], np.arange(1, self.horizon + 1, dtype=np.int64)[None, :])

    @property
    def input_rows(self) -> int:
        """Rows of the past that one prediction reads."""
        return max(self.lookback, self.history) + self.context if self.task == "forecast" else 1

    @property
    def least_rows(self) -> int:
        """Rows of the past without which a series is too short; what lies before them may be missing."""
        return self.lookback + self.context if self.task == "forecast" else 1

    @property
    def padding(self) -> int:
        """Rows of a history that may be missing before the others."""
        return self.input_rows - self.least_rows

    @property
    def ahead(self) -> tuple[str, ...]:
        """Columns whose values may be known further ahead than those of the others, read ahead or not."""
        return (*self.known, *self.planned)

    @property
    def reads_plans(self) -> bool:
        """Whether all planned columns are input columns, so that a row shows whether it is one of a plan."""
        return set(self.planned) <= set(self.columns)

    @property
    def future_rows(self) -> int:
        """Rows after the past, one per step of the horizon, that one prediction needs; they hold the known columns."""
        return self.horizon if self.known else 0

    def to_json(self) -> str:
        """Return the contract as JSON; what came later stands there only if it says something, so digests stay."""
        values = asdict(self)
        if not self.min_observed:
            del values["min_observed"], values["below_min_observed"]
        if not self.limits:
            del values["limits"]
        if not self.calendar_text:
            del values["calendar_text"]
        if self.fallback == "none":
            del values["fallback"]
            if self.short != "naive":
                del values["season"]
        if not self.short:
            del values["short"]
        if not self.history:
            del values["history"]
        if not self.planned:
            del values["planned"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Rebuild a contract from JSON."""
        typed: dict[str, Any] = {key: _as_tuples(value) for key, value in json.loads(text).items()}
        return cls(**typed)

    def clip(self, values: Float32) -> Float32:
        """Return values of the targets, in original units, cut to what the targets can be.

        Parameters:
            values: forecasts of shape (..., targets), or the values of a regression, of any shape.
        """
        if not self.limits:
            return values
        low, high = (
            np.array([fill if limit[side] is None else limit[side] for limit in self.limits], dtype=np.float32)
            for side, fill in enumerate((-np.inf, np.inf))
        )
        clipped: Float32 = np.clip(values, low, high) if self.task == "forecast" else np.clip(values, low[0], high[0])
        return clipped


@dataclass(frozen=True)
class Forecaster:
    """A fitted preprocessor and model that belong together.

    Attributes:
        interval_scales: what `answer` scales its intervals by (`registry.interval_scale`).
    """

    contract: Contract
    preprocessor: TransformManager
    model: Model
    interval_scales: Scales | None = None

    @property
    def coverages(self) -> tuple[float, ...]:
        """Those of its prediction intervals, the main one first; empty if the model was not calibrated."""
        return () if self.model.calibration is None else self.model.calibration.coverages

    def preprocess(self, panel: Panel) -> Samples:
        """Return one sample per entity (its last row), or per row for tabular tasks.

        Raises:
            ValueError: if a column is missing, or an entity has fewer rows than the contract needs.
        """
        contract = self.contract
        missing = [name for name in contract.columns if name not in panel.columns]
        if missing:
            raise ValueError(f"missing columns: {', '.join(missing)}; expected: {', '.join(contract.columns)}")
        if contract.task != "forecast":
            return tabular_samples(self.preprocessor.transform(panel), contract.columns, None, len(contract.classes))
        lengths = np.diff(panel.offsets)
        short = np.flatnonzero(lengths < contract.input_rows + contract.future_rows)
        if len(short):
            entity, found = panel.entity_ids.tolist()[short[0]], lengths[short[0]]
            future = f", then {contract.future_rows} with the future of {', '.join(contract.known)}"
            raise ValueError(
                f"entity {entity!r} has {found} rows, but a forecast needs {contract.input_rows} "
                f"({contract.lookback} of lookback and {contract.context} of preprocessing context)"
                f"{future if contract.known else ''}"
            )
        return self.windows(self.preprocessor.transform(panel), last_origins(panel) - contract.future_rows)

    def windows(self, transformed: Panel, origins: np.ndarray[Any, np.dtype[np.int64]]) -> WindowSamples:
        """Return this pair's windows at the given rows of a panel that its own preprocessor transformed."""
        return window_samples(transformed, self.model.spec, origins)

    def infer(self, samples: Samples) -> Float32:
        """Return the model's answer in preprocessed space."""
        return self.model.predict(samples)

    def postprocess(self, outputs: Float32) -> Float32:
        """Return answers in original units, within the limits of the contract.

        Returns:
            Forecast: of shape (samples, horizon, targets). Regression: of shape (samples,).
            Classification: probabilities of shape (samples, classes).
        """
        if self.contract.task == "forecast":
            return self.contract.clip(invert_targets(self.preprocessor, self.contract.targets, outputs))
        if self.contract.task == "regression":
            return self.contract.clip(self.preprocessor.invert(outputs, self.contract.targets[0]))
        return outputs

    def infer_answers(self, samples: Samples) -> Answers:
        """Return the model's answer in preprocessed space, with prediction intervals if it was calibrated."""
        if self.model.calibration is None:
            return Answers(self.infer(samples))
        intervals = self.model.predict_intervals(samples)
        return Answers.of(intervals.point, intervals.bounds(self.model.calibration.coverage))

    def postprocess_answers(self, answers: Answers) -> Answers:
        """Return answers in original units."""
        return answers.map(self.postprocess)

    def answer(self, panel: Panel) -> Answers:
        """Return answers in original units for raw rows, with prediction intervals if the model was calibrated."""
        return self.postprocess_answers(self.infer_answers(self.preprocess(panel)).scaled(self.interval_scales))

    def predict(self, panel: Panel) -> Float32:
        """Return answers in original units for raw rows."""
        return self.postprocess(self.infer(self.preprocess(panel)))

    @classmethod
    def load(cls, preprocessor_folder: Path, model_folder: Path) -> Forecaster:
        """Read a pair from the two folders that registration wrote.

        Raises:
            ValueError: if the folders carry different contracts, so they are not a pair.
        """
        contract = (preprocessor_folder / CONTRACT_FILE).read_text()
        if contract != (model_folder / CONTRACT_FILE).read_text():
            raise ValueError(f"{preprocessor_folder} and {model_folder} carry different contracts: they are not a pair")
        manager = TransformManager.load(preprocessor_folder)
        return cls(Contract.from_json(contract), manager, load_model(model_folder))


def _is_finite(values: Float32) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
