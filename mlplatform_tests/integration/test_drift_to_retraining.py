"""From an injected fault to a new production version: served, logged, reported, requested, trained, promoted."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from dagster import AssetKey, build_sensor_context
from dagster._core.definitions.sensor_definition import SensorExecutionData
from fastapi.testclient import TestClient

from mlplatform.config import TIMESTAMP
from mlplatform.datamodule.splits import read_part, split_dir
from mlplatform.defs.partitions import RANGE_END, RANGE_START
from mlplatform.monitoring import DriftReport, read_report, read_reports
from mlplatform.promotion.active_config import read_active_versions
from mlplatform.registry.pairs import PRODUCTION
from mlplatform.testing.yard import EXPERIMENT, MONITOR, TRAIN, Yard, checks_of, write_conf
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

pytestmark = pytest.mark.integration

TOKEN = "a-token-for-tests"
# The fans fail and the load grows on the day after the last training row; then it takes a while until someone looks.
FAULT_START = pd.Timestamp("2024-03-01", tz="UTC")
FAULTS = [
    {"kind": "cooling_failure", "start": FAULT_START.isoformat(), "severity": 0.45},
    {"kind": "load_regime", "start": FAULT_START.isoformat(), "severity": 0.25},
]
HEALTHY_UNTIL = pd.Timestamp("2024-02-27", tz="UTC")
SERVED_FROM = pd.Timestamp("2024-04-10", tz="UTC")
SIX_HOURS = pd.Timedelta(hours=6)


@dataclass
class Plant:
    """An installation whose data grow while it is asked for forecasts."""

    yard: Yard

    @contextlib.contextmanager
    def served(self) -> Iterator[TestClient]:
        """Run the prediction server; when it stops, everything it answered is in the prediction log.

        It does not look at the alias: a training that takes longer than the pause between two looks would be found.
        """
        own = self.yard.settings
        settings = replace(own, experiment=EXPERIMENT, admin_token=TOKEN, limits=replace(own.limits, poll_s=0))
        with TestClient(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
            wait_until_loaded(client)
            yield client

    def live(self, start: pd.Timestamp, rounds: int) -> None:
        """Let time pass: every six hours new rows arrive, and both transformers' forecasts are asked for."""
        with self.served() as client:
            for now in pd.date_range(start, periods=rounds, freq=SIX_HOURS):
                write_conf(self.yard.conf, fleet={"end": now.isoformat(), "faults": FAULTS})
                assert self.yard.run("ingest_yard").success
                answer = client.post("/predict/feast/batch", json={"entities": [1, 2], "time_point": "now"})
                assert answer.status_code == 200, answer.text

    def report(self) -> DriftReport:
        """Run the monitor job and return the report it wrote."""
        assert self.yard.run(MONITOR).success
        report = read_report(self.yard.settings, EXPERIMENT)
        assert report is not None
        return report

    def tick(self) -> SensorExecutionData:
        """Evaluate the sensor as the daemon does, with the resources of the code location."""
        repository = self.yard.definitions().get_repository_def()
        sensor = repository.get_sensor_def(f"drift_{EXPERIMENT}")
        resources = repository.get_top_level_resources()
        with build_sensor_context(
            instance=self.yard.instance,
            sensor_name=sensor.name,
            repository_def=repository,
            resources={key: resources[key] for key in sensor.required_resource_keys},
        ) as context:
            return sensor.evaluate_tick(context)


@pytest.fixture
def plant(tmp_path: Path, mlflow_database: Path) -> Plant:
    """The yard, trained up to the end of February without faults."""
    yard = Yard.create(tmp_path, mlflow_database)
    assert yard.run(TRAIN).success
    return Plant(yard)


