"""Filling the feature store of a test, as the assets of a dataset do one after the other."""

from __future__ import annotations

import pandas as pd

from mlplatform.config import DatasetConfig
from mlplatform.features.feast.repository import apply_dataset
from mlplatform.features.online.materialize import materialize_online
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table


def fill_offline(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> None:
    """Write the feature table and register the dataset."""
    write_feature_table(raw, dataset, settings)
    apply_dataset(dataset, settings)


def fill_store(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> None:
    """Write the feature table, register the dataset and fill the online store."""
    fill_offline(raw, dataset, settings)
    materialize_online(dataset, settings)
