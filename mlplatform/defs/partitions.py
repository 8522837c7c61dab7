"""Partitions: one per cross-validation fold, and one per outer fold of nested cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

from dagster import StaticPartitionsDefinition

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def fold_partitions(names: Sequence[str]) -> StaticPartitionsDefinition:
    """Return a partition per fold."""
    return StaticPartitionsDefinition(list(names))


def all_folds_tags(names: Sequence[str]) -> dict[str, str]:
    """Return run tags that select every fold, so that a plain `dagster job execute` runs all of them in one run."""
    return {RANGE_START: names[0], RANGE_END: names[-1]}
