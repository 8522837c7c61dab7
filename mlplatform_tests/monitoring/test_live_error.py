"""The sequential test of the live error keeps its bound however often it is looked at, and sees a rise that lasts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ENTITY, TIMESTAMP, ExperimentConfig, load_experiment
from mlplatform.monitoring.error_drift import judge_errors
from mlplatform.monitoring.live_error import ErrorTest, read_error_test, write_error_test
from mlplatform.monitoring.report import ErrorDrift
from mlplatform.settings import Settings
from mlplatform.testing.joined_errors import join_log, log_forecasts

HOUR = pd.Timedelta(hours=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})


@pytest.fixture
def config(settings: Settings) -> ExperimentConfig:
    return load_experiment("fleet_xgboost", settings=settings)


def rows_of(hours: int) -> pd.DataFrame:
    times = pd.date_range("2024-01-01", periods=hours, freq="1h", tz="UTC")
    return pd.DataFrame({ENTITY: 1, TIMESTAMP: times, "top_oil_c": np.arange(hours, dtype=np.float64)})


def log_served(settings: Settings, rows: pd.DataFrame, target: str, error: float, hours: int) -> None:
    """Log predictions one step ahead, for the last hours of entity 1, all off by `error`."""
    last = rows[rows[ENTITY] == 1].tail(hours)
    times = last[TIMESTAMP].dt.tz_localize(None).to_numpy("datetime64[ns]")
    values = last[target].to_numpy()[:, None] + error
    log_forecasts(settings, "fleet_xgboost", target, times - np.timedelta64(1, "h"), times[:, None], values)


def first_alarms(errors: np.ndarray, limit: float) -> np.ndarray:
    """Return when each row of errors, one per series, first reaches the limit; the number of blocks where none does."""
    found = []
    for series in errors:
        test, alarm = ErrorTest(1, 1.0), len(series)
        for number, error in enumerate(series):
            test = test.updated(np.array([error]), "")
            if test.evidence >= limit:
                alarm = number + 1
                break
        found.append(alarm)
    return np.array(found)


def test_the_mean_time_to_a_false_alarm_is_what_is_stated() -> None:
    # Heavy-tailed errors exactly at the limit, the worst that the hypothesis allows, looked at after every block.
    generator = np.random.default_rng(0)
    errors = generator.exponential(1.0, (200, 400))
    alarms = first_alarms(errors, limit=100.0)
    # Cut off at 400 blocks the mean is less than it is, and the bound must hold all the same.
    assert alarms.mean() >= 100.0


def test_a_rise_that_lasts_is_found_and_a_good_past_does_not_hide_it() -> None:
    generator = np.random.default_rng(0)
    good, bad = generator.gamma(4.0, 0.7 / 4, (50, 300)), generator.gamma(4.0, 1.6 / 4, (50, 60))
    alarms = first_alarms(np.hstack([good, bad]), limit=730.0)
    assert (alarms > 300).all()
    assert np.median(alarms) - 300 < 40


def test_state_goes_on_where_it_was_and_belongs_to_one_champion(config: ExperimentConfig, settings: Settings) -> None:
    rows = rows_of(480)
    log_served(settings, rows, "top_oil_c", error=3.0, hours=480)
    join_log(config, settings, rows)
    newest = rows[TIMESTAMP].max()
    _, at_once = judge_errors(config, settings, 1, newest, 1.0, None)
    assert at_once is not None
    # Looked at every few hours, what has been counted is the same.
    step_by_step = None
    for hours in range(24, 481, 12):
        _, state = judge_errors(config, settings, 1, rows[TIMESTAMP].iloc[hours - 1], 1.0, step_by_step)
        assert state is not None
        write_error_test(state, settings, config.name)
        step_by_step = read_error_test(settings, config.name)
    assert step_by_step == at_once
    assert at_once.blocks == 480 * HOUR // (config.horizon * HOUR)
    _, other = judge_errors(config, settings, 2, newest, 1.0, at_once)
    assert other is not None
    assert (other.version, other.blocks) == (2, 0)


@pytest.mark.parametrize(("frequency", "horizon"), [("MS", 12), ("QS", 4), ("YS", 6), ("W-MON", 52)])
def test_forecasts_as_good_as_the_reference_are_no_drift_on_any_calendar(
    config: ExperimentConfig, settings: Settings, frequency: str, horizon: int
) -> None:
    # A year is a block there: two years are no time to be wrong once in.
    dataset = config.dataset.model_copy(update={"frequency": frequency})
    config = config.model_copy(update={"dataset": dataset, "horizon": horizon})
    times = pd.date_range("2000-01-03", "2024-12-31", freq=frequency, tz="UTC")
    rows = pd.DataFrame({ENTITY: 1, TIMESTAMP: times, "top_oil_c": np.arange(len(times), dtype=np.float64)})
    log_served(settings, rows, "top_oil_c", error=1.0, hours=len(times))
    join_log(config, settings, rows)
    errors, test = judge_errors(config, settings, 1, times[-1], 1.0, None)
    assert test is not None
    assert test.blocks >= 3
    assert not errors.is_drifted


def test_errors_are_not_tested_without_a_reference(config: ExperimentConfig, settings: Settings) -> None:
    rows = rows_of(100)
    log_served(settings, rows, "top_oil_c", 1.0, 50)
    join_log(config, settings, rows)
    errors, test = judge_errors(config, settings, 1, rows[TIMESTAMP].max(), None, None)
    assert (errors.predictions, errors.recent, errors.has_risen, test) == (50, 1.0, False, None)


def test_evidence_beyond_its_limit_is_drift_of_the_errors() -> None:
    assert ErrorDrift(100, 1.2, 1.0, 1.5, evidence=800.0, evidence_limit=730.0).is_drifted
    assert not ErrorDrift(100, 1.2, 1.0, 1.5, evidence=700.0, evidence_limit=730.0).is_drifted


@pytest.mark.parametrize(
    "damaged", ["", '{"version": 1', "null", "[]", '{"version": 1, "limit": 1.0, "sums": [1.0]}', '{"limit": 1.0}']
)
def test_a_damaged_state_is_made_again_and_a_newer_one_is_read(
    settings: Settings, caplog: pytest.LogCaptureFixture, damaged: str
) -> None:
    write_error_test(ErrorTest(1, 2.0), settings, "yard")
    path = settings.home / "monitoring" / "yard" / "error_test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"newer": 1}))
    assert read_error_test(settings, "yard") == ErrorTest(1, 2.0)
    path.write_text(damaged)
    assert read_error_test(settings, "yard") is None
    assert str(path) in caplog.text


def test_a_test_that_counted_what_is_yet_to_come_begins_anew(config: ExperimentConfig, settings: Settings) -> None:
    rows = rows_of(96)
    log_served(settings, rows, "top_oil_c", error=3.0, hours=96)
    join_log(config, settings, rows)
    newest = rows[TIMESTAMP].max()
    _, test = judge_errors(config, settings, 1, newest, 1.0, None)
    assert test is not None
    ahead = replace(test, until="2090-01-01T00:00:00+00:00")
    assert judge_errors(config, settings, 1, newest, 1.0, ahead)[1] == test
