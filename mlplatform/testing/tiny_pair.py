"""A tiny pair on synthetic rows, made in milliseconds and without a training run, and a registry to put it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, StepConfig
from mlplatform.datamodule.panel import Panel
from mlplatform.datamodule.samples import complete_origins
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import DirectFitModel, create_model
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.registry.forecaster import Contract, Forecaster
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform.registry.pairs.example import example_rows
from mlplatform.registry.tracking import client_for, experiment_id
from mlplatform.settings import Settings

NAME, FAMILY = "tiny", "xgboost"
COLUMNS = ("load", "oil", "cooling")
LOOKBACK, HORIZON, CONTEXT = 6, 3, 2


def tiny_rows(hours: int = 48) -> pd.DataFrame:
    """Return hourly rows of two units, with a gap and a category."""
    noise = np.random.default_rng(0)
    frames = []
    for unit in (1, 2):
        load = 0.6 + 0.2 * np.sin(np.arange(hours) / 4) + noise.normal(0, 0.02, hours)
        frame = pd.DataFrame(
            {
                ENTITY: np.int64(unit),
                TIMESTAMP: pd.date_range("2026-01-01", periods=hours, freq="1h", tz="UTC", unit="ns"),
                "load": load.astype(np.float32),
                "oil": (30 + 40 * load + unit).astype(np.float32),
                "cooling": np.where(load > 0.7, "fan", "air").astype(object),
            }
        )
        frames.append(frame)
    frames[1].loc[hours - 5, "load"] = np.nan
    return pd.concat(frames, ignore_index=True)


def tiny_forecaster(rounds: int = 4, family: str = FAMILY, first_row: int = 0) -> Forecaster:
    """Return a fitted pair. Rounds change the bits of the model, the first row those of the preprocessor."""
    rows = tiny_rows().groupby(ENTITY).tail(48 - first_row)
    panel = Panel.from_frame(rows, COLUMNS)
    steps = [
        StepConfig(transform="label_encoding", columns=("cooling",)),
        StepConfig(transform="impute", columns=("load", "oil"), params={"strategy": "median", "limit": CONTEXT}),
        StepConfig(transform="scale", columns=("load", "oil"), params={"method": "standard"}),
    ]
    manager = TransformManager(steps, {"load": "float", "oil": "float", "cooling": "category"}).fit(panel)
    contract = Contract("tiny", "forecast", "tiny", COLUMNS, ("oil",), LOOKBACK, manager.context, HORIZON, 3600)
    spec = ModelSpec("forecast", COLUMNS, (COLUMNS.index("oil"),), LOOKBACK, HORIZON, step_seconds=3600)
    model = create_model(family, {"num_boost_round": rounds} if family == FAMILY else {}, spec)
    assert isinstance(model, DirectFitModel)
    forecaster = Forecaster(contract, manager, model)
    origins = complete_origins(panel, contract.targets, LOOKBACK, HORIZON)
    model.fit(forecaster.windows(manager.transform(panel), origins), None)
    return forecaster


@dataclass(frozen=True)
class TinyRegistry:
    """A registry below a folder, and one MLflow run in it that all pairs claim to come from."""

    settings: Settings
    run_id: str

    @classmethod
    def create(cls, settings: Settings) -> TinyRegistry:
        """Return a registry in the installation of these settings."""
        client = client_for(settings)
        return cls(settings, str(client.create_run(experiment_id(settings, NAME)).info.run_id))

    @property
    def store(self) -> PairStore:
        """A store of its own connection."""
        return PairStore(self.settings)

    def register(self, forecaster: Forecaster, family: str = FAMILY, **options: Any) -> PairInfo:
        """Register a pair with an example of the synthetic rows."""
        example = example_rows(forecaster.contract, tiny_rows())
        return self.store.register(NAME, forecaster, family, self.run_id, example=example, **options)
