"""Experiment configuration: Hydra groups composed into frozen, validated pydantic models.

`load_experiment` is the only way in. It composes the YAML groups under `conf/`, validates the result and refuses, with
an error that names the key, the value and what is allowed, everything that could not work: unknown keys, wrong types,
plug-ins that do not exist, and combinations that contradict each other. Code that receives an `ExperimentConfig` never
has to check it again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mlplatform.composition import ConfigError as ConfigError
from mlplatform.composition import compose, require_folders
from mlplatform.dagster_formats import check_cron, check_owner, check_tag_key, check_tag_value
from mlplatform.plugins import (
    DRIFT_TESTS,
    EXECUTORS,
    METRICS,
    MODELS,
    SOURCES,
    SPLITTERS,
    TRANSFORMS,
    UnknownPluginError,
)
from mlplatform.settings import Settings

Task = Literal["forecast", "regression", "classification"]
Period = Literal["day", "month", "year"]
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Owners = tuple[Annotated[str, AfterValidator(check_owner)], ...]
Tags = dict[Annotated[str, AfterValidator(check_tag_key)], Annotated[str, AfterValidator(check_tag_value)]]
Cron = Annotated[str, AfterValidator(check_cron)]
# Sensors are looked at every few seconds; more often than this is not possible.
IntervalSeconds = Annotated[int, Field(ge=5)]
VERSION_GROUPS = {"split_version": "split", "feature_version": "features", "model_version": "model"}

# A user and password before the host, or a query parameter that is called like a secret.
CREDENTIALS_IN_URI = re.compile(
    r"://[^@]*:[^@]*@|[?&][^=&]*(password|passwd|pwd|secret|token|credential)[^=&]*=", re.IGNORECASE
)
SECRET_NAME = re.compile(r"password|passwd|pwd|secret|token|credential|access_key|private_key", re.IGNORECASE)

Loaded = TypeVar("Loaded")

ENTITY = "entity_id"
TIMESTAMP = "event_timestamp"


class Frozen(BaseModel):
    """Base of all configuration models: immutable, and unknown keys are errors."""

    # An error that repeats its whole input would repeat a password that someone wrote into it by mistake.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ColumnConfig(Frozen):
    """One data column. `min` and `max` are physical limits: rows beyond them are quarantined."""

    type: Literal["float", "category"] = "float"
    min: float | None = None
    max: float | None = None
    nullable: bool = True
    unit: str = ""
    description: str = ""

    @model_validator(mode="after")
    def _limits(self) -> ColumnConfig:
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min must be below max, but min={self.min} and max={self.max}")
        if self.type == "category" and (self.min is not None or self.max is not None):
            raise ValueError("min and max apply to columns of type float only")
        return self


class SourceConfig(Frozen):
    """Where a dataset is read from; the URI's scheme or file suffix selects the source plug-in."""

    uri: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    download_url: str | None = None
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _downloads_are_checked(self) -> SourceConfig:
        if self.download_url and not self.sha256:
            raise ValueError("a source with download_url needs sha256, so that the download can be checked")
        return self

    @model_validator(mode="after")
    def _holds_no_credentials(self) -> SourceConfig:
        for key in ("uri", "download_url"):
            if CREDENTIALS_IN_URI.search(getattr(self, key) or ""):
                raise ValueError(
                    f"{key} holds credentials (it is not repeated here); leave them out, set them as environment "
                    "variables and name those in source.options, for example user_env and password_env"
                )
        return self


class DatasetAutomation(Frozen):
    """When the schedule and the sensor of a dataset run, once they are turned on. Crons are in UTC."""

    materialize_cron: Cron = "5 * * * *"
    new_data_interval_s: IntervalSeconds = 60


class ExperimentAutomation(Frozen):
    """When the schedule and the sensor of an experiment run, once they are turned on. Crons are in UTC."""

    monitor_cron: Cron = "15 4 * * *"
    drift_interval_s: IntervalSeconds = 60


