"""What sensors and runs tell people of, over a real web hook."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dagster import (
    DagsterInstance,
    SkipReason,
    build_run_status_sensor_context,
    build_sensor_context,
    job,
    op,
)

from mlplatform.config import load_experiment
from mlplatform.defs.alerting import alerts_sensor, run_failure_alerts
from mlplatform.defs.resources import PlatformResource
from mlplatform.monitoring import DriftReport, ErrorDrift, update_errors, write_report
from mlplatform.monitoring.report import QualityBreak
from mlplatform.promotion import promote_version
from mlplatform.registry.pairs import PRODUCTION
from mlplatform.settings import Settings
from mlplatform.testing.drift_reports import yard_report
from mlplatform.testing.meters import meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, Yard, write_conf
from mlplatform_tests.alerts.receivers import Hook, hook
from mlplatform_tests.monitoring.test_forecast_errors import BASELINES, HORIZON, HOUR, Plant


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with hook() as running:
        monkeypatch.setenv("MLPLATFORM_ALERT_URLS", running.url)
        yield running


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    write_conf(tmp_path / "conf")
    return {"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(tmp_path / "conf")}


def report(settings: Settings, **values: Any) -> None:
    write_report(yard_report(**values), settings)


def look(environ: dict[str, str]) -> str:
    sensor = alerts_sensor([load_experiment(EXPERIMENT, settings=Settings.from_env(environ))])
    with DagsterInstance.ephemeral() as instance:
        result = sensor(build_sensor_context(instance, resources={"platform": PlatformResource(environment=environ)}))
    assert isinstance(result, SkipReason)
    return result.skip_message or ""


BROKEN = (QualityBreak("stuck", "ambient_c", "21.7 for 30 steps"),)


def test_reports_are_told_once_and_without_values(environ: dict[str, str], receiver: Hook) -> None:
    settings = Settings.from_env(environ)
    assert look(environ) == "0 messages delivered"
    report(settings, quality=BROKEN)
    assert look(environ) == "2 messages delivered"
    assert look(environ) == "0 messages delivered"
    assert set(receiver.titles) == {f"{EXPERIMENT}: the data are broken", f"{EXPERIMENT}: drift"}
    assert "21.7" not in str(receiver.received)


def test_without_channels_and_with_torn_reports_the_look_says_so(
    environ: dict[str, str], receiver: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    report(Settings.from_env(environ))
    (path,) = (Path(environ["MLPLATFORM_HOME"]) / "monitoring").rglob("*.json")
    path.write_text("{")
    assert look(environ) == "0 messages delivered"
    assert f"{path} cannot be read and is left out" in caplog.text
    monkeypatch.delenv("MLPLATFORM_ALERT_URLS")
    assert "no channel has an address" in look(environ)
    assert receiver.received == []


def test_a_failed_run_is_told_by_its_steps_and_the_class_of_the_error(environ: dict[str, str], receiver: Hook) -> None:
    @op
    def read() -> None:
        raise ValueError("row 7: name=Ada, card=4111")

    @job
    def ingest_yard() -> None:
        read()

    with DagsterInstance.ephemeral() as instance:
        result = ingest_yard.execute_in_process(instance=instance, raise_on_error=False)
        sensor = run_failure_alerts()
        context = build_run_status_sensor_context(
            sensor_name=sensor.name,
            dagster_event=result.get_run_failure_event(),
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            resources={"platform": PlatformResource(environment=environ)},
        ).for_run_failure()
        sensor(context)
    assert look(environ) == "1 messages delivered"
    (told,) = receiver.received
    assert told["title"] == "ingest_yard failed"
    assert "failed in read with ValueError" in told["message"]
    assert f"runs/{result.run_id}" in told["message"]
    assert "4111" not in str(told)


class TestProduction:
    """Broken data hold up promotions, and people hear what became of them."""

    @pytest.fixture
    def yard(self, trained_yard: Yard, tmp_path: Path) -> Yard:
        return trained_yard.clone_to(tmp_path)

    def test_broken_data_hold_a_promotion_until_a_person_gives_a_reason(self, yard: Yard, receiver: Hook) -> None:
        yard.pairs.client.delete_registered_model_alias(f"{EXPERIMENT}_model", PRODUCTION)
        report(yard.settings, quality=BROKEN)
        job = "promote"
        assert yard.run(job).success
        assert yard.pairs.find(EXPERIMENT, PRODUCTION) is None
        assert receiver.titles == [f"{EXPERIMENT}: version 1 was not promoted"]
        assert "held" in receiver.received[0]["message"]
        assert "stuck:ambient_c" in receiver.received[0]["message"]
        assert yard.run(job, {"ops": {"promote": {"config": {"why": "the sensor is replaced"}}}}).success
        assert yard.pairs.resolve(EXPERIMENT, PRODUCTION).version == 1
        assert receiver.titles[1:] == [f"{EXPERIMENT}: version 1 is in production"]

    @pytest.mark.parametrize("asset", ["cv_folds", "tuned_model"])
    def test_nothing_is_trained_on_broken_data_however_the_run_was_launched(self, yard: Yard, asset: str) -> None:
        report(yard.settings, quality=BROKEN)
        refused = yard.materialize(asset, raise_on_error=False)
        assert not refused.success
        assert "BrokenDataError" in str(refused.all_events)
        assert "stuck:ambient_c" in str(refused.all_events)

    def test_a_person_may_train_on_them_all_the_same(self, yard: Yard) -> None:
        report(yard.settings, quality=BROKEN)
        asked = {"resources": {"training": {"config": {"despite_broken_data": True}}}}
        fold = yard.config.split.fold_names[0]
        assert yard.materialize("cv_folds", partition=fold, run_config=asked).success

    def test_mended_data_hold_nothing(self, yard: Yard) -> None:
        yard.pairs.client.delete_registered_model_alias(f"{EXPERIMENT}_model", PRODUCTION)
        report(yard.settings)
        promotion = promote_version(yard.config, yard.pairs, who="test")
        assert promotion.promoted, promotion.reason


def test_intervals_that_hold_too_little_are_told(tmp_path: Path, mlflow_database: Path, receiver: Hook) -> None:
    rows = meter_rows({"a": 60, "b": 60}, end="2024-01-30T12:00:00Z")
    yard = meter_yard(tmp_path, mlflow_database, meter_rows({"a": 1}), baselines=BASELINES, horizon=HORIZON)
    plant = Plant(yard)
    keys = zip(rows["line"], pd.to_datetime(rows["time"]), strict=True)
    plant.rows_arrive(dict(zip(keys, rows["load"].tolist(), strict=True)))
    # Far off, so that no interval holds what comes.
    plant.forecasts_are_served(["a", "b"], 0, 9.0, "r1")
    plant.rows_arrive({(line, plant.end() + hour * HOUR): 10.0 for line in "ab" for hour in range(1, HORIZON)})
    update_errors(plant.config, plant.settings)
    drift = plant.config.drift.model_copy(update={"min_predictions": 8})
    config = plant.config.model_copy(update={"drift": drift})
    found = DriftReport(
        experiment=config.name,
        pair_version=1,
        split_version="meters",
        data_until=plant.end().isoformat(),
        features=(),
        errors=ErrorDrift(0, None, None, 1.5),
        created_at="2026-01-01T00:00:00+00:00",
    )
    write_report(found, plant.settings)
    sensor, platform = alerts_sensor([config]), PlatformResource(environment=yard.environ)
    with DagsterInstance.ephemeral() as instance:
        sensor(build_sensor_context(instance, resources={"platform": platform}))
    (told,) = receiver.received
    assert told["title"] == f"{config.name}: intervals cover too little"
    assert "covered 0% of what came true; 80% was meant" in told["message"]
