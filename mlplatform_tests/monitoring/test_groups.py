"""One entity of many that changes is named, many that do not raise no more alarms than one, and the cost is bounded."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from mlplatform.config import ENTITY, TIMESTAMP, ExperimentConfig, load_experiment
from mlplatform.monitoring.drift import build_report
from mlplatform.monitoring.groups import Groups
from mlplatform.monitoring.page import report_page
from mlplatform.monitoring.report import DriftReport, ErrorDrift
from mlplatform.monitoring.retraining import ReportFacts
from mlplatform.settings import Settings

DAY, WEEK = 24, 168
TRAINED = 12 * WEEK
ENTITIES = 20
NUMBERS = ("load_pu", "ambient_c")
SITES = ("north", "south", "east", "west")
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("home"))})
    config = load_experiment("fleet_xgboost", settings=settings)
    return config.model_copy(update={"features": config.features.model_copy(update={"columns": NUMBERS})})


def fleet(seed: int, entities: int = ENTITIES) -> pd.DataFrame:
    """Return series of many entities at five sites, with memory, a season and a level of their own."""
    generator = np.random.default_rng(seed)
    steps = TRAINED + 2 * WEEK
    values = lfilter([0.6], [1.0, -0.8], generator.standard_normal((steps, entities, len(NUMBERS))), axis=0)
    values += np.sin(2 * np.pi * np.arange(steps)[:, None, None] / DAY) + np.arange(entities)[None, :, None]
    times = pd.date_range("2024-01-01", periods=steps, freq="1h", tz="UTC")
    columns = {name: values[:, :, i].T.ravel() for i, name in enumerate(NUMBERS)}
    numbers = np.repeat(np.arange(1, entities + 1), steps)
    sites = np.array(SITES)[numbers % len(SITES)]
    return pd.DataFrame({ENTITY: numbers, TIMESTAMP: np.tile(times, entities), **columns, "cooling": sites})


def report_on(config: ExperimentConfig, rows: pd.DataFrame, **drift: Any) -> DriftReport:
    asked = config.model_copy(update={"drift": config.drift.model_copy(update=drift)})
    train = rows[rows[TIMESTAMP] < rows[TIMESTAMP].min() + pd.Timedelta(hours=TRAINED)]
    return build_report(asked, 1, train, rows, ErrorDrift(0, None, None, 1.5), now=NOW)


def last_week(rows: pd.DataFrame) -> pd.Series[bool]:
    return rows[TIMESTAMP] > rows[TIMESTAMP].max() - pd.Timedelta(hours=WEEK)


def test_one_of_twenty_that_changes_is_named(config: ExperimentConfig) -> None:
    rows = fleet(0)
    rows.loc[last_week(rows) & (rows[ENTITY] == 7), "load_pu"] += 2.0
    report = report_on(config, rows)
    # A twentieth of it is no change of the mean of all.
    assert {each.column: each.status for each in report.features}["load_pu"] == "steady"
    (found,) = report.groups
    assert (found.column, found.group, found.status, "level" in found.kinds) == ("load_pu", "7", "drift", True)
    assert found.change == pytest.approx(2.0, abs=0.7)
    assert report.causes == ("feature:load_pu[7]",)
    assert ReportFacts.of(report).suspects == report.causes
    assert DriftReport.from_json(report.to_json()) == report
    assert "load_pu" in report_page(report, [], pd.DataFrame(), pd.DataFrame())
    assert report_on(config, rows, group_by=None).groups == ()


def test_a_group_of_entities_is_named(config: ExperimentConfig) -> None:
    rows = fleet(1)
    rows.loc[last_week(rows) & (rows["cooling"] == "west"), "load_pu"] += 1.0
    report = report_on(config, rows, group_by="cooling")
    assert [each.name for each in report.groups if each.is_drifted] == ["load_pu[west]"]


@pytest.mark.parametrize(("to", "kind"), [("off", "categories"), ("unheard of", "unseen category")])
def test_a_category_of_one_of_twenty_that_changes_is_named(config: ExperimentConfig, to: str, kind: str) -> None:
    rows = fleet(6)
    rows["cooling"] = np.where(np.random.default_rng(6).random(len(rows)) < 0.3, "on", "off")
    both = config.model_copy(
        update={"features": config.features.model_copy(update={"columns": ("load_pu", "cooling")})}
    )
    assert report_on(both, rows).suspects == ()
    rows.loc[last_week(rows) & (rows[ENTITY] == 7) & (rows["cooling"] == "on"), "cooling"] = to
    found = report_on(both, rows)
    named = [each for each in found.groups if each.is_suspected]
    assert [each.name for each in named] == ["cooling[7]"]
    assert kind in named[0].kinds
    assert DriftReport.from_json(found.to_json()) == found


def test_what_all_do_is_no_matter_of_groups(config: ExperimentConfig) -> None:
    rows = fleet(2)
    rows.loc[last_week(rows), "load_pu"] += 2.0
    assert report_on(config, rows).causes == ("feature:load_pu",)


def test_twenty_that_do_not_change_raise_no_more_alarms_than_one(config: ExperimentConfig) -> None:
    reports = [report_on(config, fleet(seed)) for seed in range(10, 22)]
    assert sum(bool(report.suspects) for report in reports) <= 2
    assert not any(report.is_drifted for report in reports)


def test_an_effect_below_the_floor_is_none(config: ExperimentConfig) -> None:
    rows = fleet(3)
    rows.loc[last_week(rows) & (rows[ENTITY] == 7), "load_pu"] += 2.0
    assert report_on(config, rows, min_effect=5.0).groups == ()


def test_gaps_of_one_entity_do_not_hide_it_and_too_many_leave_it_out(config: ExperimentConfig) -> None:
    rows = fleet(4)
    own = rows[ENTITY] == 7
    rows.loc[last_week(rows) & own, "load_pu"] += 2.0
    hours = (rows[TIMESTAMP] - rows[TIMESTAMP].min()) / pd.Timedelta(hours=1)
    some = rows[~(own & (hours > 200) & (hours < 400))]
    assert [each.name for each in report_on(config, some).groups] == ["load_pu[7]"]
    most = rows[~(own & (hours > 200) & (hours < 1500))]
    assert report_on(config, most).groups == ()


def test_more_groups_than_allowed_are_not_judged_and_the_report_says_so(config: ExperimentConfig) -> None:
    report = report_on(config, fleet(5), max_groups=10)
    assert report.groups == ()
    (note,) = report.notes
    assert note.startswith("20 groups by 'entity' are more than drift.max_groups, 10: none is judged")
    assert "drift.max_groups" in report_page(report, [], pd.DataFrame(), pd.DataFrame())
    (note,) = report_on(config, fleet(5), group_by="plant").notes
    assert note == "drift.group_by names 'plant', which the rows do not have"


def test_groups_are_summed_by_name() -> None:
    groups = Groups(("a", "b"), np.array([0, 1, 0, -1]))
    sums = groups.sums(np.array([[1.0, 2.0, 4.0, 8.0], [1.0, np.nan, np.nan, 1.0]]))
    assert sums.tolist() == [[5.0, 2.0], [1.0, 0.0]]
