"""What several assets read and check: the run's configuration, the parts of a split, and folds that must fit it."""

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dagster import AssetExecutionContext, DataVersion

from mlplatform.config import ConfigError, ExperimentConfig
from mlplatform.datamodule import DataModule, StoredFold
from mlplatform.defs.keys import EXPERIMENT_TAG
from mlplatform.defs.resources import TrainingResource
from mlplatform.defs.versions import data_version
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from mlplatform.registry.pairs import Evidence
    from mlplatform.training import TooGood


def check_run_config(
    context: AssetExecutionContext,
    experiments: Sequence[ExperimentConfig],
    training: TrainingResource,
    settings: Settings,
) -> None:
    """Refuse a run of an experiment's job whose configuration cannot be used, before the run writes anything.

    Raises:
        ConfigError: as `TrainingResource.resolve` does.
    """
    name = context.run.tags.get(EXPERIMENT_TAG)
    if name is not None and name in {experiment.name for experiment in experiments}:
        log_versions(context, name, training, settings)


def log_versions(
    context: AssetExecutionContext, experiment: str, training: TrainingResource, settings: Settings
) -> ExperimentConfig:
    """Return the configuration of this run, and log its versions and where each comes from.

    Raises:
        ConfigError: as `TrainingResource.resolve` does.
    """
    config, sources = training.resolve(experiment, settings), training.sources(experiment, settings)
    for key, version in config.versions.items():
        context.log.info(f"{key} {version} (from: {sources[key]})")
    return config


def refuse_broken_data(
    context: AssetExecutionContext, config: ExperimentConfig, training: TrainingResource, settings: Settings
) -> None:
    """Refuse to train on rows that the newest drift report calls broken, unless the run is told to.

    Raises:
        BrokenDataError: with what is broken, and what to do.
    """
    from mlplatform.datamodule import read_manifest
    from mlplatform.monitoring.retraining import BrokenDataError, training_hold_of

    until = None
    if config.dataset.kind == "timeseries":
        parts = read_manifest(settings, config.dataset.name, config.split.version_id).parts.values()
        until = max(dt.datetime.fromisoformat(part.end) for part in parts)
    hold = training_hold_of(config, settings, until)
    if hold and not training.despite_broken_data:
        raise BrokenDataError(f"nothing is trained: {hold}")
    if hold:
        context.log.warning(f"trained all the same (despite_broken_data): {hold}")


def load_rows(config: ExperimentConfig, settings: Settings, part: str) -> "pd.DataFrame":
    """Return the rows of one part of the experiment's split version.

    Raises:
        SplitOverlapError: if rows of the training part are held out, too, so that nothing is ever fitted on them.
    """
    from mlplatform.datamodule import TRAIN, check_disjoint, read_part

    if part == TRAIN:
        check_disjoint(config.dataset, config.split.version_id, settings)
    return read_part(settings, config.dataset.name, config.split.version_id, part)


def load_part(config: ExperimentConfig, settings: Settings, part: str) -> DataModule:
    """Return the data module over one part of the experiment's split version, as `load_rows` reads it."""
    from mlplatform.datamodule import create_data_module

    return create_data_module(config, load_rows(config, settings, part))


def load_held_out(
    config: ExperimentConfig, settings: Settings, log: logging.Logger | None = None
) -> dict[str, DataModule]:
    """Return part -> data module of the parts that models are scored on, with the samples that a server can answer."""
    from mlplatform.candidates import answerable
    from mlplatform.datamodule import TRAIN, read_manifest

    manifest = read_manifest(settings, config.dataset.name, config.split.version_id)
    return {part: answerable(part, load_part(config, settings, part), log) for part in manifest.parts if part != TRAIN}


def too_good_evidence(findings: "Sequence[TooGood]") -> "Evidence":
    """Return what was found about columns that are the target in disguise, in the form in which it is kept."""
    from mlplatform.registry.pairs import Evidence

    found = [finding.evidence for finding in findings]
    return Evidence(not found, "; ".join(found) or "no column says too much about the target")


def folds_version(config: ExperimentConfig, settings: Settings) -> DataVersion:
    """Return the data version of the folds of a run, and of what is fitted on them: the same rows make the same."""
    from mlplatform.datamodule import TRAIN, read_manifest

    manifest = read_manifest(settings, config.dataset.name, config.split.version_id)
    return data_version(config.fold_digest(), manifest.parts[TRAIN].sha256)


def check_folds(config: ExperimentConfig, folds: Mapping[str, StoredFold]) -> None:
    """Refuse folds that an earlier run cut for another configuration.

    Raises:
        ConfigError: naming the folds.
    """
    stale = [key for key, stored in folds.items() if stored.config_digest != config.fold_digest()]
    if stale:
        raise ConfigError(
            f"{', '.join(stale)} of {config.name!r} were cut for another configuration than this run's; materialise "
            f"{config.name}/cv_folds and {config.name}/fold_preprocessor again with the same run configuration"
        )
