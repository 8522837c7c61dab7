"""What all assets of a dataset or experiment have in common, in Dagster's words.

Key, group, owners and tags are those of the dataset or experiment; inputs go by name; the code version follows from the
part of the configuration that decides what the asset does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from dagster import AssetIn, AssetKey, AssetsDefinition, BackfillPolicy, FreshnessPolicy, PartitionsDefinition, asset

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.keys import asset_key
from mlplatform.defs.partitions import day_partitions, fold_partitions
from mlplatform.defs.versions import code_version

# A shorter window Dagster does not take.
DAGSTERS_LEAST_WINDOW = dt.timedelta(minutes=1)


def owned_asset(
    owner: DatasetConfig | ExperimentConfig,
    name: str,
    *,
    description: str,
    kinds: Collection[str],
    decided_by: Any = None,
    reads: Sequence[str] = (),
    after: Sequence[AssetKey] = (),
    folds: Sequence[str] = (),
    days_from: dt.date | None = None,
    metadata: Mapping[str, Any] | None = None,
    freshness: FreshnessPolicy | None = None,
) -> Callable[[Callable[..., Any]], AssetsDefinition]:
    """Return the decorator that makes a function an asset.

    Parameters:
        owner: the dataset or experiment whose group the asset is in.
        kinds: at most three, of those that the Dagster page has pictures for.
        decided_by: the part of the configuration, as plain values, that decides what the function does beside its
            inputs and the package's version.
        reads: assets of the same owner whose values the function takes, in parameters of their names.
        after: assets that come before, without a value.
        folds: names of the partitions; one run makes any number of them.
        days_from: the first of the days that are the partitions; one run makes any number of them.
    """
    partitions: PartitionsDefinition[Any] | None = fold_partitions(folds) if folds else None
    if days_from is not None:
        partitions = day_partitions(days_from)
    return asset(
        key=asset_key(owner.name, name),
        group_name=owner.name,
        owners=list(owner.owners),
        tags=owner.tags,
        description=description,
        kinds=set(kinds),
        code_version=code_version(decided_by),
        metadata=metadata,
        freshness_policy=freshness,
        ins={each: AssetIn(key=asset_key(owner.name, each)) for each in reads},
        deps=after,
        partitions_def=partitions,
        backfill_policy=BackfillPolicy.single_run() if partitions else None,
    )


def freshness_of(experiments: Sequence[ExperimentConfig]) -> FreshnessPolicy | None:
    """Return the policy of data that nothing wrote for so long that an experiment certainly finds them too old.

    Parameters:
        experiments: those on the dataset; the one that puts up with the least age decides.
    """
    limits = [experiment.staleness.limit for experiment in experiments if experiment.staleness.limit is not None]
    return FreshnessPolicy.time_window(max(min(limits), DAGSTERS_LEAST_WINDOW)) if limits else None
