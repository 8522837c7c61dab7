"""The leakage check: silent on honest folds, and loud about every kind of leak it is there for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typing_extensions import override

from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.folds import Fold
from mlplatform.datamodule.panel import Int64
from mlplatform.preprocessing.base import Column, Transform
from mlplatform.settings import Settings
from mlplatform.testing.experiments import pump_config, pump_module, pump_settings
from mlplatform.training.cross_validation import fit_preprocessor, prepare_fold
from mlplatform.training.leakage import find_leaks


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    return pump_config(pump_settings(tmp_path_factory.mktemp("pump")))


@pytest.fixture
def module(config: ExperimentConfig) -> DataModule:
    return pump_module(config)


@pytest.fixture
def fold(module: DataModule) -> Fold:
    return module.folds()[0]


class FillBackward(Transform):
    """A transform that should not exist: it fills a hole with the value after it."""

    @override
    def fit(self, column: Column, name: str) -> FillBackward:
        return self

    @override
    def apply(self, column: Column, offsets: Int64) -> Column:
        return pd.Series(column.astype(np.float32)).bfill().to_numpy()

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


def test_honest_folds_pass_and_the_module_is_left_alone(module: DataModule) -> None:
    panel = module.panel
    for fold in module.folds():
        assert find_leaks(module, fold, fit_preprocessor(module, fold.fit_rows)) == []
    assert module.panel is panel


def test_honest_folds_of_a_table_pass(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    config = load_experiment("breast_cancer_xgboost", settings=settings)
    noise = np.random.default_rng(0)
    frame = pd.DataFrame({name: noise.normal(size=40).astype(np.float32) for name in config.features.columns})
    moment = pd.Timestamp("2000-01-01", tz="UTC")
    labels = np.where(np.arange(40) % 2, "malignant", "benign").astype(object)
    module = create_data_module(config, frame.assign(entity_id=np.arange(40), event_timestamp=moment, diagnosis=labels))
    fold = module.folds()[0]
    honest = fit_preprocessor(module, fold.fit_rows)
    assert find_leaks(module, fold, honest) == []
    greedy = replace(fold, fit_rows=module.rows)
    leaks = find_leaks(module, greedy, fit_preprocessor(module, greedy.fit_rows))
    assert leaks == ["validation rows are among the rows that preprocessing was fitted on"]


def test_a_preprocessor_fitted_on_all_rows_is_found(module: DataModule, fold: Fold) -> None:
    leaky = fit_preprocessor(module, np.arange(module.panel.rows))
    assert find_leaks(module, fold, leaky) == ["the fitted preprocessor changes with rows after the cut-off"]


def test_a_preprocessor_fitted_on_one_row_too_many_is_found(module: DataModule, fold: Fold) -> None:
    leaky = fit_preprocessor(module, np.append(fold.fit_rows, fold.fit_rows.max() + 1))
    assert find_leaks(module, fold, leaky) == ["the fitted preprocessor changes with rows after the cut-off"]


def test_a_transform_that_looks_ahead_is_found(module: DataModule, fold: Fold) -> None:
    # A hole in the last row that may be seen: only the future can fill it.
    hole = module.panel.columns["flow"].copy()
    hole[fold.fit_rows.max()] = np.nan
    module.panel = module.panel.with_columns({**module.panel.columns, "flow": hole})
    honest = fit_preprocessor(module, fold.fit_rows)
    honest.fitted_.insert(0, ("flow", "fill_backward", FillBackward()))
    leaks = find_leaks(module, fold, honest)
    assert "the transformed column 'flow' changes with rows after the cut-off" in leaks


def test_training_targets_beyond_the_cut_off_are_found(module: DataModule, fold: Fold) -> None:
    last = fold.train.max()
    reaching = replace(fold, train=np.append(fold.train, last + 1))
    leaks = find_leaks(module, reaching, fit_preprocessor(module, reaching.fit_rows))
    assert len(leaks) == 1
    assert leaks[0].startswith("training targets reach 2024-01-05T06:00")


def test_validation_targets_that_training_saw_are_found(module: DataModule, fold: Fold) -> None:
    early = replace(fold, validation=np.insert(fold.validation, 0, fold.train.max()))
    leaks = find_leaks(module, early, fit_preprocessor(module, early.fit_rows))
    assert len(leaks) == 1
    assert leaks[0].startswith("validation targets start at ")


def test_a_fold_is_prepared_with_the_preprocessor_it_is_given(module: DataModule, fold: Fold) -> None:
    manager = fit_preprocessor(module, fold.fit_rows)
    seen = module.panel.columns["flow"][fold.fit_rows].astype(np.float64)
    centre = next(each.state()["centre"] for name, kind, each in manager.fitted_ if (name, kind) == ("flow", "scale"))
    assert centre == pytest.approx(np.nanmean(seen))
    data = prepare_fold("fold_0", module, fold, manager)
    assert (len(data.train), len(data.validation)) == (len(fold.train), len(fold.validation))
    np.testing.assert_array_equal(data.truth, module.truth(manager, fold.validation))
    perfect = manager.transform(module.panel).columns["heat"]
    outputs = np.stack([perfect[fold.validation + 1 + step] for step in range(3)], axis=1)[:, :, None]
    assert data.score(outputs.astype(np.float32))["mae"] == pytest.approx(0, abs=1e-4)
