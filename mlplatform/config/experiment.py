"""An experiment: all groups together, the rules between them, and the one way from values to a checked one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationError, model_validator

from mlplatform.config.adaptation import AdaptationConfig
from mlplatform.config.answering import AnsweringConfig
from mlplatform.config.automation import ExperimentAutomation, Owners, Tags
from mlplatform.config.base import NAME_PATTERN, ConfigError, Frozen, PluginConfig, Task
from mlplatform.config.dataset import DatasetConfig, source_mistakes
from mlplatform.config.derived import fill_open
from mlplatform.config.features import FeaturesConfig, column_mistakes
from mlplatform.config.forecasts import ForecastsConfig
from mlplatform.config.messages import lines_of
from mlplatform.config.model import ModelConfig, search_space_mistakes
from mlplatform.config.monitoring import DriftConfig, StalenessConfig
from mlplatform.config.observation import ObservationConfig
from mlplatform.config.preprocessing import PreprocessingConfig, preprocessing_context, step_column_mistakes, step_uses
from mlplatform.config.promotion import PromotionConfig
from mlplatform.config.requests import RequestsConfig
from mlplatform.config.rules import plugin_mistakes
from mlplatform.config.split import SplitConfig, forecast_split_mistakes, tabular_split_mistakes
from mlplatform.config.truth import TruthConfig
from mlplatform.config.tuning import NestedConfig, TuningConfig
from mlplatform.config.uncertainty import UncertaintyConfig, bound_names
from mlplatform.plugins import DRIFT_TESTS, EXECUTORS, METRICS, MODELS, SPLITTERS, PluginUse


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
    truth: TruthConfig = TruthConfig()
    staleness: StalenessConfig = StalenessConfig()
    requests: RequestsConfig = RequestsConfig()
    observation: ObservationConfig = ObservationConfig()
    serving: AnsweringConfig = AnsweringConfig()
    forecasts: ForecastsConfig = ForecastsConfig()
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    nested: NestedConfig = NestedConfig()
    targets: tuple[str, ...] = Field(min_length=1)
    metric: str
    extra_metrics: tuple[str, ...] = ()
    baselines: tuple[PluginConfig, ...] = Field(min_length=1)
    lookback: int = Field(default=0, ge=0)
    history: int | None = Field(default=None, ge=1)
    horizon: int = Field(default=0, ge=0)
    seed: int = 0
    allowed: AllowedVersions = AllowedVersions()
    owners: Owners = ()
    tags: Tags = Field(default_factory=dict)
    automation: ExperimentAutomation = ExperimentAutomation()

    @model_validator(mode="before")
    @classmethod
    def _open_lengths(cls, values: Any) -> Any:
        """Spell out what follows from the dataset's frequency."""
        return fill_open(values) if isinstance(values, Mapping) else values

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

    @property
    def metrics(self) -> tuple[str, ...]:
        """The deciding metric first, then the extra ones, then those that every experiment of the task reports."""
        always = (name for name, metric in METRICS if self.task in metric.always)
        return tuple(dict.fromkeys((self.metric, *self.extra_metrics, *always)))

    @property
    def season(self) -> int:
        """Length of the season in steps, as the first baseline that has one knows it; 1 without one."""
        for baseline in self.baselines:
            family = MODELS.get(baseline.name)
            season = family.season(family.Params.model_validate(baseline.params))
            if season is not None:
                return season
        return 1

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

    @property
    def reach(self) -> int:
        """Steps of the past that a forecast reads where they are there: the lookback, or the history behind it, too."""
        return max(self.lookback, self.history or 0)

    def fold_digest(self) -> str:
        """SHA-256 of the parts that folds and fold preprocessors depend on."""
        parts = {"dataset", "features", "split", "preprocessing", "targets", "task", "lookback", "horizon"}
        # What is only said about a dataset, and which rows may come in, change no fold of the rows that are there.
        said = {
            "dataset": {"owners", "tags", "automation", "removed_column", "future_tolerance", "max_gap"},
            "split": {"min_observed_share"},
        }
        values = self.model_dump(mode="json", include=parts, exclude=said)
        if self.dataset.entity_type == "auto":
            # As ids were made before there was the setting; folds and studies of then stay valid.
            del values["dataset"]["entity_type"]
        if self.features.calendar is None:
            del values["features"]["calendar"]
        if self.preprocessing.scaling == "none":
            del values["preprocessing"]["scaling"]
        if self.history is not None:
            values["history"] = self.history
        # Digests of folds that were stored before there was a choice are those of today's default.
        if self.split.membership == "identity":
            del values["split"]["membership"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def parse_experiment(values: Any, name: str | None = None) -> ExperimentConfig:
    """Return the checked configuration that plain values describe: the only way to one that can be relied on.

    Parameters:
        values: of an experiment, composed from YAML or as a run stored them.
        name: what errors call it; default: by its own name.

    Raises:
        ConfigError: with everything that is wrong. Rules between groups are judged once all groups are sound.
    """
    name = name or (values.get("name") if isinstance(values, Mapping) else None)
    try:
        config = ExperimentConfig.model_validate(values)
        mistakes = list(experiment_mistakes(config))
    except ValidationError as error:
        mistakes = lines_of(error, ExperimentConfig)
    if mistakes:
        raise ConfigError.of(f"experiment {name!r}", mistakes)
    return config


def experiment_mistakes(config: ExperimentConfig) -> Iterator[str]:
    """Yield what contradicts each other in an experiment whose groups are sound, each on its own."""
    dataset = config.dataset
    yield from source_mistakes(dataset)
    yield from column_mistakes(config.features, config.targets, config.task, dataset.columns, dataset.name)
    yield from step_column_mistakes(config.preprocessing, dataset)
    yield from plugin_mistakes(plugin_uses(config), config, config.task)
    yield from search_space_mistakes(config.model)
    group_by = config.drift.group_by
    if group_by not in (None, "entity", *dataset.columns):
        yield (
            f"drift.group_by is {group_by!r}, which is no column of dataset {dataset.name!r} "
            f"({', '.join(dataset.columns)}); name one, or 'entity' for each alone, or null"
        )
    yield from _forecast_mistakes(config) if config.task == "forecast" else _tabular_mistakes(config)
    if config.name == dataset.name:
        yield f"name {config.name!r} is also the name of its dataset; asset keys would collide"


def plugin_uses(config: ExperimentConfig) -> Iterator[PluginUse]:
    """Yield every plug-in that an experiment names, beside its dataset's source."""
    model, cv = config.model, config.split.cv
    yield PluginUse(MODELS, "model.family", model.family, "model.params", model.params)
    yield PluginUse(EXECUTORS, "tuning.executor", config.tuning.executor)
    for baseline in config.baselines:
        yield PluginUse(MODELS, "baselines", baseline.name, f"baselines.{baseline.name}.params", baseline.params)
    yield PluginUse(METRICS, "metric", config.metric)
    for metric in config.extra_metrics:
        yield PluginUse(METRICS, "extra_metrics", metric)
    yield PluginUse(SPLITTERS, "split.cv.name", cv.name, "split.cv.params", cv.params)
    yield from step_uses(config.preprocessing)
    yield PluginUse(DRIFT_TESTS, "drift.test", config.drift.test)


def _forecast_mistakes(config: ExperimentConfig) -> Iterator[str]:
    dataset = config.dataset
    if config.truth.labels_from_dataset:
        yield "truth.labels_from_dataset is set, but is about tables; the truth of forecasts is always in the dataset"
    if dataset.kind != "timeseries":
        yield f"task 'forecast' needs a dataset of kind timeseries, but {dataset.name!r} is {dataset.kind}"
    for key in ("lookback", "horizon"):
        if getattr(config, key) < 1:
            yield f"{key} must be at least 1 for task 'forecast', but is {getattr(config, key)}"
    yield from _forecast_target_mistakes(config)
    if config.history is not None and config.history < config.lookback:
        yield (
            f"history {config.history} is shorter than lookback {config.lookback}, which is part of it; leave it out, "
            "or make it longer"
        )
    try:
        context = preprocessing_context(config.preprocessing)
    except ValueError:
        context = 0  # a step that cannot be made is told of by the rules of plug-ins
    scaling = config.preprocessing.scaling
    if config.reach > config.lookback and scaling != "window":
        yield (
            f"history {config.history} may be missing in part, which preprocessing.scaling {scaling!r} fills with "
            "constants; use preprocessing.scaling: window, or leave history out"
        )
    reach = f"history {config.history}" if config.history else f"lookback {config.lookback}"
    if config.reach + context > dataset.window_steps:
        yield (
            f"{reach} and {context} steps of preprocessing context exceed "
            f"dataset.window_steps {dataset.window_steps} of {dataset.name!r}"
        )
    yield from forecast_split_mistakes(config.split, reach, config.reach + context, context, config.horizon)


def _forecast_target_mistakes(config: ExperimentConfig) -> Iterator[str]:
    dataset = config.dataset
    for target in dict.fromkeys(config.targets):
        if target not in dataset.columns:
            continue
        if dataset.columns[target].type != "float":
            yield f"targets names {target!r}, which is categorical; a forecast target must be of type float"
        if target not in config.features.columns:
            yield (
                f"targets names {target!r}, which is not among features.columns "
                f"({', '.join(config.features.columns)}); a forecast reads the history of its targets"
            )
    ends = [end for both in bound_names(config.uncertainty.coverages).values() for end in both]
    bounds = {f"{target}{end}": target for target in config.targets for end in ends}
    for target in config.targets:
        if target in bounds:
            yield (
                f"targets names {target!r}, as the interval of target {bounds[target]!r} is called in tables of "
                "answers; rename the column in the source, or make no intervals (uncertainty.coverage: null)"
            )


def _tabular_mistakes(config: ExperimentConfig) -> Iterator[str]:
    dataset = config.dataset
    if config.truth.labels_from_dataset and dataset.entity_column is None:
        yield (
            f"truth.labels_from_dataset is set, but dataset {dataset.name!r} has no entity_column by which its rows "
            "could belong to predictions; send labels to POST /feedback instead"
        )
    if config.history is not None:
        yield "history is set, but is about series; rows of a table have none"
    if config.serving.fallback != "none":
        yield f"serving.fallback is {config.serving.fallback!r}, but only a forecast can fall back; leave it out"
    if dataset.kind != "tabular":
        yield f"task {config.task!r} needs a dataset of kind tabular, but {dataset.name!r} is timeseries"
    if len(config.targets) != 1:
        yield f"targets must name one column for task {config.task!r}, but names {', '.join(config.targets)}"
    wanted = "category" if config.task == "classification" else "float"
    for target in config.targets if len(config.targets) == 1 else ():
        found = dataset.columns[target].type if target in dataset.columns else wanted
        if found != wanted:
            yield f"targets names {target!r} of type {found}; task {config.task!r} needs a target of type {wanted}"
        if target in config.features.columns:
            yield f"features.columns contains the target {target!r}; the model would read its own answer"
    yield from tabular_split_mistakes(config.split, config.task, dataset)
