"""Pairs for the registry tests, fitted on the yard's training rows, and an empty registry to put them in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.splits import read_part
from mlplatform.models.base import DirectFitModel, create_model
from mlplatform.registry.forecaster import Contract, Forecaster
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform.registry.pairs.example import example_rows
from mlplatform.registry.tracking import client_for, experiment_id
from mlplatform.settings import Settings
from mlplatform.training.cross_validation import fit_preprocessor
from mlplatform_tests.registry.tiny import TinyRegistry, tiny_forecaster
from mlplatform_tests.yard import EXPERIMENT, Yard, place_database, with_registry

Register = Callable[..., PairInfo]


def fit_forecaster(
    yard: Yard, rounds: int, first_row: int = 0, overrides: dict[str, object] | None = None
) -> Forecaster:
    """Return a pair fitted on the training rows from `first_row` on; every choice gives other bits in both halves."""
    config = yard.config.model_copy(update=overrides or {})
    frame = read_part(yard.settings, config.dataset.name, config.split.version_id, "train")
    module = create_data_module(config, frame.iloc[first_row:])
    manager = fit_preprocessor(module, np.arange(module.panel.rows))
    model = create_model(config.model.family, {**config.model.params, "num_boost_round": rounds}, module.spec(manager))
    assert isinstance(model, DirectFitModel)
    model.fit(module.samples(manager, manager.transform(module.panel), module.rows), None)
    return Forecaster(Contract.for_experiment(config, manager), manager, model)


@pytest.fixture(scope="session")
def forecaster(trained_yard: Yard) -> Forecaster:
    """The pair that the training run fitted."""
    candidate = trained_yard.candidate
    return Forecaster(Contract.for_experiment(candidate.config, candidate.manager), candidate.manager, candidate.model)


@pytest.fixture(scope="session")
def weak_forecaster(trained_yard: Yard) -> Forecaster:
    """A pair with the same contract, fitted on fewer rows for one round only."""
    return fit_forecaster(trained_yard, rounds=1, first_row=600)


@pytest.fixture(scope="session")
def reference_rows(trained_yard: Yard) -> pd.DataFrame:
    """Raw rows of the reference part, gaps and all."""
    config = trained_yard.config
    return read_part(trained_yard.settings, config.dataset.name, config.split.version_id, "reference")


@pytest.fixture
def empty(mlflow_database: Path, tmp_path: Path) -> Settings:
    """An installation with nothing in it but an empty model registry."""
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home")})
    place_database(mlflow_database, settings)
    return settings


@pytest.fixture(scope="session")
def tiny_stock(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRegistry:
    """A registry with three tiny pairs, of which none is in production; the first is another one than the others."""
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("tiny"))})
    place_database(mlflow_database, settings)
    registry = TinyRegistry.create(settings)
    for first_row in (6, 0, 0):
        registry.register(tiny_forecaster(first_row=first_row))
    return registry


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


@pytest.fixture(scope="session")
def stocked_registry(
    trained_yard: Yard,
    forecaster: Forecaster,
    weak_forecaster: Forecaster,
    reference_rows: pd.DataFrame,
    mlflow_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    """A registry with the weak pair as version 1 and the trained pair as versions 2 and 3; none is in production.

    What their MLflow runs claim about the reference set is the opposite of the truth.
    """
    settings = with_registry(trained_yard.settings, tmp_path_factory.mktemp("stocked"), mlflow_database)
    example = example_rows(forecaster.contract, reference_rows)
    for pair, claimed in ((weak_forecaster, 0.0), (forecaster, 1e9), (forecaster, 1e9)):
        run_id = new_run(settings, {"reference_mae": claimed})
        PairStore(settings).register(
            EXPERIMENT, pair, "xgboost", run_id, example=example, tags={"split_version": "yard"}
        )
    return settings


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


def new_run(settings: Settings, metrics: dict[str, float] | None = None) -> str:
    """Return the id of a new MLflow run with metrics; the naive baselines are easy to beat unless given."""
    client = client_for(settings)
    run_id = str(client.create_run(experiment_id(settings, EXPERIMENT)).info.run_id)
    easy = {f"baseline_{name}_reference_mae": 1e6 for name in ("repeat_last", "seasonal_naive")}
    for name, value in {**easy, **(metrics or {})}.items():
        client.log_metric(run_id, name, value)
    client.set_terminated(run_id)
    return run_id
