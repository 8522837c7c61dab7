"""What the training run of a registered pair recorded: its configuration and the data it used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from mlplatform.config import ConfigError, ExperimentConfig, parse_experiment
from mlplatform.registry.pairs import PairInfo, PairStore

CONFIG_FILE = "config.yaml"


class RecordError(LookupError):
    """A training run that lacks what is needed to repeat it."""


@dataclass(frozen=True)
class TrainingRecord:
    """The record of one training run.

    Attributes:
        config: the configuration as it was resolved.
        sha256: split part -> SHA-256 of its Parquet file.
        dvc: split part -> DVC hash (MD5) of its Parquet file.
        metrics: scores by MLflow name.
    """

    config: ExperimentConfig
    sha256: Mapping[str, str]
    dvc: Mapping[str, str]
    metrics: Mapping[str, float]


def read_record(store: PairStore, info: PairInfo) -> TrainingRecord:
    """Return what the pair's MLflow run recorded.

    Raises:
        RecordError: if the run has no configuration, or one that this code does not understand.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    run = store.client.get_run(info.run_id)
    where = f"MLflow run {info.run_id} of {info.name} version {info.version}"
    try:
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{CONFIG_FILE}")
    except (MlflowException, OSError) as error:
        raise RecordError(f"{where} has no {CONFIG_FILE}: {error}") from error
    try:
        config = parse_experiment(_dated(yaml.safe_load(text)))
    except (ConfigError, yaml.YAMLError) as error:
        raise RecordError(f"{where} has a {CONFIG_FILE} that this code does not understand: {error}") from error
    tags = run.data.tags
    return TrainingRecord(
        config=config,
        sha256={key[len("data.") : -len(".sha256")]: value for key, value in tags.items() if _is_hash(key)},
        dvc={key.removeprefix("dvc."): value for key, value in tags.items() if key.startswith("dvc.")},
        metrics=run.data.metrics,
    )


def _dated(values: Any) -> Any:
    """Return a recorded configuration with what it meant when it was recorded: before `membership`, by position."""
    match values:
        case {"split": {"version": _} as split}:
            return {**values, "split": {"membership": "position", **split}}
    return values


def _is_hash(key: str) -> bool:
    return key.startswith("data.") and key.endswith(".sha256")
