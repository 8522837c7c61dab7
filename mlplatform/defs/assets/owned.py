"""What all assets of a dataset or experiment have in common: key, group, inputs by name, partitions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from dagster import AssetIn, AssetKey, AssetsDefinition, BackfillPolicy, asset

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.keys import asset_key
from mlplatform.defs.partitions import fold_partitions


def owned_asset(
    owner: DatasetConfig | ExperimentConfig,
    name: str,
    *,
    description: str,
    kinds: Collection[str],
    reads: Sequence[str] = (),
    after: Sequence[AssetKey] = (),
    folds: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], AssetsDefinition]:
    """Return the decorator that makes a function an asset.

    Parameters:
        owner: the dataset or experiment whose group the asset is in.
        reads: assets of the same owner whose values the function takes, in parameters of their names.
        after: assets that come before, without a value.
        folds: names of the partitions; one run makes any number of them.
    """
    return asset(
        key=asset_key(owner.name, name),
        group_name=owner.name,
        description=description,
        kinds=set(kinds),
        ins={each: AssetIn(key=asset_key(owner.name, each)) for each in reads},
        deps=after,
        partitions_def=fold_partitions(folds) if folds else None,
        backfill_policy=BackfillPolicy.single_run() if folds else None,
    )
