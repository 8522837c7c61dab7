"""Partitions: one per cross-validation fold, and one per outer fold of nested cross-validation."""

from __future__ import annotations

from dagster import StaticPartitionsDefinition

from mlplatform.config import ExperimentConfig

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def fold_partitions(config: ExperimentConfig) -> StaticPartitionsDefinition:
    """Return the fold partitions of an experiment."""
    return StaticPartitionsDefinition(list(config.split.fold_names))


def all_folds_tags(config: ExperimentConfig) -> dict[str, str]:
    """Return run tags that select every fold, so that a plain `dagster job execute` runs all of them in one run."""
    return {RANGE_START: config.split.fold_names[0], RANGE_END: config.split.fold_names[-1]}


def outer_fold_partitions(config: ExperimentConfig) -> StaticPartitionsDefinition:
    """Return the outer-fold partitions of an experiment with nested cross-validation."""
    return StaticPartitionsDefinition(list(config.nested.fold_names))


def all_outer_folds_tags(config: ExperimentConfig) -> dict[str, str]:
    """Return run tags that select every outer fold."""
    return {RANGE_START: config.nested.fold_names[0], RANGE_END: config.nested.fold_names[-1]}
