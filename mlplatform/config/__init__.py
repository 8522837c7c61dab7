"""Experiment configuration: Hydra groups composed into frozen, validated pydantic models.

One module per group, each with the rules that are about it; `loading` leads in. It composes the YAML groups under
`conf/`, checks the result and refuses, with an error that names the key, the value and what is allowed, everything that
could not work: unknown keys, wrong types, plug-ins that do not exist, and combinations that contradict each other. Code
that receives an `ExperimentConfig` never has to check it again. What a plug-in demands is not known here but asked of
the plug-in (`rules`); nothing here reads data.
"""

from mlplatform.config.base import (
    ENTITY,
    TIMESTAMP,
    ConfigError,
    Frozen,
    Period,
    PluginConfig,
    Task,
    UtcDatetime,
    time_step,
)
from mlplatform.config.dataset import ColumnConfig, DatasetConfig, SourceConfig, check_source, source_scheme
from mlplatform.config.experiment import AllowedVersions, ExperimentConfig, parse_experiment
from mlplatform.config.features import FeaturesConfig
from mlplatform.config.loading import (
    experiment_names,
    load_all_datasets,
    load_all_experiments,
    load_dataset,
    load_experiment,
    options,
)
from mlplatform.config.messages import SECRET_NAME
from mlplatform.config.model import ModelConfig, SearchDimension, check_conditions
from mlplatform.config.monitoring import DriftConfig, StalenessConfig
from mlplatform.config.preprocessing import PreprocessingConfig, StepConfig, preprocessing_context
from mlplatform.config.promotion import PromotionConfig
from mlplatform.config.split import SplitConfig
from mlplatform.config.tuning import NestedConfig, TuningConfig
from mlplatform.config.uncertainty import UncertaintyConfig, bound_levels
from mlplatform.config.versions import VERSION_GROUPS, apply_versions

__all__ = [
    "ENTITY",
    "SECRET_NAME",
    "TIMESTAMP",
    "VERSION_GROUPS",
    "AllowedVersions",
    "ColumnConfig",
    "ConfigError",
    "DatasetConfig",
    "DriftConfig",
    "ExperimentConfig",
    "FeaturesConfig",
    "Frozen",
    "ModelConfig",
    "NestedConfig",
    "Period",
    "PluginConfig",
    "PreprocessingConfig",
    "PromotionConfig",
    "SearchDimension",
    "SourceConfig",
    "SplitConfig",
    "StalenessConfig",
    "StepConfig",
    "Task",
    "TuningConfig",
    "UncertaintyConfig",
    "UtcDatetime",
    "apply_versions",
    "bound_levels",
    "check_conditions",
    "check_source",
    "experiment_names",
    "load_all_datasets",
    "load_all_experiments",
    "load_dataset",
    "load_experiment",
    "options",
    "parse_experiment",
    "preprocessing_context",
    "source_scheme",
    "time_step",
]