def test_an_injected_fault_leads_to_a_new_production_version(plant: Plant) -> None:
    yard = plant.yard
    first_reference = (split_dir(yard.settings, "yard", "yard") / "reference.parquet").read_bytes()

    # Before the fault, served errors are those of the reference set, and nobody asks for anything.
    plant.live(HEALTHY_UNTIL, rounds=4)
    healthy = plant.report()
    assert healthy.errors.predictions >= 24
    assert "errors" not in healthy.causes

    # Weeks into the fault the forecasts are wrong, and the report says so.
    plant.live(SERVED_FROM, rounds=6)
    drifted = plant.report()
    assert (drifted.pair_version, drifted.split_version) == (1, "yard")
    assert {"feature:load_pu", "feature:top_oil_c", "errors"} <= set(drifted.causes)
    assert drifted.errors.predictions > 24
    assert pd.Timestamp(drifted.data_until) == SERVED_FROM + 5 * SIX_HOURS - pd.Timedelta(hours=1)

    # One report is not enough; the sensor asks for a run that is judged on a reference set of the new time.
    assert "not yet in 2 of 3 reports" in (plant.tick().skip_message or "")
    plant.live(SERVED_FROM + 6 * SIX_HOURS, rounds=1)
    drifted = plant.report()
    tick = plant.tick()
    assert tick.run_requests, tick.skip_message
    (request,) = tick.run_requests
    new_split = f"yard@{pd.Timestamp(drifted.data_until):%Y%m%dT%H%M}"
    assert request.run_config == {"resources": {"training": {"config": {"split_version": new_split}}}}

    with plant.served() as client:
        trained = yard.run(TRAIN, request.run_config, tags=request.tags)
        assert trained.success
        assert _version_that_answers(client) == 1
        reload = client.post("/admin/reload", headers={"Authorization": f"Bearer {TOKEN}"})
        assert reload.status_code == 200, reload.text
        assert _version_that_answers(client) == 2
    gate = checks_of(trained)["promotion_gate"]
    assert gate.passed, gate.description
    assert "beats version 1" in (gate.description or "")

    # The new champion was judged, as the old one, on rows of the drifted time; the first reference set is untouched.
    champion = yard.pairs.resolve(EXPERIMENT, PRODUCTION)
    assert champion.version == 2
    assert champion.tags["split_version"] == new_split
    reference = read_part(yard.settings, "yard", new_split, "reference")
    assert reference.loc[~reference["is_context"], TIMESTAMP].min() > FAULT_START
    assert reference[TIMESTAMP].max() == pd.Timestamp(drifted.data_until)
    assert (split_dir(yard.settings, "yard", "yard") / "reference.parquet").read_bytes() == first_reference
    assert read_active_versions(EXPERIMENT, yard.settings)["split_version"] == new_split
    assert yard.pairs.resolve(EXPERIMENT, "previous").version == 1

    # The same report is acted on once, and is about a pair that is no longer in production.
    again = plant.tick()
    assert not again.run_requests
    assert "is about version 1, but 2 is in production" in (again.skip_message or "")

    # The next report is about the new champion.
    newest = plant.report()
    assert newest.pair_version == 2

    # Past days are reported on in one run, each by what was there by its end; the newest report stays the newest.
    days = ("2024-04-09", "2024-04-10")
    assert yard.run(MONITOR, tags=dict(zip((RANGE_START, RANGE_END), days, strict=True))).success
    past = read_reports(yard.settings, EXPERIMENT, until=dt.date(2024, 4, 30))
    assert [(each.about, each.data_until[:10]) for each in past] == [(day, day) for day in days]
    assert read_report(yard.settings, EXPERIMENT) == newest
    pages = {path.name for path in (yard.settings.home / "monitoring" / EXPERIMENT / "reports").rglob("*.html")}
    artifacts = {Path(each.path).name for each in yard.pairs.client.list_artifacts(champion.run_id, "monitoring")}
    assert artifacts <= pages
    assert len(artifacts) == 1 + len(days)
    partitions = yard.instance.get_materialized_partitions(AssetKey([EXPERIMENT, "drift_report"]))
    assert partitions == {*days, newest.about}


def _version_that_answers(client: TestClient) -> int:
    answer = client.post("/predict/feast/batch", json={"entities": [1], "time_point": "now"})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"])
