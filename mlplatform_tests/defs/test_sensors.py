"""The drift sensor: one request per cause, for a run that the train job accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    RunRequest,
    SensorResult,
    SkipReason,
    build_sensor_context,
    validate_run_config,
)

from mlplatform.config import load_experiment
from mlplatform.defs.resources import PlatformResource
from mlplatform.defs.sensors import drift_sensor
from mlplatform.monitoring import DriftReport, ErrorDrift, FeatureDrift, write_report
from mlplatform.monitoring.quality import QualityBreak
from mlplatform.settings import Settings
from mlplatform.testing.yard import EXPERIMENT, Yard, write_conf


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    write_conf(tmp_path / "conf")
    return {"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(tmp_path / "conf")}


def evaluate(environ: dict[str, str], cursor: str | None = None) -> SensorResult | SkipReason:
    sensor = drift_sensor(load_experiment(EXPERIMENT, settings=Settings.from_env(environ)))
    with DagsterInstance.ephemeral() as instance:
        context = build_sensor_context(
            instance=instance,
            cursor=cursor,
            sensor_name=sensor.name,
            resources={"platform": PlatformResource(environment=environ)},
        )
        result = sensor(context)
    assert isinstance(result, SensorResult | SkipReason)
    return result


def report(environ: dict[str, str], **changes: Any) -> DriftReport:
    """Store a report that says that the load has drifted."""
    values: dict[str, Any] = {
        "experiment": EXPERIMENT,
        "pair_version": 1,
        "split_version": "yard",
        "data_until": "2024-03-20T23:00:00+00:00",
        "features": (FeatureDrift("load_pu", 2.0, 1.0),),
        "errors": ErrorDrift(0, None, 1.0, 1.5),
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    drifted = DriftReport(**values | changes)
    write_report(drifted, Settings.from_env(environ))
    return drifted


def requested(result: SensorResult | SkipReason) -> tuple[RunRequest, str]:
    assert isinstance(result, SensorResult)
    (request,) = result.run_requests or []
    assert result.cursor is not None
    return request, result.cursor


def test_no_report_and_no_drift_are_skipped_with_a_reason(environ: dict[str, str]) -> None:
    skipped = evaluate(environ)
    assert isinstance(skipped, SkipReason)
    assert "no drift report yet" in (skipped.skip_message or "")
    report(environ, features=(FeatureDrift("load_pu", 0.5, 1.0),))
    skipped = evaluate(environ)
    assert isinstance(skipped, SkipReason)
    assert "no drift in the data up to 2024-03-20" in (skipped.skip_message or "")


def test_drift_requests_one_run_with_a_split_version_of_its_own(environ: dict[str, str]) -> None:
    drifted = report(environ)
    request, cursor = requested(evaluate(environ))
    assert request.run_config == {"resources": {"training": {"config": {"split_version": "yard@20240320T2300"}}}}
    assert request.tags["drift/cause"] == "feature:load_pu"
    assert request.tags["drift/pair_version"] == "1"
    assert request.run_key == f"{EXPERIMENT}-{drifted.cause_id}"
    # The same report again, and a later one about the same cause.
    assert isinstance(evaluate(environ, cursor), SkipReason)
    report(environ, data_until="2024-03-25T23:00:00+00:00")
    assert isinstance(evaluate(environ, cursor), SkipReason)


def test_a_lost_cursor_repeats_the_run_key_so_dagster_starts_no_second_run(environ: dict[str, str]) -> None:
    report(environ)
    first, _ = requested(evaluate(environ))
    report(environ, data_until="2024-03-25T23:00:00+00:00")
    second, _ = requested(evaluate(environ))
    assert first.run_key == second.run_key


def test_another_cause_within_the_cooldown_is_skipped(environ: dict[str, str]) -> None:
    report(environ)
    _, cursor = requested(evaluate(environ))
    report(environ, pair_version=2)
    skipped = evaluate(environ, cursor)
    assert isinstance(skipped, SkipReason)
    assert "the cool-down is 24 h" in (skipped.skip_message or "")


def test_broken_data_request_nothing_whatever_has_drifted(environ: dict[str, str]) -> None:
    report(environ, quality=(QualityBreak("stuck", "ambient_c", "one value for 30 steps"),))
    skipped = evaluate(environ)
    assert isinstance(skipped, SkipReason)
    assert "stuck:ambient_c" in (skipped.skip_message or "")


def test_a_suspicion_and_a_novel_season_request_nothing(environ: dict[str, str]) -> None:
    for status in ("suspected", "trend", "novel season", "not enough history", "broken"):
        report(environ, features=(FeatureDrift("load_pu", 2.0, 1.0, status=status),))
        assert isinstance(evaluate(environ), SkipReason)


def test_a_report_that_cannot_be_read_fails_the_tick_visibly(environ: dict[str, str]) -> None:
    report(environ)
    (path,) = (Path(environ["MLPLATFORM_HOME"]) / "monitoring").rglob("*.json")
    path.write_text("{}")
    with pytest.raises(KeyError):
        evaluate(environ)


def test_the_train_job_accepts_the_request(yard: Yard) -> None:
    report(yard.environ)
    request, _ = requested(evaluate(yard.environ))
    job = yard.definitions().resolve_job_def(f"train_{EXPERIMENT}")
    assert validate_run_config(job, request.run_config)