class DatasetConfig(Frozen):
    """A dataset: its source, its columns, and for time series its grid.

    `window_steps` is the length of the window kept in the online store, in steps of `frequency`; it bounds the lookback
    that an experiment on this dataset can ask for. `partition` is the stretch of time that one file of the raw and the
    feature table holds: what an increment rewrites; by default it follows from the frequency.
    """

    name: str = Field(pattern=NAME_PATTERN)
    kind: Literal["timeseries", "tabular"] = "timeseries"
    source: SourceConfig
    time_column: str | None = None
    entity_column: str | None = None
    frequency: str | None = None
    window_steps: int = Field(default=720, ge=0)
    partition: Period | None = None
    max_bad_fraction: float = Field(default=0.05, ge=0, le=1)
    columns: dict[str, ColumnConfig] = Field(min_length=1)
    description: str = ""
    owners: Owners = ()
    tags: Tags = {}
    automation: DatasetAutomation = DatasetAutomation()

    @model_validator(mode="after")
    def _consistent(self) -> DatasetConfig:
        if self.kind == "timeseries":
            for key in ("time_column", "frequency"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} is missing; a dataset of kind timeseries needs it")
            if self.window_steps < 1:
                raise ValueError(f"window_steps must be at least 1 for kind timeseries, but is {self.window_steps}")
            time_step(self.frequency)
        reserved = {ENTITY, TIMESTAMP} & set(self.columns)
        if reserved:
            raise ValueError(f"columns must not use the reserved names {sorted(reserved)}")
        for key in ("time_column", "entity_column"):
            if getattr(self, key) in self.columns:
                raise ValueError(f"columns must not repeat the {key} {getattr(self, key)!r}")
        return self

    @property
    def step(self) -> dt.timedelta:
        """Length of one time step."""
        return time_step(self.frequency)

    @property
    def step_ns(self) -> int:
        """Length of one time step in nanoseconds, the unit that times are calculated in."""
        return self.step // dt.timedelta(microseconds=1) * 1000

    @property
    def period(self) -> Period:
        """The stretch of time that one file of the raw and the feature table holds."""
        if self.partition is not None:
            return self.partition
        if self.kind != "timeseries" or self.step >= dt.timedelta(hours=6):
            return "year"
        return "month" if self.step >= dt.timedelta(minutes=5) else "day"

    @property
    def float_columns(self) -> tuple[str, ...]:
        """Names of the numeric columns, in configuration order."""
        return tuple(name for name, column in self.columns.items() if column.type == "float")

    @property
    def category_columns(self) -> tuple[str, ...]:
        """Names of the categorical columns, in configuration order."""
        return tuple(name for name, column in self.columns.items() if column.type == "category")


def time_step(frequency: str | None, key: str = "frequency") -> dt.timedelta:
    """Return the length of a time step written as a number and one of the units s, min, h, D and W.

    Parameters:
        key: what the error calls the value.

    Raises:
        ValueError: if it is written otherwise, or is zero.
    """
    match = re.fullmatch(r"(\d*)\s*(s|min|h|D|W)", frequency or "")
    if match is None or int(match.group(1) or 1) == 0:
        raise ValueError(f"{key} must be a positive time step such as 1h, 15min or 1D, but is {frequency!r}")
    seconds = {"s": 1, "min": 60, "h": 3600, "D": 86400, "W": 604800}[match.group(2)]
    return dt.timedelta(seconds=seconds * int(match.group(1) or 1))


