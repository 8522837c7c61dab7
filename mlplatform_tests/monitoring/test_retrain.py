"""The retrain policy: once per cause, not again within the cool-down, and on a reference set of the drifted time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mlplatform.config import DriftConfig, apply_versions, load_experiment
from mlplatform.monitoring.report import DriftReport, ErrorDrift, FeatureDrift
from mlplatform.monitoring.retrain import RetrainState, decide_retrain
from mlplatform.settings import Settings

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
POLICY = DriftConfig(cooldown_hours=24)


def report(
    pair_version: int = 1,
    feature: float = 2.0,
    error: float = 1.0,
    split_version: str = "fleet_v1",
    data_until: str = "2026-02-28T23:00:00+00:00",
) -> DriftReport:
    return DriftReport(
        experiment="fleet_xgboost",
        pair_version=pair_version,
        split_version=split_version,
        data_until=data_until,
        features=(FeatureDrift("load_pu", feature, 1.0),),
        errors=ErrorDrift(100, error, 1.0, 1.5),
        created_at=NOW.isoformat(),
    )


def hours(count: float) -> dt.datetime:
    return NOW + dt.timedelta(hours=count)


def test_without_a_report_or_drift_nothing_happens() -> None:
    for given, reason in ((None, "no drift report yet"), (report(feature=0.5), "2026-02-28T23:00:00")):
        decision = decide_retrain(given, RetrainState(), POLICY, NOW)
        assert not decision.retrain
        assert reason in decision.reason
        assert decision.state == RetrainState()


def test_drift_asks_for_a_split_version_cut_at_the_newest_row() -> None:
    decision = decide_retrain(report(), RetrainState(), POLICY, NOW)
    assert decision.retrain
    assert "feature:load_pu" in decision.reason
    assert decision.split_version == "fleet_v1@20260228T2300"


@pytest.mark.parametrize(
    ("split_version", "data_until", "expected"),
    [
        ("fleet_v1", "2026-02-28T23:00:00+00:00", "fleet_v1@20260228T2300"),
        ("fleet_v1@20250101T0000", "2026-02-28T23:00:00+00:00", "fleet_v1@20260228T2300"),
        ("fleet_v1", "2026-03-01T01:30:00+02:00", "fleet_v1@20260228T2330"),
    ],
)
def test_the_split_version_is_one_the_experiment_accepts(
    tmp_path: Path, split_version: str, data_until: str, expected: str
) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    drifted = report(split_version=split_version, data_until=data_until)
    version = decide_retrain(drifted, RetrainState(), POLICY, NOW).split_version
    assert version == expected
    overrides = apply_versions("fleet_xgboost", {"split_version": version}, settings)
    assert load_experiment("fleet_xgboost", overrides, settings).split.version_id == expected


def test_one_cause_is_acted_on_once_however_long_it_lasts() -> None:
    first = decide_retrain(report(), RetrainState(), POLICY, NOW)
    later = report(data_until="2026-03-20T00:00:00+00:00")
    again = decide_retrain(later, first.state, POLICY, hours(500))
    assert not again.retrain
    assert "already requested for feature:load_pu" in again.reason
    assert again.state == first.state


def test_another_cause_waits_for_the_cooldown() -> None:
    first = decide_retrain(report(), RetrainState(), POLICY, NOW)
    for other in (report(pair_version=2), report(error=9.0)):
        early = decide_retrain(other, first.state, POLICY, hours(23.9))
        assert not early.retrain
        assert "23.9 h ago; the cool-down is 24 h" in early.reason
        assert early.state == first.state
        late = decide_retrain(other, first.state, POLICY, hours(24))
        assert late.retrain
        assert set(late.state.causes) == {report().cause_id, other.cause_id}


def test_without_a_cooldown_another_cause_is_acted_on_at_once() -> None:
    eager = DriftConfig(cooldown_hours=0)
    first = decide_retrain(report(), RetrainState(), eager, NOW)
    assert decide_retrain(report(pair_version=2), first.state, eager, NOW).retrain


def test_the_state_survives_the_cursor() -> None:
    state = decide_retrain(report(), RetrainState(), POLICY, NOW).state
    assert RetrainState.from_cursor(state.to_cursor()) == state
    assert RetrainState.from_cursor(None) == RetrainState.from_cursor("") == RetrainState()
