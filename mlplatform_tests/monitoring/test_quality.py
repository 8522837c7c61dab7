"""What breaks data is named the day it happens, and is no drift; what changes the world is no fault of the data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from mlplatform.config import ENTITY, TIMESTAMP, DriftConfig, ExperimentConfig, StalenessConfig, load_experiment
from mlplatform.monitoring.drift import build_report
from mlplatform.monitoring.report import DriftReport, ErrorDrift
from mlplatform.monitoring.retraining import Inputs, ReportFacts, decide_retrain
from mlplatform.settings import Settings

DAY, WEEK = 24, 168
TRAINED = 20 * WEEK
START = TRAINED + WEEK
NUMBERS = ("load_pu", "ambient_c", "top_oil_c")
FEATURES = (*NUMBERS, "cooling")
NOTHING_SERVED = ErrorDrift(0, None, None, 1.5)
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("home"))})
    config = load_experiment("fleet_xgboost", settings=settings)
    return config.model_copy(update={"features": config.features.model_copy(update={"columns": FEATURES})})


def series(steps: int, seed: int = 0) -> pd.DataFrame:
    """Return two entities' series with memory and a daily season, each column with a level and scale of its own."""
    generator = np.random.default_rng(seed)
    shocks = generator.standard_normal((steps, 2 * len(NUMBERS))) * np.sqrt(1 - 0.9**2)
    values = lfilter([1.0], [1.0, -0.9], shocks, axis=0)
    values += 1.5 * np.sin(2 * np.pi * np.arange(steps)[:, None] / DAY)
    times = pd.date_range("2024-01-01", periods=steps, freq="1h", tz="UTC")
    parts = []
    for entity in (1, 2):
        own = values[:, (entity - 1) * len(NUMBERS) : entity * len(NUMBERS)]
        columns = {name: own[:, i] * (i + 1) + 10 * i for i, name in enumerate(NUMBERS)}
        cooling = np.where(generator.random(steps) < 0.3, "ONAF", "ONAN")
        parts.append(pd.DataFrame({ENTITY: entity, TIMESTAMP: times, **columns, "cooling": cooling}))
    return pd.concat(parts, ignore_index=True)


def report_on(config: ExperimentConfig, rows: pd.DataFrame, **arguments: Any) -> DriftReport:
    border = rows[TIMESTAMP].min() + TRAINED * pd.Timedelta(hours=1)
    train = rows[rows[TIMESTAMP] < border]
    return build_report(config, 1, train, rows, NOTHING_SERVED, **({"now": NOW} | arguments))


def changed(change: Callable[[pd.DataFrame], None], hours: int = DAY, seed: int = 0) -> pd.DataFrame:
    """Return series whose last hours are changed in place, of both entities."""
    rows = series(START + hours, seed)
    last = rows[TIMESTAMP] > rows[TIMESTAMP].max() - hours * pd.Timedelta(hours=1)
    part = rows[last].copy()
    change(part)
    rows.loc[last] = part
    return rows


def lose(part: pd.DataFrame) -> None:
    part.loc[np.random.default_rng(1).random(len(part)) < 0.3, "load_pu"] = np.nan


def lose_categories(part: pd.DataFrame) -> None:
    part["cooling"] = None


def stick(part: pd.DataFrame) -> None:
    one = part[ENTITY] == 2
    part.loc[one, "load_pu"] = part.loc[one, "load_pu"].iloc[0]


def kilo(part: pd.DataFrame) -> None:
    part["top_oil_c"] *= 1000.0


def fahrenheit(part: pd.DataFrame) -> None:
    part["top_oil_c"] = part["top_oil_c"] * 1.8 + 32.0


def swap(part: pd.DataFrame) -> None:
    part[["load_pu", "top_oil_c"]] = part[["top_oil_c", "load_pu"]].to_numpy()


