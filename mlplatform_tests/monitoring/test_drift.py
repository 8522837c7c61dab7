"""Drift reports: quiet on autocorrelated data that has not changed, loud when features or served errors have."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from mlplatform.config import ENTITY, TIMESTAMP, ExperimentConfig, ObservationConfig, load_experiment
from mlplatform.data import TIMELESS
from mlplatform.monitoring.drift import build_report
from mlplatform.monitoring.kept_reports import FIRST_FORM, read_report, read_reports, write_report
from mlplatform.monitoring.prediction_log import PredictionLog, ServedPredictions
from mlplatform.monitoring.report import DriftReport, ErrorDrift, FeatureDrift
from mlplatform.settings import Settings
from mlplatform.testing.joined_errors import errors_in

TRAIN_STEPS, RECENT_STEPS = 4000, 168
MEMORY = 0.9
SEEDS = range(30)
HOUR = np.timedelta64(1, "h")
NOTHING_SERVED = ErrorDrift(0, None, None, 1.5)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("home"))})


@pytest.fixture(scope="module")
def config(settings: Settings) -> ExperimentConfig:
    """The fleet with one numeric and one categorical feature."""
    config = load_experiment("fleet_xgboost", settings=settings)
    features = config.features.model_copy(update={"columns": ("top_oil_c", "cooling")})
    return config.model_copy(update={"features": features})


def with_policy(config: ExperimentConfig, **drift: Any) -> ExperimentConfig:
    return config.model_copy(update={"drift": config.drift.model_copy(update=drift)})


def history(seed: int, steps: int = TRAIN_STEPS + RECENT_STEPS, entities: int = 1) -> pd.DataFrame:
    """Return stationary AR(1) series of unit variance in canonical form."""
    shocks = np.random.default_rng(seed).standard_normal((entities, steps)) * np.sqrt(1 - MEMORY**2)
    series = lfilter([1.0], [1.0, -MEMORY], shocks, axis=1)
    return pd.DataFrame(
        {
            ENTITY: np.repeat(np.arange(1, entities + 1), steps),
            TIMESTAMP: np.tile(pd.date_range("2024-01-01", periods=steps, freq="1h", tz="UTC"), entities),
            "top_oil_c": series.ravel().astype(np.float32),
            "cooling": "ONAN",
        }
    )


def report_on(config: ExperimentConfig, rows: pd.DataFrame, **arguments: Any) -> DriftReport:
    """Return a report that compares the newest rows with all before them."""
    newest = rows[TIMESTAMP].max() - RECENT_STEPS * pd.Timedelta(hours=1)
    defaults = {"errors": NOTHING_SERVED, "pair_version": 1}
    return build_report(config, train=rows[rows[TIMESTAMP] <= newest], history=rows, **(defaults | arguments))


def shifted(rows: pd.DataFrame, shift: float) -> pd.DataFrame:
    recent = rows[TIMESTAMP] > rows[TIMESTAMP].max() - RECENT_STEPS * pd.Timedelta(hours=1)
    return rows.assign(top_oil_c=rows["top_oil_c"] + np.float32(shift) * recent.astype(np.float32))


@pytest.mark.parametrize("test", ["wasserstein", "kolmogorov_smirnov"])
def test_stationary_autocorrelated_data_hardly_ever_drifts(config: ExperimentConfig, test: str) -> None:
    asked = with_policy(config, test=test)
    alarms = sum(report_on(asked, history(seed)).is_drifted for seed in SEEDS)
    assert alarms <= 0.1 * len(SEEDS)


def test_textbook_thresholds_would_fire_all_the_time() -> None:
    from scipy.stats import ks_2samp

    rows = [history(seed)["top_oil_c"].to_numpy() for seed in SEEDS]
    alarms = sum(ks_2samp(series[:TRAIN_STEPS], series[TRAIN_STEPS:]).pvalue < 0.05 for series in rows)
    assert alarms > 0.5 * len(SEEDS)


@pytest.mark.parametrize("test", ["wasserstein", "kolmogorov_smirnov"])
@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_a_shift_of_the_mean_is_found(config: ExperimentConfig, test: str, shift: float) -> None:
    asked = with_policy(config, test=test)
    for seed in SEEDS[:5]:
        report = report_on(asked, shifted(history(seed), shift))
        assert report.causes == ("feature:top_oil_c",)


def test_entities_are_judged_together(config: ExperimentConfig) -> None:
    rows = history(0, entities=3)
    assert not report_on(config, rows).is_drifted
    assert report_on(config, shifted(rows, 3.0)).is_drifted


def test_every_feature_is_compared_and_the_report_says_up_to_when(config: ExperimentConfig) -> None:
    report = report_on(config, history(0))
    assert [drift.column for drift in report.features] == ["top_oil_c", "cooling"]
    assert report.data_until == "2024-06-22T15:00:00+00:00"
    assert report.split_version == config.split.version_id


def test_a_report_on_a_table_says_how_many_rows_there_were(config: ExperimentConfig, settings: Settings) -> None:
    of_table = load_experiment("diabetes_xgboost", settings=settings)
    values = np.random.default_rng(0).normal(size=(700, len(of_table.features.columns))).astype(np.float32)
    rows = pd.DataFrame(values, columns=list(of_table.features.columns))
    rows = rows.assign(**{ENTITY: np.arange(700), TIMESTAMP: pd.Timestamp(TIMELESS, tz="UTC")})
    assert build_report(of_table, 1, rows.head(500), rows, NOTHING_SERVED).rows == 700
    assert report_on(config, history(0)).rows is None


def test_missing_values_do_not_count_and_a_dead_sensor_is_broken_not_drifted(config: ExperimentConfig) -> None:
    rows = history(0)
    holes = rows.assign(top_oil_c=rows["top_oil_c"].where(np.arange(len(rows)) % 7 > 0))
    assert not report_on(config, holes).is_drifted
    dead = rows.assign(top_oil_c=rows["top_oil_c"].where(np.arange(len(rows)) < TRAIN_STEPS))
    report = report_on(config, dead)
    assert report.causes == ()
    assert [each.name for each in report.quality] == ["missing:top_oil_c"]
    assert DriftReport.from_json(report.to_json()) == report


def test_a_training_set_too_short_to_calibrate_on_raises_no_alarm(config: ExperimentConfig) -> None:
    rows = shifted(history(0, steps=RECENT_STEPS + 100), 50.0)
    drift, _ = report_on(config, rows).features
    assert drift.status == "not enough history"
    assert drift.threshold == float("inf")
    assert not drift.is_drifted


def served(
    rows: pd.DataFrame, error: float, version: int = 1, origins: slice = slice(-100, -10), minute: int = 0
) -> ServedPredictions:
    """Return predictions, two steps ahead, that miss what came true by `error`, as a server would log them."""
    one = rows[rows[ENTITY] == 1].reset_index(drop=True)
    chosen = one.index[origins].to_numpy()
    steps = np.array([1, 2])
    times = one[TIMESTAMP].dt.tz_localize(None).to_numpy(dtype="datetime64[ns]")
    values = one["top_oil_c"].to_numpy()[chosen[:, None] + steps][:, :, None] + np.float32(error)
    return ServedPredictions(
        served_at=dt.datetime(2026, 1, 1, 12, minute, tzinfo=dt.UTC),
        request_id=f"r{minute}",
        version=version,
        pair_id="pair",
        entity_ids=["1"] * len(chosen),
        origins=times[chosen],
        targets=("top_oil_c",),
        steps=steps,
        timestamps=times[chosen][:, None] + steps * HOUR,
        values=values,
    )


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)}), "fleet_xgboost")


def errors_of(config: ExperimentConfig, rows: pd.DataFrame, log: PredictionLog, tmp_path: Path) -> ErrorDrift:
    log.close()
    return errors_in(config, Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)}), rows, reference=1.0)


@pytest.mark.parametrize(("error", "is_drifted"), [(1.4, False), (-1.4, False), (1.6, True), (-1.6, True)])
def test_served_errors_are_compared_with_the_reference_error(
    config: ExperimentConfig, log: PredictionLog, tmp_path: Path, error: float, is_drifted: bool
) -> None:
    rows = history(0)
    log.append(served(rows, error))
    errors = errors_of(config, rows, log, tmp_path)
    assert errors.predictions == 180
    assert errors.recent == pytest.approx(abs(error), rel=1e-5)
    assert errors.is_drifted is is_drifted


def test_served_errors_count_only_for_the_pair_in_production(
    config: ExperimentConfig, log: PredictionLog, tmp_path: Path
) -> None:
    rows = history(0)
    log.append(served(rows, 9.0, version=7))
    log.append(served(rows, 0.5, minute=1))
    errors = errors_of(config, rows, log, tmp_path)
    assert errors.predictions == 180
    assert errors.recent == pytest.approx(0.5, rel=1e-4)


def test_a_long_good_past_does_not_hide_recent_errors(
    config: ExperimentConfig, log: PredictionLog, tmp_path: Path
) -> None:
    rows = history(0)
    log.append(served(rows, 0.1, origins=slice(-3000, -RECENT_STEPS - 2)))
    log.append(served(rows, 5.0, minute=1))
    errors = errors_of(config, rows, log, tmp_path)
    assert errors.predictions == 180
    assert errors.recent == pytest.approx(5.0, rel=1e-5)
    assert errors.is_drifted


def test_a_repeated_request_counts_once_and_the_future_not_yet(
    config: ExperimentConfig, log: PredictionLog, tmp_path: Path
) -> None:
    rows = history(0)
    log.append(served(rows, 9.0))
    log.append(served(rows, 0.5, minute=1))
    unknown = served(history(0, steps=TRAIN_STEPS + RECENT_STEPS + 50), 9.0, origins=slice(-40, -10), minute=2)
    log.append(unknown)
    errors = errors_of(config, rows, log, tmp_path)
    assert errors.predictions == 180
    assert errors.recent == pytest.approx(0.5, rel=1e-4)


def test_too_few_predictions_are_no_evidence(config: ExperimentConfig, log: PredictionLog, tmp_path: Path) -> None:
    rows = history(0)
    log.append(served(rows, 99.0, origins=slice(-20, -9)))
    errors = errors_of(config, rows, log, tmp_path)
    assert (errors.predictions, errors.recent, errors.is_drifted) == (22, None, False)


def test_predictions_whose_truth_is_missing_do_not_count(
    config: ExperimentConfig, log: PredictionLog, tmp_path: Path
) -> None:
    rows = history(0)
    log.append(served(rows, 0.5))
    gaps = rows.assign(top_oil_c=rows["top_oil_c"].where(rows[TIMESTAMP] < rows[TIMESTAMP].iloc[-40]))
    errors = errors_of(config, gaps, log, tmp_path)
    assert 0 < errors.predictions < 180


def test_what_stood_in_for_a_forecast_is_no_error_of_the_model(
    config: ExperimentConfig, log: PredictionLog, tmp_path: Path
) -> None:
    rows = history(0)
    bad, good = served(rows, 9.0), served(rows, 0.5, origins=slice(-100, -55), minute=1)
    half = np.arange(len(bad.entity_ids)) < 45
    # The forecasts of the first half count as served last; those of the other half are of the first request.
    log.append(replace(bad, is_fallback=~half, observed=np.ones(len(half))))
    log.append(good)
    errors = errors_of(config, rows, log, tmp_path)
    assert errors.predictions == 90
    assert errors.recent == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(("least", "counted"), [(0.0, 180), (0.5, 90)], ids=["any share", "at least half"])
def test_forecasts_from_too_little_that_was_measured_do_not_count(
    config: ExperimentConfig, log: PredictionLog, tmp_path: Path, least: float, counted: int
) -> None:
    rows = history(0)
    answers = served(rows, 1.0)
    shares = np.where(np.arange(len(answers.entity_ids)) % 2, 0.5, 0.49)
    log.append(replace(answers, observed=shares))
    strict = config.model_copy(update={"observation": ObservationConfig(min_observed=least)})
    assert errors_of(strict, rows, log, tmp_path).predictions == counted


def report(**changes: Any) -> DriftReport:
    values: dict[str, Any] = {
        "experiment": "yard",
        "pair_version": 3,
        "split_version": "yard",
        "data_until": "2024-03-01T00:00:00+00:00",
        "features": (FeatureDrift("load_pu", 2.0, 1.0), FeatureDrift("ambient_c", 0.5, 1.0)),
        "errors": ErrorDrift(50, 1.0, 1.0, 1.5),
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return DriftReport(**values | changes)


def test_causes_are_what_drifted_by_name() -> None:
    both = (FeatureDrift("load_pu", 5.0, 1.1), FeatureDrift("ambient_c", 3.0, 1.0))
    assert report(features=both).causes == ("feature:load_pu", "feature:ambient_c")
    assert report(errors=ErrorDrift(50, 9.0, 1.0, 1.5)).causes == ("feature:load_pu", "errors")


def test_every_report_is_kept_and_the_last_one_on_the_newest_day_counts(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    assert read_report(settings, "yard") is None
    assert read_reports(settings, "yard") == []
    first = report(day="2026-03-01", created_at="2026-03-01T10:00:00.000001+00:00")
    again = report(day="2026-03-01", created_at="2026-03-01T11:00:00+01:00", pair_version=4)
    later = report(day="2026-03-03", created_at="2026-03-03T09:00:00+00:00")
    # An earlier day that is asked for once more is not the newest.
    past = report(day="2026-02-27", created_at="2026-03-09T09:00:00+00:00")
    paths = {write_report(each, settings) for each in (first, again, later, past)}
    assert len(paths) == 4
    assert read_report(settings, "yard") == later
    assert read_reports(settings, "yard") == [past, first, later]
    assert read_report(settings, "yard", until=dt.date(2026, 3, 2)) == first
    assert read_reports(settings, "yard", since=dt.date(2026, 2, 28), until=dt.date(2026, 3, 1)) == [first]
    assert read_report(settings, "yard", until=dt.date(2026, 2, 1)) is None


def test_the_one_report_of_earlier_versions_counts_on_the_day_it_was_made(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    values = json.loads(report().to_json())
    del values["day"], values["quality"]
    path = tmp_path / "monitoring" / "yard" / FIRST_FORM
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(values))
    assert read_report(settings, "yard") == report()
    later = report(day="2026-01-02", created_at="2026-01-02T09:00:00+00:00")
    write_report(later, settings)
    assert read_reports(settings, "yard") == [report(), later]
    # One about the same day takes its place.
    same = report(day="2026-01-01", created_at="2026-01-01T09:00:00+00:00", pair_version=9)
    write_report(same, settings)
    assert read_reports(settings, "yard") == [same, later]


def test_unknown_reference_error_is_no_drift() -> None:
    assert not replace(report().errors, recent=99.0, reference=None).is_drifted


def test_a_change_of_one_feature_beside_others_that_share_its_course_is_found(config: ExperimentConfig) -> None:
    names = ("load_pu", "ambient_c", "top_oil_c")
    asked = config.model_copy(update={"features": config.features.model_copy(update={"columns": names})})
    found, alone = 0, 0
    for seed in range(4):
        rows = history(seed)
        own = [history(100 + 3 * seed + each)["top_oil_c"] for each in range(3)]
        rows = rows.assign(**{name: rows["top_oil_c"] + 0.4 * part for name, part in zip(names, own, strict=True)})
        quiet = report_on(asked, rows)
        assert not quiet.is_drifted
        report = report_on(asked, shifted(rows, 0.6))
        kinds = next(each.kinds for each in report.features if each.column == "top_oil_c")
        found, alone = found + ("level beside the others" in kinds), alone + ("level" in kinds)
    assert found >= 3
    assert found > alone


def test_what_a_newer_version_says_of_reports_is_no_damage(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    whole = report(day="2026-03-03", created_at="2026-03-03T09:00:00+00:00")
    path = write_report(whole, settings)
    values = json.loads(path.read_text())
    values["errors"]["newer"] = values["features"][0]["newer"] = values["newer"] = [1]
    path.write_text(json.dumps(values))
    assert read_report(settings, "yard") == whole


@pytest.mark.parametrize("change", [{"created_at": "soon"}, {"day": 3}, {"data_until": None}, {"features": [1]}])
def test_a_damaged_report_is_left_out_wherever_reports_are_read(tmp_path: Path, change: dict[str, Any]) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    first, last = (report(day=f"2026-03-0{day}", created_at=f"2026-03-0{day}T09:00:00+00:00") for day in (2, 4))
    damaged = write_report(report(day="2026-03-03", created_at="2026-03-03T09:00:00+00:00"), settings)
    damaged.write_text(json.dumps(json.loads(damaged.read_text()) | change))
    write_report(first, settings)
    assert read_report(settings, "yard") == first
    write_report(last, settings)
    assert read_reports(settings, "yard") == [first, last]
    (tmp_path / "monitoring" / "yard" / FIRST_FORM).write_text("{")
    assert read_reports(settings, "yard") == [first, last]
