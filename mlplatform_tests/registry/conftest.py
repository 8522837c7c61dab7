"""Registries for one test each: empty ones, and copies of the stocked ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform.registry.pairs.example import example_rows
from mlplatform.settings import Settings
from mlplatform.testing.tiny_pair import TinyRegistry
from mlplatform.testing.yard import EXPERIMENT, Yard, place_database, with_registry
from mlplatform_tests.fixtures.pairs import new_run

Register = Callable[..., PairInfo]


@pytest.fixture
def empty(mlflow_database: Path, tmp_path: Path) -> Settings:
    """An installation with nothing in it but an empty model registry."""
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home")})
    place_database(mlflow_database, settings)
    return settings


@pytest.fixture
def tiny(tiny_stock: TinyRegistry, tmp_path: Path) -> TinyRegistry:
    """A copy of the tiny registry. The artifacts are not copied: leave them as they are."""
    database = tmp_path / "tiny.db"
    shutil.copy(tiny_stock.settings.mlflow_tracking_uri.removeprefix("sqlite:///"), database)
    settings = replace(tiny_stock.settings, home=tmp_path, mlflow_tracking_uri=f"sqlite:///{database}")
    return replace(tiny_stock, settings=settings)


@pytest.fixture
def settings(trained_yard: Yard, mlflow_database: Path, tmp_path: Path) -> Settings:
    """The trained installation with an empty model registry."""
    return with_registry(trained_yard.settings, tmp_path, mlflow_database)


@pytest.fixture
def store(settings: Settings) -> PairStore:
    """The empty model registry."""
    return PairStore(settings)


@pytest.fixture
def stocked(stocked_registry: Settings, tmp_path: Path) -> PairStore:
    """A copy of the stocked registry. The artifacts are not copied: leave them as they are."""
    database = tmp_path / "stocked.db"
    shutil.copy(stocked_registry.mlflow_tracking_uri.removeprefix("sqlite:///"), database)
    return PairStore(replace(stocked_registry, mlflow_tracking_uri=f"sqlite:///{database}"))


@pytest.fixture
def register(store: PairStore, forecaster: Forecaster, reference_rows: pd.DataFrame) -> Register:
    """Registers a pair, by default the trained one, in an MLflow run with the given metrics."""

    def _register(pair: Forecaster = forecaster, metrics: dict[str, float] | None = None) -> PairInfo:
        run_id = new_run(store.settings, metrics)
        example = example_rows(pair.contract, reference_rows)
        return store.register(EXPERIMENT, pair, "xgboost", run_id, example=example, tags={"split_version": "yard"})

    return _register
