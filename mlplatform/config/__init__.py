"""Experiment configuration: Hydra groups composed into frozen, validated pydantic models.

Here: one module per group with the rules about it, loading, and versions. Code that receives an `ExperimentConfig`
never has to check it again.
Not here: what a plug-in demands, which the plug-in is asked (`rules`); paths and addresses (`settings`); any data.
"""

from mlplatform.config.adaptation import AdaptationConfig
from mlplatform.config.alerts import ALERT_EVENTS, AlertChannel, AlertEvent, AlertsConfig, QuietHours
from mlplatform.config.answering import AnsweringConfig, ChallengerConfig
from mlplatform.config.automation import DatasetAutomation, ExperimentAutomation
from mlplatform.config.base import (
    ENTITY,
    NAME_PATTERN,
    TIMESTAMP,
    ConfigError,
    Frozen,
    Period,
    PluginConfig,
    Task,
    UtcDatetime,
    time_step,
)
from mlplatform.config.check import Listing, check_all
from mlplatform.config.dataset import (
    RESERVED_NAMES,
    ColumnConfig,
    DatasetConfig,
    EntityType,
    TimeUnit,
    check_source,
    gap_allowed,
)
from mlplatform.config.derived import FOLDS, Lengths
from mlplatform.config.experiment import AllowedVersions, ExperimentConfig, parse_experiment
from mlplatform.config.features import CalendarConfig, FeaturesConfig
from mlplatform.config.forecasts import ForecastDatabase, ForecastsConfig
from mlplatform.config.found import AUTO, FoundFrequency, read_found, write_found
from mlplatform.config.loading import (
    experiment_names,
    explain_experiment,
    load_alerts,
    load_all_datasets,
    load_all_experiments,
    load_dataset,
    load_experiment,
    load_serving,
    options,
    require_experiments,
)
from mlplatform.config.messages import SECRET_NAME
from mlplatform.config.model import ModelConfig, SearchDimension, check_conditions
from mlplatform.config.monitoring import DriftConfig, StalenessConfig
from mlplatform.config.observation import ObservationConfig
from mlplatform.config.preprocessing import PreprocessingConfig, StepConfig, preprocessing_context
from mlplatform.config.promotion import PromotionConfig
from mlplatform.config.requests import RequestsConfig
from mlplatform.config.retraining import RetrainConfig
from mlplatform.config.serving import DEPLOYMENTS, INGRESS, AutoscalingConfig, DeploymentConfig, ServingConfig
from mlplatform.config.source import SourceConfig, source_scheme
from mlplatform.config.split import SplitConfig
from mlplatform.config.tuning import NestedConfig, TuningConfig
from mlplatform.config.uncertainty import UncertaintyConfig, bound_levels, bound_names, percent
from mlplatform.config.versions import VERSION_GROUPS, apply_versions

__all__ = [
    "ALERT_EVENTS",
    "AUTO",
    "DEPLOYMENTS",
    "ENTITY",
    "FOLDS",
    "INGRESS",
    "NAME_PATTERN",
    "RESERVED_NAMES",
    "SECRET_NAME",
    "TIMESTAMP",
    "VERSION_GROUPS",
    "AdaptationConfig",
    "AlertChannel",
    "AlertEvent",
    "AlertsConfig",
    "AllowedVersions",
    "AnsweringConfig",
    "AutoscalingConfig",
    "CalendarConfig",
    "ChallengerConfig",
    "ColumnConfig",
    "ConfigError",
    "DatasetAutomation",
    "DatasetConfig",
    "DeploymentConfig",
    "DriftConfig",
    "EntityType",
    "ExperimentAutomation",
    "ExperimentConfig",
    "FeaturesConfig",
    "ForecastDatabase",
    "ForecastsConfig",
    "FoundFrequency",
    "Frozen",
    "Lengths",
    "Listing",
    "ModelConfig",
    "NestedConfig",
    "ObservationConfig",
    "Period",
    "PluginConfig",
    "PreprocessingConfig",
    "PromotionConfig",
    "QuietHours",
    "RequestsConfig",
    "RetrainConfig",
    "SearchDimension",
    "ServingConfig",
    "SourceConfig",
    "SplitConfig",
    "StalenessConfig",
    "StepConfig",
    "Task",
    "TimeUnit",
    "TuningConfig",
    "UncertaintyConfig",
    "UtcDatetime",
    "apply_versions",
    "bound_levels",
    "bound_names",
    "check_all",
    "check_conditions",
    "check_source",
    "experiment_names",
    "explain_experiment",
    "gap_allowed",
    "load_alerts",
    "load_all_datasets",
    "load_all_experiments",
    "load_dataset",
    "load_experiment",
    "load_serving",
    "options",
    "parse_experiment",
    "percent",
    "preprocessing_context",
    "read_found",
    "require_experiments",
    "source_scheme",
    "time_step",
    "write_found",
]