class FeaturesConfig(Frozen):
    """A version of the model inputs: which dataset columns, in which order, and what is known about them beforehand.

    In YAML, `columns: null` stands for all columns of the dataset, for tabular tasks without the target. Of a forecast,
    `known_future` names the columns whose values over the horizon are known when it is made (plans, tariffs, weather
    forecasts), and `static` those that are constant per entity; all others are read up to the present only.
    """

    version: str = Field(pattern=NAME_PATTERN)
    columns: tuple[str, ...] = Field(min_length=1)
    known_future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    def positions(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the positions of names in `columns`."""
        return tuple(self.columns.index(name) for name in names)


class PluginConfig(Frozen):
    """A plug-in by name with its parameters."""

    name: str
    params: dict[str, Any] = {}


def _utc(value: Any) -> Any:
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
    return value


UtcDatetime = Annotated[dt.datetime, BeforeValidator(_utc)]


class SplitConfig(Frozen):
    """A split policy and the cross-validation inside its training rows.

    Time series, in steps of the dataset's frequency: `[train][reference][test ...]`, laid from the start when
    `train_steps` is given and from the end of the data otherwise. Tabular data: `reference_fraction` of the rows.

    `as_of` cuts the data at a moment; it is part of the version, so `fleet_v1@20250301T0000` is a new immutable
    reference set made by the policy `fleet_v1`.
    """

    version: str = Field(pattern=NAME_PATTERN)
    as_of: UtcDatetime | None = None
    train_steps: int | None = Field(default=None, ge=1)
    reference_steps: int | None = Field(default=None, ge=1)
    test_steps: dict[Name, Annotated[int, Field(ge=1)]] = {}
    context_steps: int = Field(default=0, ge=0)
    reference_fraction: float | None = Field(default=None, gt=0, lt=1)
    stratify_column: str | None = None
    seed: int = 0
    cv: PluginConfig
    folds: int = Field(ge=1, le=50)

    @property
    def version_id(self) -> str:
        """The version with its cut-off, as used for folder names, tags and `active_config.yaml`."""
        return self.version if self.as_of is None else f"{self.version}@{self.as_of:%Y%m%dT%H%M}"

    @property
    def fold_names(self) -> tuple[str, ...]:
        """Partition keys of the folds."""
        return tuple(f"fold_{k}" for k in range(self.folds))


class StepConfig(Frozen):
    """One preprocessing step: a transform, the columns it applies to (default: all it can), and its parameters."""

    transform: str
    columns: tuple[str, ...] | None = None
    params: dict[str, Any] = {}


class PreprocessingConfig(Frozen):
    """The steps of the TransformManager, in order."""

    steps: tuple[StepConfig, ...] = ()


class SearchDimension(Frozen):
    """One dimension of a search space.

    With `when`, other dimensions by name and the values they must have, it is searched only in trials where all of them
    do; in the others it keeps the configured value.
    """

    type: Literal["int", "float", "categorical"]
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    when: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}

    @model_validator(mode="after")
    def _shape(self) -> SearchDimension:
        if self.type == "categorical":
            if not self.choices:
                raise ValueError("a categorical dimension needs choices")
        elif self.low is None or self.high is None or self.low > self.high:
            raise ValueError(f"low and high must be given with low <= high, but low={self.low} and high={self.high}")
        else:
            self._check_scale(self.low)
        return self

    def _check_scale(self, low: float) -> None:
        if self.log and (low <= 0 or self.step is not None):
            raise ValueError(f"a log dimension needs low above 0 and no step, but low={low} and step={self.step}")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be above 0, but is {self.step}")
        if self.type == "int":
            for key in ("low", "high", "step"):
                value = getattr(self, key)
                if value is not None and value != int(value):
                    raise ValueError(f"{key} of an int dimension must be a whole number, but is {value}")

    def can_be(self, value: Any) -> bool:
        """Return whether a trial can have this value."""
        if self.type == "categorical":
            return value in (self.choices or ())
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        assert self.low is not None
        assert self.high is not None
        step = self.step or (1 if self.type == "int" else None)
        steps = 0.0 if step is None else (value - self.low) / step
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-9


class ModelConfig(Frozen):
    """A version of the model definition: family, parameters and, optionally, a search space of one's own.

    `search_space: null` uses the family's own space; `{}` searches nothing.
    """

    version: str = Field(pattern=NAME_PATTERN)
    family: str
    params: dict[str, Any] = {}
    search_space: dict[str, SearchDimension] | None = None


class TuningConfig(Frozen):
    """How many trials, for how long, where they run, and when to prune one.

    The search ends when `trials` have finished, when `timeout_s` has passed since it started or was resumed (trials
    under way end first), or when `patience_trials` in a row finished without one whose loss is smaller than the best
    before by `min_improvement`, a share of that best loss.

    `executor`: `inline` runs trials one after another, each on all cores; `process` runs one per worker process; `ray`
    runs them on the cluster that RAY_ADDRESS names, or on this machine. `workers` is the number of trials at a time, by
    default one per core.

    A trial reports after every epoch (networks) or booster (direct multi-horizon XGBoost) and after every fold.
    `pruner_startup_trials` run to the end before any is pruned, and none is pruned in its first `warmup_steps` reports.

    The configuration itself is kept unless the best trial gains more than `standard_errors` standard errors of the gain
    over the folds; with 0 the best trial is always chosen.
    """

    trials: int = Field(default=1, ge=1)
    timeout_s: float | None = Field(default=None, gt=0)
    patience_trials: int | None = Field(default=None, ge=1)
    min_improvement: float = Field(default=0.0, ge=0, lt=1)
    executor: str = "inline"
    workers: int | None = Field(default=None, ge=1)
    pruner_startup_trials: int = Field(default=3, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    standard_errors: float = Field(default=0.0, ge=0)


class NestedConfig(Frozen):
    """Nested cross-validation: how good is the training procedure, tuning included, on rows it never saw?

    `outer_folds: 0` does without. Tables and forecasts of whole entities are split by the experiment's own scheme,
    other forecasts by expanding windows with its `validation_steps` and `gap`.
    """

    outer_folds: int = Field(default=0, ge=0, le=50)

    @property
    def fold_names(self) -> tuple[str, ...]:
        """Partition keys of the outer folds."""
        return tuple(f"outer_{k}" for k in range(self.outer_folds))


class PromotionConfig(Frozen):
    """When a candidate replaces the champion.

    `margin` is relative: 0.01 asks for a metric at least one percent better than the champion's. `min_reference_rows`
    is the least number of reference rows, over all entities, that a decision may rest on. `never_older` refuses a pair
    with a lower version number, or with training rows that end earlier, than the champion's. With `dry_run` the gate
    decides and reports, but nothing is promoted.
    """

    margin: float = Field(default=0.0, ge=0, lt=1)
    must_beat_baselines: bool = True
    cooldown_hours: float = Field(default=0.0, ge=0)
    min_reference_rows: int = Field(default=1, ge=1)
    never_older: bool = True
    dry_run: bool = False


class DriftConfig(Frozen):
    """When recent data counts as drifted, and how often that may start a training run."""

    test: str = "wasserstein"
    recent_steps: int = Field(default=168, ge=2)
    quantile: float = Field(default=0.99, gt=0.5, lt=1)
    error_ratio: float = Field(default=1.5, gt=1)
    min_predictions: int = Field(default=24, ge=1)
    cooldown_hours: float = Field(default=24.0, ge=0)


class StalenessConfig(Frozen):
    """How old features may be when they are read, and what happens to older ones.

    The age of an entity's features is the present of the read (the time point, or the clock for "now") minus the event
    time of its newest row. Without `max_age` no age is too old, so that data of the past stays usable. `refuse` raises
    an error that names the entities; `flag` answers and marks them.
    """

    max_age: str | None = None
    action: Literal["refuse", "flag"] = "refuse"

    @model_validator(mode="after")
    def _length(self) -> StalenessConfig:
        if self.max_age is not None:
            time_step(self.max_age, "max_age")
        return self

    @property
    def limit(self) -> dt.timedelta | None:
        """The greatest age that is not too old; `None` for any."""
        return None if self.max_age is None else time_step(self.max_age, "max_age")


class UncertaintyConfig(Frozen):
    """The prediction intervals of an experiment.

    `coverage` is the share of truths that the intervals are meant to cover; `null` makes none. They are calibrated on
    the held-out folds for every family. With `quantiles`, ascending and in pairs around 0.5, a family that can is
    fitted to these quantiles instead of the mean; its point prediction is the median.
    """

    coverage: float | None = Field(default=0.8, gt=0, lt=1)
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()

    @model_validator(mode="after")
    def _pairs_around_the_median(self) -> UncertaintyConfig:
        if not self.quantiles:
            return self
        mirrored = tuple(round(1 - level, 6) for level in reversed(self.quantiles))
        if list(self.quantiles) != sorted(set(self.quantiles)) or mirrored != tuple(
            round(q, 6) for q in self.quantiles
        ):
            raise ValueError(
                f"quantiles must ascend and come in pairs around 0.5, such as [0.1, 0.5, 0.9], but are "
                f"{list(self.quantiles)}"
            )
        wanted = (0.5, *(bound_levels(self.coverage) if self.coverage else ()))
        missing = [level for level in wanted if not any(abs(level - q) < 1e-6 for q in self.quantiles)]
        if missing:
            raise ValueError(f"quantiles lack {missing}, which coverage {self.coverage} and the median need")
        return self


def bound_levels(coverage: float) -> tuple[float, float]:
    """Return the quantile levels of the lower and upper bound of a central interval."""
    # Rounded, because 0.5 - 0.8 / 2 is not 0.1.
    return round(0.5 - coverage / 2, 6), round(0.5 + coverage / 2, 6)


class AllowedVersions(Frozen):
    """Versions, beyond the experiment's own, that a training run may ask for."""

    split: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    model: tuple[str, ...] = ()


class ExperimentConfig(Frozen):
    """Everything that defines one experiment."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str = ""
    task: Task
    dataset: DatasetConfig
    features: FeaturesConfig
    split: SplitConfig
    preprocessing: PreprocessingConfig
    model: ModelConfig
    tuning: TuningConfig
    promotion: PromotionConfig
    drift: DriftConfig
    staleness: StalenessConfig = StalenessConfig()
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    nested: NestedConfig = NestedConfig()
    targets: tuple[str, ...] = Field(min_length=1)
    metric: str
    extra_metrics: tuple[str, ...] = ()
    baselines: tuple[PluginConfig, ...] = Field(min_length=1)
    lookback: int = Field(default=0, ge=0)
    horizon: int = Field(default=0, ge=0)
    seed: int = 0
    allowed: AllowedVersions = AllowedVersions()
    owners: Owners = ()
    tags: Tags = {}
    automation: ExperimentAutomation = ExperimentAutomation()

    @model_validator(mode="before")
    @classmethod
    def _all_columns(cls, values: Any) -> Any:
        """Spell out `features.columns: null`."""
        match values:
            case {"features": {"columns": None} as features, "dataset": {"columns": {} as columns}, **rest}:
                read = str(rest.get("task")) == "forecast"
                chosen = [name for name in columns if read or [name] != rest.get("targets")]
                return {**values, "features": {**features, "columns": chosen}}
        return values

    @model_validator(mode="after")
    def _possible(self) -> ExperimentConfig:
        check_source(self.dataset)
        _check_columns(self)
        _check_plugins(self)
        if self.task == "forecast":
            _check_forecast(self)
        else:
            _check_tabular(self)
        if self.name == self.dataset.name:
            raise ValueError(f"name {self.name!r} is also the name of its dataset; asset keys would collide")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """The deciding metric first, then the extra ones; forecasts always report MAE, which drift is judged by."""
        always = ("mae",) if self.task == "forecast" else ()
        return tuple(dict.fromkeys((self.metric, *self.extra_metrics, *always)))

    @property
    def season(self) -> int:
        """Length of the season in steps, as the seasonal naive baseline has it; 1 without one."""
        return next((int(b.params.get("season", 24)) for b in self.baselines if b.name == "seasonal_naive"), 1)

    @property
    def registered_name(self) -> str:
        """Stem of the registered models' names."""
        return self.name

    @property
    def versions(self) -> dict[str, str]:
        """The versions that name this configuration in `active_config.yaml`, run config and tags."""
        return {
            "split_version": self.split.version_id,
            "feature_version": self.features.version,
            "model_version": self.model.version,
        }

    def fold_digest(self) -> str:
        """SHA-256 of the parts that folds and fold preprocessors depend on."""
        parts = {"dataset", "features", "split", "preprocessing", "targets", "task", "lookback", "horizon"}
        # What is only said about a dataset changes no fold.
        said = {"dataset": {"owners", "tags", "automation"}}
        values = self.model_dump(mode="json", include=parts, exclude=said)
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _check_columns(config: ExperimentConfig) -> None:
    known = config.dataset.columns
    for key, names in (("features.columns", config.features.columns), ("targets", config.targets)):
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{key} names {name!r}, which is not a column of dataset {config.dataset.name!r}; "
                    f"allowed: {', '.join(known)}"
                )
        if len(set(names)) != len(names):
            raise ValueError(f"{key} names a column twice: {', '.join(names)}")
    features = config.features
    for key, names in (("features.known_future", features.known_future), ("features.static", features.static)):
        for name in names:
            if name not in features.columns:
                raise ValueError(
                    f"{key} names {name!r}, which is not among features.columns; allowed: {', '.join(features.columns)}"
                )
            if config.task != "forecast" or name in config.targets:
                raise ValueError(
                    f"{key} names {name!r}; only inputs of a forecast that are not its targets can be that"
                )
    both = set(features.known_future) & set(features.static)
    if both:
        raise ValueError(f"features.known_future and features.static both name {', '.join(sorted(both))}; choose one")
    for position, step in enumerate(config.preprocessing.steps):
        for name in step.columns or ():
            if name not in known:
                raise ValueError(
                    f"preprocessing.steps[{position}].columns names {name!r}, which is not a column of dataset "
                    f"{config.dataset.name!r}; allowed: {', '.join(known)}"
                )


