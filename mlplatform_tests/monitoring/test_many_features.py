"""Many features, and skewed ones: what is asked of each beside the others says no more than chance does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter
from scipy.stats import skew

from mlplatform.config import ENTITY, TIMESTAMP, ExperimentConfig, load_experiment
from mlplatform.monitoring.drift import build_report
from mlplatform.monitoring.report import DriftReport, ErrorDrift
from mlplatform.monitoring.statistics import independent, made_even
from mlplatform.settings import Settings

WEEK = 168
NOTHING_SERVED = ErrorDrift(0, None, None, 1.5)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    """The fleet with forty numeric features."""
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("home"))})
    base = load_experiment("fleet_xgboost", settings=settings)
    columns = {f"x{number}": base.dataset.columns["load_pu"] for number in range(40)}
    dataset = base.dataset.model_copy(update={"columns": columns})
    features = base.features.model_copy(update={"columns": tuple(columns)})
    return base.model_copy(update={"dataset": dataset, "features": features, "targets": ("x0",)})


def remembering(seed: int, memory: float, steps: int, features: int = 40) -> np.ndarray:
    """Return AR(1) series of unit variance, of shape (steps, features)."""
    shocks = np.random.default_rng(seed).standard_normal((steps + 1000, features)) * np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], shocks, axis=0)[1000:]


def report_on(config: ExperimentConfig, values: np.ndarray) -> DriftReport:
    """Return the report on the last week of hourly series."""
    times = pd.date_range("2024-01-01", periods=len(values), freq="1h", tz="UTC")
    columns = {f"x{number}": values[:, number] for number in range(values.shape[1])}
    rows = pd.DataFrame({ENTITY: 1, TIMESTAMP: times, **columns})
    return build_report(config, 1, rows.iloc[:-WEEK], rows, NOTHING_SERVED)


def test_forty_features_with_nothing_in_common_explain_none_of_each_other(config: ExperimentConfig) -> None:
    reports = [report_on(config, remembering(seed, 0.97, 13 * WEEK)) for seed in range(6)]
    # The best seven of thirty-nine columns explained most of anything, and every such report was an alarm.
    assert sum(bool(report.suspects) for report in reports) <= 1


def test_what_two_of_forty_have_in_common_shows_a_change_of_one(config: ExperimentConfig) -> None:
    found = 0
    for seed in range(3):
        values = remembering(10 + seed, 0.9, 27 * WEEK)
        values[:, 1] = values[:, 0] + 0.2 * values[:, 1]
        values[-WEEK:, 1] += 0.5
        report = report_on(config, values)
        kinds = {feature.column: feature.kinds for feature in report.features}
        found += "level beside the others" in kinds["x1"]
    assert found >= 2


def test_a_feature_that_is_away_hides_no_change_of_another(config: ExperimentConfig) -> None:
    values = remembering(30, 0.9, 27 * WEEK)
    values[:, 1] = values[:, 0] + 0.2 * values[:, 1]
    values[-WEEK:, 1] += 0.8
    values[-WEEK:, 5] = np.nan
    kinds = {feature.column: feature.kinds for feature in report_on(config, values).features}
    assert "level beside the others" in kinds["x1"]


def test_skewed_blocks_are_made_even_and_others_left_as_they_are() -> None:
    training = np.arange(300)
    normal = np.random.default_rng(1).standard_normal(307)
    skewed = np.exp(0.6 * normal)
    assert skew(skewed[training]) > 1.5
    assert abs(skew(made_even(skewed, training)[training])) < 0.3
    assert np.corrcoef(made_even(normal, training), normal)[0, 1] > 0.999


@pytest.mark.parametrize("values", [np.full(50, 3.0), np.arange(6.0) ** 3, np.full(50, np.nan)])
def test_what_says_nothing_of_skew_stays_as_it_is(values: np.ndarray) -> None:
    np.testing.assert_array_equal(made_even(values, np.arange(len(values))), values)


def test_values_that_remember_count_for_fewer() -> None:
    noise = np.random.default_rng(2).standard_normal(4000)
    assert independent(noise) == pytest.approx(4000, rel=0.1)
    assert independent(lfilter([1.0], [1.0, -0.9], noise)) == pytest.approx(4000 * 0.1 / 1.9, rel=0.2)
