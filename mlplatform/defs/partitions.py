"""Partitions: one per fold of cross-validation, plain or nested, and one per day that is reported on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from dagster import DailyPartitionsDefinition, StaticPartitionsDefinition

PARTITION = "dagster/partition"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def fold_partitions(names: Sequence[str]) -> StaticPartitionsDefinition:
    """Return a partition per fold."""
    return StaticPartitionsDefinition(list(names))


def all_folds_tags(names: Sequence[str]) -> dict[str, str]:
    """Return run tags that select every fold, so that a plain `dagster job execute` runs all of them in one run."""
    return {RANGE_START: names[0], RANGE_END: names[-1]}


def day_partitions(first: dt.date) -> DailyPartitionsDefinition:
    """Return a partition per day in UTC, the present one included."""
    return DailyPartitionsDefinition(first.isoformat(), timezone="UTC", end_offset=1)


def day_tags(moment: dt.datetime) -> dict[str, str]:
    """Return run tags that select the day of a moment."""
    return {PARTITION: moment.astimezone(dt.UTC).date().isoformat()}
