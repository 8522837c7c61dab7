"""What broken data hold up: promotions until they are mended, trainings on rows that no report found sound."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.monitoring import write_report
from mlplatform.monitoring.report import QualityBreak
from mlplatform.monitoring.retraining import hold_of, training_hold_of
from mlplatform.settings import Settings
from mlplatform.testing.drift_reports import yard_report
from mlplatform.testing.yard import EXPERIMENT, write_conf

NOW = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
STUCK = (QualityBreak("stuck", "ambient_c", "21.7 for 30 steps"),)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_conf(tmp_path / "conf")
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_CONF_DIR": str(tmp_path / "conf")})


@pytest.fixture
def config(settings: Settings) -> ExperimentConfig:
    return load_experiment(EXPERIMENT, settings=settings)


def said(settings: Settings, days_ago: float, quality: tuple[QualityBreak, ...] = ()) -> dt.datetime:
    """Keep the report of a day, and return the newest row it saw."""
    made = NOW - dt.timedelta(days=days_ago)
    until = made - dt.timedelta(hours=1)
    report = yard_report(created_at=made.isoformat(), data_until=until.isoformat(), quality=quality)
    write_report(report, settings)
    return until


def test_rows_from_before_the_break_may_be_trained_on_and_none_may_be_promoted(
    config: ExperimentConfig, settings: Settings
) -> None:
    sound = said(settings, 3)
    assert not training_hold_of(config, settings, NOW, NOW)
    said(settings, 2, STUCK)
    newest = said(settings, 1, STUCK)
    assert not training_hold_of(config, settings, sound, NOW)
    for until in (sound + dt.timedelta(hours=1), newest, None):
        hold = training_hold_of(config, settings, until, NOW)
        assert "stuck:ambient_c" in hold
        assert "despite_broken_data" in hold
    assert "stuck:ambient_c" in hold_of(config, settings, NOW)


def test_what_no_sound_report_covers_is_held_and_a_mended_feed_holds_nothing(
    config: ExperimentConfig, settings: Settings
) -> None:
    until = said(settings, 2, STUCK)
    assert training_hold_of(config, settings, until - dt.timedelta(days=400), NOW)
    said(settings, 0)
    assert not training_hold_of(config, settings, NOW, NOW)
    assert not hold_of(config, settings, NOW)


def test_an_old_report_is_no_evidence(config: ExperimentConfig, settings: Settings) -> None:
    said(settings, 2, STUCK)
    later = NOW + dt.timedelta(hours=config.drift.retrain.expire_hours)
    assert not training_hold_of(config, settings, None, later)
    assert not hold_of(config, settings, later)


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"quality": []}'])
def test_a_report_that_cannot_be_read_lifts_no_hold_of_the_one_before(
    config: ExperimentConfig, settings: Settings, damaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    said(settings, 1, STUCK)
    made = NOW - dt.timedelta(hours=1)
    # One of another day, and a later one of the same day.
    for time in (made, NOW - dt.timedelta(days=1) + dt.timedelta(hours=1)):
        path = write_report(yard_report(created_at=time.isoformat(), data_until=time.isoformat()), settings)
        path.write_text(damaged)
        assert "stuck:ambient_c" in hold_of(config, settings, NOW)
        assert "stuck:ambient_c" in training_hold_of(config, settings, NOW, NOW)
        assert f"{path} cannot be read and is left out" in caplog.text
    said(settings, 0)
    assert not hold_of(config, settings, NOW)


def test_a_report_of_days_to_come_holds_nothing_and_lifts_nothing(
    config: ExperimentConfig, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    said(settings, -3 * 365, STUCK)
    assert not hold_of(config, settings, NOW)
    assert "still to come" in caplog.text
    said(settings, 0, STUCK)
    said(settings, -2 * 365)
    for when in (NOW, NOW + dt.timedelta(hours=5)):
        assert "stuck:ambient_c" in hold_of(config, settings, when)
        assert "stuck:ambient_c" in training_hold_of(config, settings, when, when)
    said(settings, -0.5)
    assert not hold_of(config, settings, NOW)
