"""A small real platform: experiments on synthetic data, with features online and pairs in the registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi import FastAPI

from mlplatform.config import DatasetConfig, ExperimentConfig, load_experiment
from mlplatform.datamodule.panel import Panel
from mlplatform.datamodule.samples import complete_origins
from mlplatform.datamodule.tabular import tabular_samples
from mlplatform.features.feast.repository import apply_dataset
from mlplatform.features.online.materialize import materialize_online
from mlplatform.models.base import DirectFitModel, ModelSpec, create_model
from mlplatform.models.calibration import Calibration
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.registry.forecaster import Contract, Forecaster
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform.registry.pairs.example import example_rows
from mlplatform.registry.tracking import client_for, experiment_id
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table
from serving.api import build_app
from serving.local import LocalBackend, Stages

TOKEN = "a-token-for-tests"
HOURS = 120
UNITS = (1, 2, 3)
START = np.datetime64("2026-01-01T00", "ns")

CONF = {
    "dataset/tiny": {
        "name": "tiny",
        "kind": "timeseries",
        "source": {"uri": "tiny.csv"},
        "time_column": "time",
        "entity_column": "unit",
        "removed_column": "scrapped",
        "frequency": "1h",
        "window_steps": 24,
        "columns": {"load": {"max": 5}, "oil": {}, "cooling": {"type": "category"}},
    },
    "dataset/tiny_rows": {
        "name": "tiny_rows",
        "kind": "tabular",
        "source": {"uri": "tiny_rows.csv"},
        "columns": {
            "width": {"min": 0, "nullable": False},
            "colour": {"type": "category"},
            "weight": {},
            "kind": {"type": "category"},
        },
    },
    "features/tiny_v1": {"version": "tiny_v1", "columns": ["load", "oil", "cooling"]},
    "features/tiny_rows_v1": {"version": "tiny_rows_v1", "columns": ["width", "colour"]},
    "split/tiny_v1": {
        "version": "tiny_v1",
        "reference_steps": 12,
        "context_steps": 24,
        "cv": {"name": "expanding", "params": {"validation_steps": 12}},
        "folds": 2,
    },
    "split/tiny_rows_v1": {
        "version": "tiny_rows_v1",
        "reference_fraction": 0.2,
        "cv": {"name": "kfold", "params": {}},
        "folds": 2,
    },
    "preprocessing/tiny": {
        "steps": [
            {"transform": "impute", "params": {"strategy": "median", "limit": 2}},
            {"transform": "scale", "params": {"method": "standard"}},
        ]
    },
    "preprocessing/tiny_rows": {"steps": [{"transform": "scale", "params": {"method": "standard"}}]},
    "model/tiny_v1": {"version": "tiny_v1", "family": "xgboost", "params": {"num_boost_round": 6}},
    "model/tiny_rows_v1": {"version": "tiny_rows_v1", "family": "xgboost_tabular", "params": {"num_boost_round": 6}},
}
FORECAST = {"task": "forecast", "targets": ["oil"], "lookback": 12, "horizon": 3, "metric": "mae"}
EXPERIMENTS = {
    "tiny_forecast": ("tiny", {**FORECAST, "baselines": [{"name": "repeat_last"}]}),
    "tiny_untrained": ("tiny", {**FORECAST, "baselines": [{"name": "repeat_last"}]}),
    "tiny_intervals": (
        "tiny",
        {**FORECAST, "baselines": [{"name": "repeat_last"}], "uncertainty": {"coverage": [0.8, 0.5, 0.95]}},
    ),
    "tiny_regression": (
        "tiny_rows",
        {"task": "regression", "targets": ["weight"], "metric": "mae", "baselines": [{"name": "dummy"}]},
    ),
    "tiny_classification": (
        "tiny_rows",
        {"task": "classification", "targets": ["kind"], "metric": "accuracy", "baselines": [{"name": "dummy"}]},
    ),
}


@dataclass(frozen=True)
class Platform:
    """The installation under test."""

    settings: Settings
    environ: dict[str, str]
    raw: pd.DataFrame

    def serving(self, experiment: str, **changes: Any) -> Settings:
        """Return settings that serve an experiment."""
        return replace(self.settings, experiment=experiment, **changes)

    def application(self, *experiments: str, **changes: Any) -> FastAPI:
        """Return an application that serves experiments, the first where a route names none.

        Parameters:
            changes: of the application's settings.
        """
        settings = self.serving(experiments[0], **changes)
        stages = Stages(settings.limits)
        return build_app({name: LocalBackend(self.serving(name), stages) for name in experiments}, settings)

    def rows(self, count: int = 14, unit: int = 1) -> list[dict[str, Any]]:
        """Return the latest raw rows of a unit, as a client would send them."""
        frame = self.raw[self.raw.entity_id == unit].tail(count)
        return [
            {
                "entity_id": int(row.entity_id),
                "event_timestamp": row.event_timestamp.isoformat(),
                "load": float(row.load),
                "oil": float(row.oil),
                "cooling": row.cooling,
            }
            for row in frame.itertuples()
        ]


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """An installation with the features of `tiny` online and a production pair for every trained experiment."""
    return platform_in(tmp_path_factory.mktemp("serving"), series())


def platform_in(home: Path, raw: pd.DataFrame) -> Platform:
    """Return an installation in a folder; its pairs are fitted on `series`, whatever the rows of `tiny` are."""
    conf = home / "conf"
    _write_conf(conf)
    environ = {
        "MLPLATFORM_HOME": str(home / "state"),
        "MLPLATFORM_CONF_DIR": str(conf),
        "MLPLATFORM_ADMIN_TOKEN": TOKEN,
    }
    settings = Settings.from_env(environ)
    put_online(raw, load_experiment("tiny_forecast", settings=settings).dataset, settings)
    put_online(table(), load_experiment("tiny_regression", settings=settings).dataset, settings)
    store = PairStore(settings)
    for name, _ in EXPERIMENTS.items():
        if name != "tiny_untrained":
            pair = register(name, settings, rounds=6)
            store.promote(name, pair.version, who="test", why="a test")
    register("tiny_forecast", settings, rounds=2)
    return Platform(settings, environ, raw)


@pytest.fixture
def fresh_pairs(platform: Platform) -> Iterator[tuple[PairInfo, PairInfo]]:
    """The two versions of `tiny_forecast`; the first is in production before and after the test."""
    store = PairStore(platform.settings)
    first, second = store.resolve("tiny_forecast", "1"), store.resolve("tiny_forecast", "2")
    yield first, second
    store.promote(first.name, first.version, who="test", why="a test")


def series() -> pd.DataFrame:
    """Return hourly rows of three units in the raw contract; unit 2 has a gap near its end."""
    noise = np.random.default_rng(0)
    frames = []
    for unit in UNITS:
        hours = np.arange(HOURS)
        load = 0.6 + 0.2 * np.sin(hours * 2 * np.pi / 24) + noise.normal(0, 0.02, HOURS)
        frame = pd.DataFrame(
            {
                "entity_id": np.int64(unit),
                "event_timestamp": pd.to_datetime(START + hours * np.timedelta64(1, "h"), utc=True),
                "load": load.astype(np.float32),
                "oil": (30 + 40 * load + unit).astype(np.float32),
                "cooling": np.where(load > 0.7, "fan", "air").astype(object),
            }
        )
        frames.append(frame)
    frames[1].loc[HOURS - 6 : HOURS - 5, "load"] = np.nan
    return pd.concat(frames, ignore_index=True)


def table() -> pd.DataFrame:
    """Return tabular rows in the raw contract."""
    count = 60
    noise = np.random.default_rng(1)
    width = noise.uniform(0, 10, count).astype(np.float32)
    colour = np.where(noise.uniform(size=count) > 0.5, "red", "blue").astype(object)
    return pd.DataFrame(
        {
            "entity_id": np.arange(count),
            "event_timestamp": pd.Timestamp("2000-01-01", tz="UTC").as_unit("ns"),
            "width": width,
            "colour": colour,
            "weight": (3 * width + (colour == "red")).astype(np.float32),
            "kind": np.where(width > 5, "large", "small").astype(object),
        }
    )


def register(name: str, settings: Settings, rounds: int) -> PairInfo:
    """Fit a tiny model of an experiment on synthetic data and register the pair."""
    config = load_experiment(name, settings=settings)
    forecaster = _forecaster(config, rounds) if config.task == "forecast" else _tabular(config, rounds)
    client = client_for(settings)
    run = client.create_run(experiment_id(settings, name))
    example = example_rows(forecaster.contract, series() if config.task == "forecast" else table())
    pair = PairStore(settings).register(name, forecaster, config.model.family, run.info.run_id, example=example)
    client.set_terminated(run.info.run_id)
    return pair


def _forecaster(config: ExperimentConfig, rounds: int) -> Forecaster:
    panel = Panel.from_frame(series(), config.features.columns)
    manager = TransformManager.for_experiment(config).fit(panel)
    contract = Contract.for_experiment(config, manager)
    spec = ModelSpec(
        task="forecast",
        channels=contract.columns,
        targets=(contract.columns.index("oil"),),
        lookback=contract.lookback,
        horizon=contract.horizon,
        step_seconds=contract.step_seconds,
    )
    model = create_model(config.model.family, {**config.model.params, "num_boost_round": rounds}, spec)
    assert isinstance(model, DirectFitModel)
    forecaster = Forecaster(contract, manager, model)
    origins = complete_origins(panel, contract.targets, contract.lookback, contract.horizon)
    samples = forecaster.windows(manager.transform(panel), origins)
    model.fit(samples, None)
    coverages = config.uncertainty.coverages
    if len(coverages) > 1:
        model.calibration = Calibration.fit([(samples, model.predict_bounds(samples, *coverages))], *coverages)
    return forecaster


def _tabular(config: ExperimentConfig, rounds: int) -> Forecaster:
    panel = Panel.from_frame(table(), list(config.dataset.columns))
    manager = TransformManager.for_experiment(config).fit(panel)
    contract = Contract.for_experiment(config, manager)
    classes = len(contract.classes)
    samples = tabular_samples(manager.transform(panel), contract.columns, config.targets[0], classes)
    spec = ModelSpec(task=config.task, channels=contract.columns, classes=classes)
    # With every row and column in every round: a few rounds must be enough to learn the table.
    params = {**config.model.params, "num_boost_round": rounds, "subsample": 1.0, "colsample_bytree": 1.0}
    model = create_model(config.model.family, params, spec)
    assert isinstance(model, DirectFitModel)
    model.fit(samples, None)
    return Forecaster(contract, manager, model)


def put_online(raw: pd.DataFrame, dataset: DatasetConfig, settings: Settings) -> None:
    """Write the feature tables of a dataset and fill the online store."""
    write_feature_table(raw, dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)


def _write_conf(folder: Path) -> None:
    """Write the configuration as JSON, which is YAML."""
    for name, values in CONF.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    for name, (group, values) in EXPERIMENTS.items():
        choices = {
            **{f"/{key}": f"{group}_v1" for key in ("features", "split", "model")},
            "/dataset": group,
            "/preprocessing": group,
            "/tuning": "none",
            "/promotion": "default",
            "/drift": "default",
        }
        document = {"defaults": [*({key: value} for key, value in choices.items()), "_self_"], "name": name, **values}
        path = folder / "experiment" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# @package _global_\n" + json.dumps(document))
