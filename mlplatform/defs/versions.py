"""Code versions and data versions: what Dagster tells by whether an asset is out of date.

The code version of an asset is the version of this package and a digest of the part of the configuration that decides
what the asset's function does, so a changed YAML shows exactly the assets that it changes. The data version says
whether a new value is another one: rows that came out the same leave everything after them up to date.
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

from dagster import DataVersion

from mlplatform.config import AUTO, DatasetConfig, ExperimentConfig

# Dagster reads it from a materialisation that no asset reports itself; its constant is not public.
DATA_VERSION_TAG = "dagster/data_version"
# What is only said about a dataset or column, and decides nothing.
SAID = {"description", "owners", "tags", "automation"}
# What decides nothing about the rows themselves.
UNREAD = {"window_steps", "week_label"}


def code_version(decided_by: Any) -> str:
    """Return the code version of an asset.

    Parameters:
        decided_by: the part of the configuration that decides what the asset's function does, as plain values.
    """
    return f"{_package_version()}-{_digest(decided_by)[:12]}"


def data_version(*parts: Any) -> DataVersion:
    """Return the data version of a value that is what its parts, as plain values, make it."""
    return DataVersion(_digest(parts))


def raw_part(dataset: DatasetConfig) -> dict[str, Any]:
    """Return what decides how the rows of a dataset are read and validated."""
    column = {"columns": {"__all__": {"unit", "description"}}}
    return dataset.model_dump(mode="json", exclude={**dict.fromkeys((*SAID, *UNREAD), True), **column})


def table_part(dataset: DatasetConfig) -> list[Any]:
    """Return what decides how the rows of a dataset lie in the feature table and the online store."""
    types = {name: column.type for name, column in dataset.columns.items()}
    # Of a frequency that is left to the data, the period is known only after the first ingest.
    period = dataset.partition if dataset.frequency == AUTO else dataset.period
    zone = dataset.model_dump(mode="json", include={"timezone", "weekmask", "holidays"})
    part: list[Any] = [dataset.kind, dataset.frequency, period, dataset.window_steps, types]
    return [*part, zone] if zone else part


def split_part(experiment: ExperimentConfig) -> dict[str, Any]:
    """Return what decides which rows are for training and which are held out; folds are not part of it."""
    return experiment.split.model_dump(mode="json", exclude={"cv", "folds"})


def training_part(experiment: ExperimentConfig) -> list[Any]:
    """Return what decides which model comes out of an experiment's rows."""
    chosen = {"model", "tuning", "uncertainty", "metric", "extra_metrics", "baselines", "seed"}
    return [experiment.fold_digest(), experiment.model_dump(mode="json", include=chosen)]


@functools.cache
def _package_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mlplatform")
    except PackageNotFoundError:
        # The folder is on the path, but nobody installed it.
        return "0"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
