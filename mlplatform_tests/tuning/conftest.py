"""The pump experiment, shared by the tests of the search."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlplatform.config import ExperimentConfig
from mlplatform.settings import Settings
from mlplatform.testing.experiments import prepare_folds, pump_config, pump_module, pump_settings
from mlplatform.training.cross_validation import FoldData


@pytest.fixture(scope="session")
def pump_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning") / "pump"
    pump_settings(folder)
    return folder


@pytest.fixture(scope="session")
def settings(pump_folder: Path) -> Settings:
    from mlplatform.testing.search_process import settings_in

    return settings_in(pump_folder)


@pytest.fixture(scope="session")
def config(settings: Settings) -> ExperimentConfig:
    return pump_config(settings)


@pytest.fixture(scope="session")
def folds(config: ExperimentConfig) -> list[FoldData]:
    return prepare_folds(pump_module(config))
