"""Data modules: from the rows of a split part to samples, truths and folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.padding import CONTEXT_COLUMN
from mlplatform.datamodule.samples import TabularSamples, WindowSamples
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.settings import Settings
from mlplatform.testing.experiments import HOURS, pump_config, pump_frame, pump_settings


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    return pump_config(pump_settings(tmp_path_factory.mktemp("pump")))


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    home = tmp_path_factory.mktemp("home")
    return load_experiment("breast_cancer_xgboost", settings=Settings.from_env({"MLPLATFORM_HOME": str(home)}))


def cancer_frame(config: ExperimentConfig, rows: int = 30) -> pd.DataFrame:
    """Rows of noise; every third is malignant, one has no diagnosis."""
    noise = np.random.default_rng(0)
    frame = pd.DataFrame(
        {name: noise.normal(size=rows).astype(np.float32) for name in config.features.columns},
    )
    labels = np.where(np.arange(rows) % 3 == 0, "malignant", "benign").astype(object)
    labels[7] = None
    moment = pd.Timestamp("2000-01-01", tz="UTC")
    return frame.assign(entity_id=np.arange(rows), event_timestamp=moment, diagnosis=labels)


def fitted(module: DataModule) -> TransformManager:
    return TransformManager.for_experiment(module.config).fit(module.panel)


def test_forecast_samples_are_windows_over_preprocessed_rows(config: ExperimentConfig) -> None:
    module = create_data_module(config, pump_frame())
    manager = fitted(module)
    transformed = manager.transform(module.panel)
    samples = module.samples(manager, transformed, module.rows[:5])
    assert isinstance(samples, WindowSamples)
    assert samples.channels == ("flow", "heat", "state")
    assert samples.targets == (1,)
    np.testing.assert_array_equal(samples.values, transformed.matrix(samples.channels))
    np.testing.assert_array_equal(module.invert(manager, samples.outputs()).shape, (5, 3, 1))


def test_forecast_truth_is_the_future_in_original_units(config: ExperimentConfig) -> None:
    module = create_data_module(config, pump_frame())
    manager = fitted(module)
    rows = module.rows[[0, 50]]
    heat = pump_frame()["heat"].to_numpy()
    expected = [[[heat[row + 1 + step]] for step in range(3)] for row in rows]
    np.testing.assert_array_equal(module.truth(manager, rows), np.array(expected, dtype=np.float32))


def test_a_perfect_forecast_inverts_to_the_truth(config: ExperimentConfig) -> None:
    module = create_data_module(config, pump_frame())
    manager = fitted(module)
    samples = module.samples(manager, manager.transform(module.panel), module.rows)
    assert isinstance(samples, WindowSamples)
    back = module.invert(manager, samples.outputs())
    np.testing.assert_allclose(back, module.truth(manager, module.rows), rtol=1e-5)


def test_samples_never_reach_across_units_holes_or_the_end(config: ExperimentConfig) -> None:
    module = create_data_module(config, pump_frame())
    heat = pump_frame()["heat"].to_numpy()
    for row in module.rows:
        assert row // HOURS == (row - 11) // HOURS == (row + 3) // HOURS
        assert np.isfinite(heat[row + 1 : row + 4]).all()
    per_unit = HOURS - 12 - 3 + 1
    spoilt = 5 + 3  # three missing hours in a row spoil five origins, a single one three
    assert len(module.rows) == 2 * per_unit - spoilt


def test_context_rows_are_looked_at_but_not_forecast(config: ExperimentConfig) -> None:
    frame = pump_frame()
    hours = frame.groupby("entity_id").cumcount()
    module = create_data_module(config, frame.assign(**{CONTEXT_COLUMN: hours < 100}))
    assert (module.rows % HOURS).min() == 99  # its first target is the first row that is not context
    every = create_data_module(config, frame).rows
    assert module.rows.tolist() == [row for row in every if row % HOURS >= 99]


def test_folds_follow_the_split_policy(config: ExperimentConfig) -> None:
    module = create_data_module(config, pump_frame())
    folds = module.folds()
    assert len(folds) == config.split.folds
    hours = folds[-1].validation % HOURS
    assert (hours.min() + 1, hours.max() + 3) == (HOURS - 24, HOURS - 1)
    mask = module.row_mask(folds[0].fit_rows)
    assert np.flatnonzero(mask).tolist() == folds[0].fit_rows.tolist()


def test_the_spec_describes_the_forecast(config: ExperimentConfig) -> None:
    module = create_data_module(config, pump_frame())
    spec = module.spec(fitted(module))
    assert (spec.task, spec.lookback, spec.horizon, spec.step_seconds) == ("forecast", 12, 3, 3600)
    assert (spec.channels, spec.targets) == (("flow", "heat", "state"), (1,))


def test_classification_samples_leave_out_rows_without_a_class(cancer: ExperimentConfig) -> None:
    module = create_data_module(cancer, cancer_frame(cancer))
    manager = fitted(module)
    assert module.rows.tolist() == [row for row in range(30) if row != 7]
    samples = module.samples(manager, manager.transform(module.panel), module.rows)
    assert isinstance(samples, TabularSamples)
    assert samples.values.shape == (29, 30)
    assert samples.classes == 2
    expected = [1.0 if row % 3 == 0 else 0.0 for row in module.rows]
    assert samples.labels.tolist() == module.truth(manager, module.rows).tolist() == expected
    assert module.spec(manager).classes == 2
    assert "diagnosis" not in samples.channels


def test_probabilities_are_not_inverted(cancer: ExperimentConfig) -> None:
    module = create_data_module(cancer, cancer_frame(cancer))
    probabilities = np.full((2, 2), 0.5, dtype=np.float32)
    assert module.invert(fitted(module), probabilities) is probabilities


def test_a_class_that_training_never_saw_is_refused_by_name(cancer: ExperimentConfig) -> None:
    frame = cancer_frame(cancer)
    manager = fitted(create_data_module(cancer, frame))
    frame.loc[3, "diagnosis"] = "unclear"
    module = create_data_module(cancer, frame)
    with pytest.raises(ValueError, match=r"'diagnosis' has the classes unclear, which do not occur in"):
        module.truth(manager, module.rows)


def test_a_scaled_regression_target_comes_back_in_original_units(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    steps = "preprocessing.steps=[{transform: scale}, {transform: scale, columns: [progression]}]"
    config = load_experiment("diabetes_xgboost", [steps], settings)
    noise = np.random.default_rng(0)
    names = (*config.features.columns, "progression")
    frame = pd.DataFrame({name: noise.normal(100, 20, 20).astype(np.float32) for name in names})
    module = create_data_module(
        config, frame.assign(entity_id=range(20), event_timestamp=pd.Timestamp("2000-01-01", tz="UTC"))
    )
    manager = fitted(module)
    samples = module.samples(manager, manager.transform(module.panel), module.rows)
    assert isinstance(samples, TabularSamples)
    assert abs(float(samples.labels.mean())) < 1e-5
    np.testing.assert_allclose(module.invert(manager, samples.labels), module.truth(manager, module.rows), rtol=1e-5)
