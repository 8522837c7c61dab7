"""The choice of data module by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.tabular import TabularDataModule
from mlplatform.datamodule.timeseries import TimeSeriesDataModule

if TYPE_CHECKING:
    import pandas as pd

DATA_MODULES: Mapping[str, type[DataModule]] = {
    "forecast": TimeSeriesDataModule,
    "regression": TabularDataModule,
    "classification": TabularDataModule,
}


def create_data_module(config: ExperimentConfig, frame: pd.DataFrame) -> DataModule:
    """Return the data module for the experiment's task over the rows of one split part."""
    return DATA_MODULES[config.task](config, frame)