def _check_plugins(config: ExperimentConfig) -> None:
    family = _plugin("model.family", MODELS, config.model.family)
    _supports("model.family", config.model.family, family.tasks, config.task)
    _params("model.params", family, config.model.params)
    for kind, names in (("known", config.features.known_future), ("static", config.features.static)):
        if names and kind not in family.covariates:
            raise ValueError(
                f"model.family {config.model.family!r} does not read {kind} inputs, but features version "
                f"{config.features.version!r} has {', '.join(names)}; families that do: "
                f"{', '.join(name for name, plugin in MODELS if kind in plugin.covariates) or 'none'}"
            )
    if config.uncertainty.quantiles and not family.has_quantiles:
        raise ValueError(
            f"model.family {config.model.family!r} has no quantile outputs, so uncertainty.quantiles must be empty; "
            f"families that have: {', '.join(name for name, plugin in MODELS if plugin.has_quantiles) or 'none'}"
        )
    for name, dimension in (config.model.search_space or {}).items():
        if name not in family.Params.model_fields:
            raise ValueError(
                f"model.search_space names {name!r}, which is not a parameter of {config.model.family!r}; "
                f"allowed: {', '.join(family.Params.model_fields)}"
            )
        for value in dimension.choices or (dimension.low, dimension.high):
            _params("model.search_space", family, {**config.model.params, name: value})
    check_conditions(config.model.search_space or {})
    _plugin("tuning.executor", EXECUTORS, config.tuning.executor)
    for baseline in config.baselines:
        plugin = _plugin("baselines", MODELS, baseline.name)
        _supports("baselines", baseline.name, plugin.tasks, config.task)
        _params(f"baselines.{baseline.name}.params", plugin, baseline.params)
    for key, name in (("metric", config.metric), *(("extra_metrics", name) for name in config.extra_metrics)):
        plugin = _plugin(key, METRICS, name)
        _supports(key, name, plugin.tasks, config.task)
        if key == "metric" and not plugin.decides:
            raise ValueError(f"metric {name!r} describes a model, but cannot decide; name it in extra_metrics")
        if plugin.reads == "bounds" and config.uncertainty.coverage is None:
            raise ValueError(f"{key} {name!r} reads prediction intervals, but uncertainty.coverage is null")
    splitter = _plugin("split.cv.name", SPLITTERS, config.split.cv.name)
    _supports("split.cv.name", config.split.cv.name, splitter.tasks, config.task)
    _params("split.cv.params", splitter, config.split.cv.params)
    if config.split.folds < splitter.min_folds:
        raise ValueError(
            f"split.folds {config.split.folds} is too few for {config.split.cv.name!r}; "
            f"allowed: at least {splitter.min_folds}"
        )
    if 0 < config.nested.outer_folds < splitter.min_folds:
        raise ValueError(
            f"nested.outer_folds {config.nested.outer_folds} is too few for {config.split.cv.name!r}; "
            f"allowed: 0 for none, or at least {splitter.min_folds}"
        )
    column = config.split.cv.params.get("column")
    if column is not None and (column not in config.dataset.columns or column in config.targets):
        groups = ", ".join(name for name in config.dataset.columns if name not in config.targets)
        raise ValueError(
            f"split.cv.params.column names {column!r}, which cannot group the rows of dataset "
            f"{config.dataset.name!r}; allowed: {groups}, or null for the entity"
        )
    for position, step in enumerate(config.preprocessing.steps):
        key = f"preprocessing.steps[{position}]"
        transform = _plugin(f"{key}.transform", TRANSFORMS, step.transform)
        _params(f"{key}.params", transform, step.params)
        for name in step.columns or ():
            # Categories become numbers on the way, but numbers never become categories.
            if transform.accepts == "category" and config.dataset.columns[name].type == "float":
                raise ValueError(
                    f"{key}.columns names {name!r} of type float, but {step.transform!r} applies to categories; "
                    f"allowed: {', '.join(config.dataset.category_columns) or 'none'}"
                )
    _plugin("drift.test", DRIFT_TESTS, config.drift.test)


