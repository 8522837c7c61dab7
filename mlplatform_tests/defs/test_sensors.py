"""The drift sensor: one request per cause, for a run that the train job accepts, however often its daemon dies."""

from __future__ import annotations

import datetime as dt
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    RunRequest,
    SensorResult,
    SkipReason,
    build_sensor_context,
    validate_run_config,
)
from dagster._core.test_utils import create_run_for_test

from mlplatform.config import ExperimentConfig, RetrainConfig, load_experiment
from mlplatform.defs.keys import ATTEMPT_TAG, CAUSES_TAG, DRIFT_DATA_TAG, DRIFT_ROWS_TAG, REQUEST_TAG
from mlplatform.defs.resources import PlatformResource
from mlplatform.defs.run_history import training_runs
from mlplatform.defs.sensors import drift_sensor
from mlplatform.defs.time_budget import LookTookTooLongError, within_budget
from mlplatform.monitoring import DriftReport, ErrorDrift, FeatureDrift, write_report
from mlplatform.monitoring.report import QualityBreak
from mlplatform.monitoring.retraining.journal import Journal
from mlplatform.settings import Settings
from mlplatform.testing.daemon import run_daemon
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard, write_conf

# Values of the policy by which one report is enough, and either kind of drift trains.
EAGER = {"retrain": {"triggers": ["errors", "features"], "confirm": 1, "retry_minutes": 30}}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    write_conf(tmp_path / "conf", experiment={"drift": EAGER})
    return {"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(tmp_path / "conf")}


@pytest.fixture
def config(environ: dict[str, str]) -> ExperimentConfig:
    return load_experiment(EXPERIMENT, settings=Settings.from_env(environ))


class Sensor:
    """The drift sensor, looked at as often as a test likes, and the runs that follow."""

    def __init__(self, environ: dict[str, str], instance: DagsterInstance) -> None:
        self.environ, self.instance = environ, instance
        self.sensor = drift_sensor(load_experiment(EXPERIMENT, settings=Settings.from_env(environ)))

    def look(self) -> SensorResult | SkipReason:
        context = build_sensor_context(
            instance=self.instance,
            sensor_name=self.sensor.name,
            resources={"platform": PlatformResource(environment=self.environ)},
        )
        result = self.sensor(context)
        assert isinstance(result, SensorResult | SkipReason)
        return result

    def skipped(self) -> str:
        result = self.look()
        assert isinstance(result, SkipReason)
        return result.skip_message or ""

    def requested(self) -> RunRequest:
        result = self.look()
        assert isinstance(result, SensorResult), result
        (request,) = result.run_requests or []
        return request

    def run(self, request: RunRequest, status: DagsterRunStatus) -> str:
        """Let Dagster know of a run that came of a request."""
        return create_run_for_test(self.instance, job_name=TRAIN, status=status, tags=request.tags).run_id


@pytest.fixture
def sensor(environ: dict[str, str]) -> Any:
    with DagsterInstance.ephemeral() as instance:
        yield Sensor(environ, instance)


def report(environ: dict[str, str], **changes: Any) -> DriftReport:
    """Store a report that says that the load has drifted."""
    values: dict[str, Any] = {
        "experiment": EXPERIMENT,
        "pair_version": 1,
        "split_version": "yard",
        "data_until": "2024-03-20T23:00:00+00:00",
        "features": (FeatureDrift("load_pu", 2.0, 1.0),),
        "errors": ErrorDrift(0, None, 1.0, 1.5),
        "created_at": dt.datetime.now(dt.UTC).isoformat(),
    }
    drifted = DriftReport(**values | changes)
    write_report(drifted, Settings.from_env(environ))
    return drifted


def test_no_report_and_no_drift_are_skipped_with_a_reason(environ: dict[str, str], sensor: Sensor) -> None:
    assert "no drift report yet" in sensor.skipped()
    report(environ, features=(FeatureDrift("load_pu", 0.5, 1.0),))
    assert "no drift in the data up to 2024-03-20" in sensor.skipped()


def test_drift_requests_one_run_with_a_split_version_of_its_own(environ: dict[str, str], sensor: Sensor) -> None:
    report(environ)
    request = sensor.requested()
    assert request.run_config == {"resources": {"training": {"config": {"split_version": "yard@20240320T2300"}}}}
    assert request.tags["drift/cause"] == "feature:load_pu"
    assert request.tags["drift/pair_version"] == "1"
    # Until there is a run, the same look asks for the same one.
    assert sensor.requested().run_key == request.run_key
    run_id = sensor.run(request, DagsterRunStatus.STARTED)
    assert f"run {run_id} is not over yet" in sensor.skipped()
    # A later report about the same cause, half a week on.
    report(environ, data_until="2024-03-24T23:00:00+00:00")
    assert isinstance(sensor.look(), SkipReason)


def test_what_drift_asked_for_is_known_however_many_other_runs_there_are(
    environ: dict[str, str], sensor: Sensor
) -> None:
    report(environ)
    first = sensor.run(sensor.requested(), DagsterRunStatus.SUCCESS)
    others = [create_run_for_test(sensor.instance, job_name=TRAIN, status=DagsterRunStatus.SUCCESS) for _ in range(40)]
    assert f"run {first} has succeeded on feature:load_pu already" in sensor.skipped()
    known = training_runs(sensor.instance, EXPERIMENT, dt.datetime.now(dt.UTC))
    assert [each.run_id for each in known] == [*(run.run_id for run in others[:-31:-1]), first]


def test_runs_are_known_as_far_back_as_the_policy_looks(environ: dict[str, str], sensor: Sensor) -> None:
    report(environ)
    request = sensor.requested()
    older = sensor.run(request, DagsterRunStatus.FAILURE)
    tries = [older, sensor.run(RunRequest(tags={**request.tags, ATTEMPT_TAG: "2"}), DagsterRunStatus.FAILURE)]
    for _ in range(40):
        create_run_for_test(sensor.instance, job_name=TRAIN, status=DagsterRunStatus.SUCCESS)

    def asked(hours: float, **policy: Any) -> list[str]:
        now = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
        known = training_runs(sensor.instance, EXPERIMENT, now, RetrainConfig(**policy))
        return [each.run_id for each in known if each.request]

    assert asked(700) == tries[::-1]
    assert asked(40, expire_hours=1, max_retries=0) == tries[::-1]
    # What is forgotten is known as far as a new request needs it: its newest run, with the tries before it.
    assert asked(800) == tries[::-1]
    other = sensor.run(RunRequest(tags={**request.tags, REQUEST_TAG: "another"}), DagsterRunStatus.SUCCESS)
    assert asked(700) == [other, *tries[::-1]]
    for _ in range(40):
        create_run_for_test(sensor.instance, job_name=TRAIN, status=DagsterRunStatus.SUCCESS)
    assert asked(800) == [other]


@pytest.mark.parametrize("tag", ["not json", '{"a": 1}', "[1]", "7"])
def test_tags_that_people_wrote_are_left_out_with_a_warning(
    environ: dict[str, str], sensor: Sensor, caplog: pytest.LogCaptureFixture, tag: str
) -> None:
    report(environ)
    request = sensor.requested()
    tags = {**request.tags, CAUSES_TAG: tag, DRIFT_DATA_TAG: "yesterday", DRIFT_ROWS_TAG: "many"}
    run_id = sensor.run(RunRequest(tags=tags), DagsterRunStatus.SUCCESS)
    assert "the cool-down is 24 h" in sensor.skipped()
    (known,) = training_runs(sensor.instance, EXPERIMENT, dt.datetime.now(dt.UTC))
    assert (known.causes, known.data_until, known.rows) == ((), None, None)
    warned = [each.getMessage() for each in caplog.records if run_id in each.getMessage()]
    assert any(CAUSES_TAG in each for each in warned)
    assert any(DRIFT_DATA_TAG in each for each in warned)


def test_a_run_knows_how_many_rows_a_table_had(environ: dict[str, str], sensor: Sensor) -> None:
    report(environ)
    assert DRIFT_ROWS_TAG not in sensor.requested().tags
    report(environ, rows=4000)
    sensor.run(sensor.requested(), DagsterRunStatus.SUCCESS)
    (known,) = training_runs(sensor.instance, EXPERIMENT, dt.datetime.now(dt.UTC))
    assert known.rows == 4000


def test_a_cause_is_done_once_its_run_succeeded(environ: dict[str, str], sensor: Sensor) -> None:
    report(environ)
    run_id = sensor.run(sensor.requested(), DagsterRunStatus.SUCCESS)
    assert f"run {run_id} has succeeded on feature:load_pu already" in sensor.skipped()


def test_a_failed_run_is_asked_for_again_after_a_pause(environ: dict[str, str], sensor: Sensor) -> None:
    report(environ)
    first = sensor.requested()
    run_id = sensor.run(first, DagsterRunStatus.FAILURE)
    assert f"run {run_id} failed; it is tried again at" in sensor.skipped()
    now = dt.datetime.now(dt.UTC)
    (failed,) = training_runs(sensor.instance, EXPERIMENT, now)
    assert (failed.state, failed.request, failed.attempt) == ("failed", first.tags[REQUEST_TAG], 1)
    assert failed.causes == ("feature:load_pu",)
    write_conf(
        Path(environ["MLPLATFORM_CONF_DIR"]),
        experiment={"drift": {"retrain": {**EAGER["retrain"], "retry_minutes": 1e-6}}},
    )
    again = Sensor(environ, sensor.instance).requested()
    assert again.tags[REQUEST_TAG] == first.tags[REQUEST_TAG]
    assert again.tags[ATTEMPT_TAG] == "2"
    assert again.run_key != first.run_key


def test_another_cause_within_the_cooldown_is_skipped(environ: dict[str, str], sensor: Sensor) -> None:
    report(environ)
    sensor.run(sensor.requested(), DagsterRunStatus.SUCCESS)
    report(environ, pair_version=2)
    assert "the cool-down is 24 h" in sensor.skipped()


def test_broken_data_request_nothing_whatever_has_drifted(environ: dict[str, str], sensor: Sensor) -> None:
    report(environ, quality=(QualityBreak("stuck", "ambient_c", "one value for 30 steps"),))
    assert "stuck:ambient_c" in sensor.skipped()


def test_a_suspicion_and_a_novel_season_request_nothing(environ: dict[str, str], sensor: Sensor) -> None:
    for status in ("suspected", "trend", "novel season", "not enough history", "broken"):
        report(environ, features=(FeatureDrift("load_pu", 2.0, 1.0, status=status),))
        assert isinstance(sensor.look(), SkipReason)


def test_every_decision_is_kept_with_what_it_came_from(environ: dict[str, str], sensor: Sensor) -> None:
    first = report(environ)
    for _ in range(3):
        request = sensor.requested()
    sensor.run(request, DagsterRunStatus.SUCCESS)
    sensor.skipped()
    kept = list(Journal(Settings.from_env(environ), EXPERIMENT).read())
    assert [each.decision.outcome for each in kept] == ["train", "done"]
    assert [each.created_at for each in kept[0].inputs.reports] == [first.created_at]
    assert kept[0].inputs.runs == ()
    assert kept[1].inputs.runs[0].request == kept[0].decision.request


def test_a_report_that_cannot_be_read_is_none_and_named(
    environ: dict[str, str], sensor: Sensor, caplog: pytest.LogCaptureFixture
) -> None:
    report(environ)
    (path,) = (Path(environ["MLPLATFORM_HOME"]) / "monitoring").rglob("*.json")
    path.write_text("{}")
    assert "no drift report yet" in sensor.skipped()
    assert str(path) in caplog.text


def test_the_train_job_accepts_the_request(yard: Yard, environ: dict[str, str], sensor: Sensor) -> None:
    report(environ)
    job = yard.definitions().resolve_job_def(TRAIN)
    assert validate_run_config(job, sensor.requested().run_config)


def test_a_run_that_was_never_launched_holds_nothing_up_for_ever(environ: dict[str, str], sensor: Sensor) -> None:
    report(environ)
    sensor.run(sensor.requested(), DagsterRunStatus.NOT_STARTED)
    now = dt.datetime.now(dt.UTC)
    states = [training_runs(sensor.instance, EXPERIMENT, now + dt.timedelta(hours=later))[0].state for later in (0, 2)]
    assert states == ["open", "failed"]


def test_a_run_that_dagster_repeats_by_itself_is_neither_failed_nor_counted_twice(
    environ: dict[str, str], sensor: Sensor
) -> None:
    report(environ)
    request = sensor.requested()
    first = sensor.run(request, DagsterRunStatus.FAILURE)
    sensor.instance.add_run_tags(first, {"dagster/will_retry": "true"})
    assert training_runs(sensor.instance, EXPERIMENT, dt.datetime.now(dt.UTC))[0].state == "open"
    second = sensor.run(request, DagsterRunStatus.SUCCESS)
    sensor.instance.add_run_tags(first, {"dagster/auto_retry_run_id": second})
    assert [each.run_id for each in training_runs(sensor.instance, EXPERIMENT, dt.datetime.now(dt.UTC))] == [second]


def test_a_look_that_hangs_costs_one_thread_and_says_so() -> None:
    release = threading.Event()
    with pytest.raises(LookTookTooLongError, match=r"took longer than 0\.05 s"):
        within_budget("hangs", lambda: release.wait(30), 0.05)
    before = threading.active_count()
    with pytest.raises(LookTookTooLongError, match="still going on"):
        within_budget("hangs", lambda: release.wait(30), 0.05)
    assert threading.active_count() == before
    release.set()
    while any(thread.name == "hangs" for thread in threading.enumerate()):
        release.wait(0.01)
    assert within_budget("hangs", lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        within_budget("hangs", lambda: 1 // 0, 5)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained yard whose drift sensor is on and has a reason to ask for a run."""
    folder = tmp_path_factory.mktemp("watched")
    automation = {"running": ["drift"], "drift_interval_s": 5}
    write_conf(folder / "conf", experiment={"drift": EAGER, "automation": automation})
    report(Yard.at(folder).environ)
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("moment", ["DECISION_KEPT", "RUN_IDS_RESERVED", "RUN_CREATED"])
def test_a_daemon_that_dies_between_tick_request_and_run_leads_to_one_training(
    watched: Path, tmp_path: Path, moment: str
) -> None:
    shutil.copytree(watched, tmp_path / "plant")
    folder = tmp_path / "plant"
    assert run_daemon(folder, 0, die_at=moment) == -9
    # It comes back, and looks again, and again.
    assert run_daemon(folder, 1, 2) == 0
    with Yard.at(folder).instance as instance:
        (run,) = instance.get_runs()
    assert run.job_name == TRAIN
    assert run.status == DagsterRunStatus.QUEUED