def fail_high(part: pd.DataFrame) -> None:
    part.loc[part.index[::5], "ambient_c"] = 847.0


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lose, "missing:load_pu"),
        (lose_categories, "missing:cooling"),
        (stick, "stuck:load_pu"),
        (kilo, "unit:top_oil_c"),
        (fahrenheit, "unit:top_oil_c"),
        (swap, "swapped:load_pu and top_oil_c"),
        (fail_high, "range:ambient_c"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_a_fault_is_named_on_its_first_day_and_is_no_drift(
    config: ExperimentConfig, change: Callable[[pd.DataFrame], None], name: str
) -> None:
    report = report_on(config, changed(change))
    assert [each.name for each in report.quality] == [name]
    assert not report.is_drifted
    assert {each.column for each in report.features if each.status == "broken"} >= set(report.quality[0].columns)
    assert DriftReport.from_json(report.to_json()) == report
    # Wrong forecasts on broken data are no reason to train on them.
    wrong = replace(report, errors=ErrorDrift(100, 9.0, 1.0, 1.5))
    made_at = dt.datetime.fromisoformat(report.created_at)
    decision = decide_retrain(Inputs("yard_xgboost", (ReportFacts.of(wrong),)), DriftConfig(), made_at)
    assert decision.outcome == "blocked"
    assert name in decision.reason


def test_columns_of_nearly_the_same_level_that_change_places_are_named_within_days(config: ExperimentConfig) -> None:
    # Of one entity, and three standard deviations apart: on a day one of the two may well not be beyond chance.
    apart = {"load_pu": 0.0, "top_oil_c": 3.0}

    def found(seed: int, days: int) -> bool:
        rows = series(START + days * DAY, seed)
        rows = rows[rows[ENTITY] == 1].reset_index(drop=True)
        rows["top_oil_c"] = (rows["top_oil_c"] - 20) / 3
        for name, level in apart.items():
            rows[name] += level
        last = rows[TIMESTAMP] > rows[TIMESTAMP].max() - days * DAY * pd.Timedelta(hours=1)
        swapped = rows[last].copy()
        swap(swapped)
        rows.loc[last] = swapped
        return [each.name for each in report_on(config, rows).quality] == ["swapped:load_pu and top_oil_c"]

    assert sum(any(found(seed, days) for days in (1, 2, 3)) for seed in range(12)) >= 11


@pytest.mark.parametrize("days", [1, 4])
def test_a_column_that_falls_a_day_behind_is_named_for_a_week(config: ExperimentConfig, days: int) -> None:
    rows = series(START + days * DAY)
    is_late = rows[TIMESTAMP] > rows[TIMESTAMP].max() - days * pd.Timedelta(days=1)
    rows["ambient_c"] = rows["ambient_c"].where(~is_late, rows.groupby(ENTITY)["ambient_c"].shift(DAY))
    (found,) = report_on(config, rows).quality
    assert found.name == "late:ambient_c"
    assert "repeats for 24 steps what it was 24 steps before" in found.detail


def shift(part: pd.DataFrame) -> None:
    part["load_pu"] += 3.0


def widen(part: pd.DataFrame) -> None:
    part["load_pu"] *= 2.0


def later_peak(part: pd.DataFrame) -> None:
    hours = part[TIMESTAMP].dt.hour.to_numpy()
    part["load_pu"] += 1.5 * (np.sin(2 * np.pi * (hours - 6) / DAY) - np.sin(2 * np.pi * hours / DAY))


def new_category(part: pd.DataFrame) -> None:
    part.loc[part.index[::8], "cooling"] = "ODAF"


def other_shares(part: pd.DataFrame) -> None:
    part["cooling"] = np.where(np.arange(len(part)) % 4 > 0, "ONAF", "ONAN")


@pytest.mark.parametrize(
    ("change", "column", "kind"),
    [
        (shift, "load_pu", "level"),
        (widen, "load_pu", "spread"),
        (later_peak, "load_pu", "daily shape"),
        (new_category, "cooling", "unseen category"),
        (other_shares, "cooling", "categories"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_a_change_of_the_world_is_drift_and_no_fault(
    config: ExperimentConfig, change: Callable[[pd.DataFrame], None], column: str, kind: str
) -> None:
    report = report_on(config, changed(change, hours=WEEK))
    assert report.quality == ()
    assert report.causes == (f"feature:{column}",)
    (feature,) = [each for each in report.features if each.column == column]
    assert kind in feature.kinds
    assert DriftReport.from_json(report.to_json()) == report


def test_an_unchanged_week_is_neither(config: ExperimentConfig) -> None:
    reports = [report_on(config, series(START, seed)) for seed in range(8)]
    assert [report.quality for report in reports] == [()] * 8
    assert sum(bool(report.suspects) for report in reports) <= 1
    assert not any(report.is_drifted for report in reports)


def counts(seed: int) -> pd.DataFrame:
    """Return thirteen weeks of three counts whose rate has memory and a daily season."""
    generator, steps = np.random.default_rng(seed), 13 * WEEK
    memory = lfilter([1.0], [1.0, -0.9], generator.standard_normal((steps, len(NUMBERS))) * np.sqrt(1 - 0.9**2), axis=0)
    rate = np.exp(0.5 * memory + np.sin(2 * np.pi * np.arange(steps)[:, None] / DAY))
    times = pd.date_range("2024-01-01", periods=steps, freq="1h", tz="UTC")
    columns = dict(zip(NUMBERS, generator.poisson(rate).T.astype(np.float64), strict=True))
    return pd.DataFrame({ENTITY: 1, TIMESTAMP: times, **columns, "cooling": "ONAN"})


@pytest.mark.parametrize("seed", [31, 47, 157, 165])
def test_a_day_of_many_counts_is_no_other_unit(config: ExperimentConfig, seed: int) -> None:
    # Judged as if chance had no skew, the last day was too unlikely, and a tenth of it ordinary.
    rows = counts(seed)
    train = rows[rows[TIMESTAMP] < rows[TIMESTAMP].min() + 12 * WEEK * pd.Timedelta(hours=1)]
    assert build_report(config, 1, train, rows, NOTHING_SERVED, now=NOW).quality == ()


def test_a_column_and_a_feed_that_stay_away_are_named(config: ExperimentConfig) -> None:
    rows = series(START)
    assert [each.name for each in report_on(config, rows.drop(columns="load_pu")).quality] == ["schema:load_pu"]
    newest = rows[TIMESTAMP].max()
    strict = config.model_copy(update={"staleness": StalenessConfig(max_age="6h")})
    for hours, expected in ((6, []), (7, ["freshness"])):
        now = newest.to_pydatetime() + dt.timedelta(hours=hours)
        assert [each.name for each in report_on(strict, rows, now=now).quality] == expected
    marking = config.model_copy(update={"staleness": StalenessConfig(max_age="6h", action="flag")})
    assert report_on(marking, rows, now=now).quality == ()
    silent = rows[(rows[ENTITY] == 1) | (rows[TIMESTAMP] < newest - pd.Timedelta(days=2))]
    # One of two may be out of service; none of its columns is broken.
    assert report_on(config, silent).quality == ()
    is_last = (rows[TIMESTAMP] > newest - pd.Timedelta(hours=9)) & (rows[ENTITY] == 2)
    silent_in_part = rows[~is_last]
    assert {each.kind for each in report_on(config, silent_in_part).quality} == {"missing"}


def test_a_slow_trend_of_the_training_goes_on_without_being_drift(config: ExperimentConfig) -> None:
    rows = series(START)
    hours = (rows[TIMESTAMP] - rows[TIMESTAMP].min()) / pd.Timedelta(hours=1)
    rows["load_pu"] += hours * (3.0 / TRAINED)
    report = report_on(config, rows)
    (feature,) = [each for each in report.features if each.column == "load_pu"]
    # Level and spread of its weeks already vary as much in training; named or not, it is no alarm.
    assert feature.status in ("steady", "novel season")
    assert report.suspects == ()


def test_a_season_that_comes_after_the_training_is_drift_only_if_the_forecasts_suffer(
    config: ExperimentConfig,
) -> None:
    steps = TRAINED + 12 * WEEK
    rows = series(steps)
    hours = np.tile(np.arange(steps), 2)
    rows["load_pu"] += np.clip((hours - TRAINED) / (12 * WEEK), 0, None) * 3.0
    report = report_on(config, rows)
    (feature,) = [each for each in report.features if each.column == "load_pu"]
    assert (feature.status, report.causes) == ("novel season", ())
    train = rows[rows[TIMESTAMP] < rows[TIMESTAMP].min() + TRAINED * pd.Timedelta(hours=1)]
    suffering = build_report(config, 1, train, rows, ErrorDrift(72, 9.0, 1.0, 1.5), now=NOW)
    assert set(suffering.causes) == {"feature:load_pu", "errors"}


def test_a_suspicion_is_drift_once_it_has_outlived_its_window(config: ExperimentConfig) -> None:
    rows = changed(lambda part: part.__setitem__("load_pu", part["load_pu"] + 1.0), hours=9 * DAY)
    newest = rows[TIMESTAMP].max()
    day = pd.Timedelta(days=1)
    first = report_on(config, rows[rows[TIMESTAMP] <= newest - 2 * day])
    (feature,) = [each for each in first.features if each.column == "load_pu"]
    assert feature.status == "suspected"
    assert not first.is_drifted
    again = report_on(config, rows, previous=first)
    assert not again.is_drifted
    week_ago = (newest - 7 * day).isoformat()
    old = replace(first, features=tuple(replace(each, suspected_since=week_ago) for each in first.features))
    assert report_on(config, rows, previous=old).causes == ("feature:load_pu",)
    # What was suspected of another champion says nothing about this one.
    assert not report_on(config, rows, previous=replace(old, pair_version=7)).is_drifted