def check_conditions(space: Mapping[str, SearchDimension], key: str = "model.search_space") -> None:
    """Check the conditions of a search space.

    Raises:
        ValueError: if one names no dimension, asks for a value that its dimension never has, or depends on itself.
    """
    for name, dimension in space.items():
        for parent, values in dimension.when.items():
            if parent not in space:
                raise ValueError(
                    f"{key}.{name}.when names {parent!r}, which is not a dimension of the search space; "
                    f"allowed: {', '.join(other for other in space if other != name) or 'none'}"
                )
            for value in values:
                if not space[parent].can_be(value):
                    raise ValueError(f"{key}.{name}.when asks for {parent} = {value!r}, a value that it never has")
    for name in space:
        ancestors, found = set[str](), set(space[name].when)
        while found - ancestors:
            ancestors |= found
            found = {parent for ancestor in ancestors for parent in space[ancestor].when}
        if name in ancestors:
            raise ValueError(f"{key}.{name}.when leads back to {name!r} itself; conditions must not form a circle")


def _check_forecast(config: ExperimentConfig) -> None:
    dataset, split = config.dataset, config.split
    if dataset.kind != "timeseries":
        raise ValueError(f"task 'forecast' needs a dataset of kind timeseries, but {dataset.name!r} is {dataset.kind}")
    for key in ("lookback", "horizon"):
        if getattr(config, key) < 1:
            raise ValueError(f"{key} must be at least 1 for task 'forecast', but is {getattr(config, key)}")
    for target in config.targets:
        if dataset.columns[target].type != "float":
            raise ValueError(f"targets names {target!r}, which is categorical; a forecast target must be of type float")
        if target not in config.features.columns:
            raise ValueError(
                f"targets names {target!r}, which is not among features.columns "
                f"({', '.join(config.features.columns)}); a forecast reads the history of its targets"
            )
    for key, name, params in (
        ("model", config.model.family, config.model.params),
        *(("baselines", baseline.name, baseline.params) for baseline in config.baselines),
    ):
        family = MODELS.get(name)
        least = family.least_lookback(family.Params.model_validate(params))
        if config.lookback < least:
            raise ValueError(f"{key}: {name!r} needs a lookback of at least {least}, but lookback is {config.lookback}")
    context = config.lookback + preprocessing_context(config.preprocessing)
    if context > dataset.window_steps:
        raise ValueError(
            f"lookback {config.lookback} and {context - config.lookback} steps of preprocessing context exceed "
            f"dataset.window_steps {dataset.window_steps} of {dataset.name!r}"
        )
    if split.reference_steps is None:
        raise ValueError("split.reference_steps is missing; task 'forecast' needs it")
    if context > split.context_steps:
        raise ValueError(
            f"lookback {config.lookback} and {context - config.lookback} steps of preprocessing context exceed "
            f"split.context_steps {split.context_steps} of split version {split.version!r}"
        )
    validation_steps = split.cv.params.get("validation_steps")
    for key, steps in (
        ("split.cv.params.validation_steps", validation_steps),
        ("split.reference_steps", split.reference_steps),
        *((f"split.test_steps.{name}", steps) for name, steps in split.test_steps.items()),
    ):
        if steps is not None and config.horizon > steps:
            raise ValueError(f"horizon {config.horizon} is longer than {key} {steps}; allowed: 1 to {steps}")


def _check_tabular(config: ExperimentConfig) -> None:
    if config.dataset.kind != "tabular":
        raise ValueError(
            f"task {config.task!r} needs a dataset of kind tabular, but {config.dataset.name!r} is timeseries"
        )
    if len(config.targets) != 1:
        raise ValueError(
            f"targets must name one column for task {config.task!r}, but names {', '.join(config.targets)}"
        )
    target = config.targets[0]
    wanted = "category" if config.task == "classification" else "float"
    if config.dataset.columns[target].type != wanted:
        raise ValueError(
            f"targets names {target!r} of type {config.dataset.columns[target].type}; "
            f"task {config.task!r} needs a target of type {wanted}"
        )
    if target in config.features.columns:
        raise ValueError(f"features.columns contains the target {target!r}; the model would read its own answer")
    stratify = config.split.stratify_column
    if stratify is not None and stratify not in config.dataset.columns:
        raise ValueError(
            f"split.stratify_column names {stratify!r}, which is not a column of dataset {config.dataset.name!r}; "
            f"allowed: {', '.join(config.dataset.columns)}"
        )
    if config.split.reference_fraction is None:
        raise ValueError(f"split.reference_fraction is missing; task {config.task!r} needs it")


def preprocessing_context(preprocessing: PreprocessingConfig) -> int:
    """Return how many rows before a window its first row depends on, over all steps."""
    return sum(TRANSFORMS.get(step.transform)(**step.params).context for step in preprocessing.steps)


def _plugin(key: str, registry: Any, name: str) -> Any:
    try:
        return registry.get(name)
    except UnknownPluginError as error:
        raise ValueError(f"{key}: {error}") from error


def _supports(key: str, name: str, tasks: Iterable[str], task: str) -> None:
    if task not in tasks:
        raise ValueError(f"{key} {name!r} does not fit task {task!r}; it supports: {', '.join(sorted(tasks))}")


def _params(key: str, plugin: Any, params: Mapping[str, Any]) -> None:
    try:
        plugin.Params.model_validate(dict(params))
    except ValidationError as error:
        raise ValueError("; ".join(_lines(error, plugin.Params, prefix=key))) from error


def _lines(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return one `key = value: reason` line per error that validating `model` found."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in (*([prefix] if prefix else []), *item["loc"]))
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            reason = f"unknown key; allowed: {', '.join(_keys_at(model, item['loc'][:-1])) or 'none'}"
        is_hidden = item["type"] in ("missing", "value_error") or SECRET_NAME.search(key)
        shown = "" if is_hidden else f" = {item['input']!r}"
        lines.append(f"{key}{shown}: {reason}" if key else reason)
    return lines


def _keys_at(model: type[BaseModel], path: Sequence[int | str]) -> tuple[str, ...]:
    """Return the keys that a configuration may have at `path`."""
    annotation: Any = model
    for part in path:
        if hasattr(annotation, "model_fields"):
            annotation = annotation.model_fields[part].annotation
        else:
            # A position in a tuple or a key of a dictionary: go on with the type of its items.
            annotation = get_args(annotation)[1 if get_origin(annotation) is dict else 0]
        if NoneType in get_args(annotation):
            annotation = next(choice for choice in get_args(annotation) if choice is not NoneType)
    return tuple(annotation.model_fields)


def experiment_names(settings: Settings | None = None) -> tuple[str, ...]:
    """Return the names of all experiments in the configuration folders, sorted."""
    return options("experiment", settings)


def options(group: str, settings: Settings | None = None) -> tuple[str, ...]:
    """Return the options of a configuration group, sorted."""
    folders = (settings or Settings.from_env()).conf_dirs
    paths = (path for folder in folders for path in (folder / group).glob("*.yaml"))
    # Editors leave hidden files beside the one they have open.
    return tuple(sorted({path.stem for path in paths if not path.name.startswith(".")}))


def load_experiment(name: str, overrides: Sequence[str] = (), settings: Settings | None = None) -> ExperimentConfig:
    """Compose and validate the experiment `name`.

    Parameters:
        name: file name, without suffix, under `conf/experiment/`.
        overrides: Hydra overrides, for example `["horizon=48", "model=nlinear_v1"]`.
        settings: where configuration is looked up; default: from the environment.

    Raises:
        ConfigError: if the experiment is unknown or any part of it cannot be used.
    """
    settings = settings or Settings.from_env()
    known = experiment_names(settings)
    if name not in known:
        raise ConfigError(f"unknown experiment {name!r}; known: {', '.join(known)}")
    values = compose(name, overrides, settings)
    try:
        config = ExperimentConfig.model_validate(values)
    except ValidationError as error:
        lines = "\n  ".join(_lines(error, ExperimentConfig))
        raise ConfigError(f"experiment {name!r} is not valid:\n  {lines}") from error
    if config.name != name:
        raise ConfigError(f"experiment {name!r}: name is {config.name!r}, but must equal the file's name")
    return config


def load_dataset(name: str, settings: Settings | None = None) -> DatasetConfig:
    """Read and validate the dataset `name` on its own, outside of any experiment.

    Raises:
        ConfigError: if the dataset is unknown or its file cannot be used.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    settings = settings or Settings.from_env()
    paths = [path for folder in settings.conf_dirs if (path := folder / "dataset" / f"{name}.yaml").is_file()]
    if not paths:
        raise ConfigError(f"unknown dataset {name!r}; known: {', '.join(options('dataset', settings))}")
    try:
        config = DatasetConfig.model_validate(OmegaConf.to_container(OmegaConf.load(paths[0]), resolve=True))
    except ValidationError as error:
        lines = "\n  ".join(_lines(error, DatasetConfig))
        raise ConfigError(f"dataset {name!r} is not valid:\n  {lines}") from error
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"dataset {name!r}: {paths[0]} cannot be read: {error}") from error
    if config.name != name:
        raise ConfigError(f"dataset {name!r}: name is {config.name!r}, but must equal the file's name")
    check_source(config)
    return config


def load_all_experiments(settings: Settings) -> tuple[dict[str, ExperimentConfig], dict[str, ConfigError]]:
    """Return every experiment that can be used, and for every other one what is wrong with it.

    Raises:
        ConfigError: if a configuration folder is not there, so that nothing can be told about any experiment.
    """
    return _load_all(settings, "experiment", lambda name: load_experiment(name, settings=settings))


def load_all_datasets(settings: Settings) -> tuple[dict[str, DatasetConfig], dict[str, ConfigError]]:
    """Return every dataset with a file of its own that can be used, and for every other one what is wrong with it.

    Raises:
        ConfigError: if a configuration folder is not there.
    """
    return _load_all(settings, "dataset", lambda name: load_dataset(name, settings))


def _load_all(
    settings: Settings, group: str, load: Callable[[str], Loaded]
) -> tuple[dict[str, Loaded], dict[str, ConfigError]]:
    require_folders(settings)
    loaded, broken = dict[str, Loaded](), dict[str, ConfigError]()
    for name in options(group, settings):
        try:
            loaded[name] = load(name)
        except ConfigError as error:
            broken[name] = error
        except Exception as error:
            # A file that is no text, a plug-in that fails: whatever it is, it must not take the others along.
            broken[name] = ConfigError(f"{group} {name!r} cannot be loaded: {type(error).__name__}: {error}")
            broken[name].__cause__ = error
    return loaded, broken


def apply_versions(name: str, versions: Mapping[str, str], settings: Settings | None = None) -> list[str]:
    """Return the Hydra overrides that select `versions` for the experiment `name`.

    Parameters:
        versions: any of `split_version`, `feature_version` and `model_version`.

    Raises:
        ConfigError: if a key or version is unknown, or the experiment does not allow the version.
    """
    settings = settings or Settings.from_env()
    default = load_experiment(name, settings=settings)
    overrides = []
    for key, version in versions.items():
        if key not in VERSION_GROUPS:
            raise ConfigError(f"unknown version key {key!r}; allowed: {', '.join(VERSION_GROUPS)}")
        group = VERSION_GROUPS[key]
        base, cut, as_of = version.partition("@")
        own = default.versions[key].partition("@")[0]
        allowed = (own, *getattr(default.allowed, group))
        # The experiment's own version may be written in its YAML rather than in a file of the group.
        if base != own:
            if base not in options(group, settings):
                raise ConfigError(f"{key} {version!r} is unknown; known: {', '.join(options(group, settings))}")
            if base not in allowed:
                raise ConfigError(f"{key} {version!r} is not allowed for {name!r}; allowed: {', '.join(allowed)}")
            overrides.append(f"{group}={base}")
        if cut:
            overrides.append(f"split.as_of={_parse_as_of(key, version, as_of)}")
    return overrides


def _parse_as_of(key: str, version: str, as_of: str) -> str:
    if key != "split_version" or not re.fullmatch(r"\d{8}T\d{4}", as_of):
        raise ConfigError(f"{key} {version!r}: only a split version takes a cut-off, written <version>@YYYYMMDDTHHMM")
    try:
        return f"'{dt.datetime.strptime(as_of, '%Y%m%dT%H%M').replace(tzinfo=dt.UTC).isoformat()}'"
    except ValueError as error:
        raise ConfigError(f"{key} {version!r}: {as_of!r} is not a date and time") from error


def check_source(config: DatasetConfig) -> None:
    """Raise `ConfigError` if no source plug-in reads the dataset's URI, or the plug-in refuses the options."""
    scheme = source_scheme(config.source.uri)
    if scheme not in SOURCES.names():
        raise ConfigError(
            f"dataset {config.name!r}: no source reads source.uri {config.source.uri!r} (scheme {scheme!r}); "
            f"known schemes: {', '.join(SOURCES.names())}"
        )
    try:
        _params("source.options", SOURCES.get(scheme), config.source.options)
    except ValueError as error:
        raise ConfigError(
            f"dataset {config.name!r}: {config.source.uri!r} does not take its options: {error}"
        ) from error


def source_scheme(uri: str) -> str:
    """Return the name of the plug-in for a URI: its scheme, or the lower-case file suffix of a path.

    A scheme that no plug-in has, such as `s3`, is an address of files, whose suffix decides if a plug-in reads it.
    """
    scheme, separator, path = uri.partition("://")
    suffix = Path(path if separator else uri).suffix.lower().lstrip(".")
    if not separator:
        return suffix
    return suffix if scheme not in SOURCES.names() and suffix in SOURCES.names() else scheme
