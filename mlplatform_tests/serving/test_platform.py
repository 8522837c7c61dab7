"""The platform's routes, against a real Dagster webserver that the test starts."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from mlplatform.monitoring import write_report
from mlplatform.monitoring.quality import QualityBreak
from mlplatform.settings import Settings
from mlplatform.testing.drift_reports import yard_report
from mlplatform.testing.yard import EXPERIMENT, Yard
from serving.api import build_app
from serving.local import LocalBackend
from serving.platform import routes

TOKEN = "an-admin-token-of-this-test"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
TRAIN = f"/platform/experiments/{EXPERIMENT}/train"


@dataclass
class Installation:
    """A trained yard behind a server, with Dagster's webserver beside it."""

    client: TestClient
    settings: Settings

    def post(self, path: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
        headers = ADMIN | ({"Idempotency-Key": key} if key else {})
        return self.client.post(path, json=body, headers=headers)

    def audit(self) -> list[dict[str, Any]]:
        (path,) = (self.settings.home / "platform").glob("audit-*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines() if line]


@pytest.fixture(scope="module")
def dagster(trained_yard: Yard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Yard, str]]:
    """Dagster's webserver over the yard; runs are launched and wait in its queue, because no daemon runs."""
    folder = tmp_path_factory.mktemp("platform")
    yard = trained_yard.clone_to(folder)
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        **os.environ,
        **yard.environ,
        "DAGSTER_HOME": str(home),
        "MLPLATFORM_TESTING_YARD": str(folder),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", "dagster_webserver", "-m", "mlplatform.testing.daemon", "-p", str(port)]
    with (folder / "webserver.log").open("w") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while not _answers(url):
            assert process.poll() is None, (folder / "webserver.log").read_text()
            assert time.monotonic() < deadline, "the webserver did not start"
            time.sleep(0.2)
        yield yard, url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture
def installation(dagster: tuple[Yard, str]) -> Iterator[Installation]:
    yard, url = dagster
    settings = replace(yard.settings, experiment=EXPERIMENT, admin_token=TOKEN, dagster_url=url)
    with TestClient(build_app({EXPERIMENT: LocalBackend(settings)}, settings)) as client:
        yield Installation(client, settings)


pytestmark = pytest.mark.integration


def test_a_training_is_launched_recorded_and_can_be_looked_at(installation: Installation) -> None:
    body = {"why": "the fans were replaced", "who": "ana", "model_version": "yard", "dry_run": True}
    launched = installation.post(TRAIN, body)
    assert launched.status_code == 202, launched.text
    run = launched.json()
    assert (run["job"], run["status"], run["repeated"]) == (f"train_{EXPERIMENT}", "QUEUED", False)
    found = installation.client.get(f"/platform/runs/{run['run_id']}", headers=ADMIN).json()
    assert found["run_id"] == run["run_id"]
    assert found["page"] == f"{installation.settings.dagster_url}/runs/{run['run_id']}"
    asked, done = installation.audit()[-2:]
    assert (asked["step"], done["step"], done["run_id"]) == ("asked", "launched", run["run_id"])
    assert (asked["who"], asked["why"], asked["action"]) == ("ana", "the fans were replaced", "train")
    assert asked["asked"] == {"model_version": "yard", "dry_run": True, "despite_broken_data": False}
    assert asked["token"].startswith("token ")
    assert TOKEN not in json.dumps(installation.audit())


def test_rollback_and_promote_launch_their_jobs(installation: Installation) -> None:
    for action, body in (("rollback", {"version": 1}), ("promote", {"override": True, "dry_run": True})):
        answer = installation.post(f"/platform/experiments/{EXPERIMENT}/{action}", {"why": "a test", **body})
        assert answer.status_code == 202, answer.text
        assert answer.json()["job"] == action


def test_the_same_key_launches_one_run_however_often_and_at_once(installation: Installation) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: installation.post(TRAIN, {"why": "again"}, key="k-1"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 202]
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    other = installation.post(TRAIN, {"why": "another"}, key="k-1")
    assert (other.status_code, other.json()["error"]["code"]) == (422, "key_reused")
    # A key is one of its route.
    rollback = installation.post(f"/platform/experiments/{EXPERIMENT}/rollback", {"why": "again"}, key="k-1")
    assert rollback.status_code == 202


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_request"),
        ({"why": ""}, 422, "invalid_request"),
        ({"why": " \t\n"}, 422, "invalid_request"),
        ({"why": "x", "nonsense": 1}, 422, "invalid_request"),
        ({"why": "x", "model_version": "no_such"}, 422, "invalid_versions"),
        ({"why": "x", "split_version": "yard@yesterday"}, 422, "invalid_versions"),
        ([], 422, "invalid_request"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_launched(
    installation: Installation, body: Any, status: int, code: str
) -> None:
    answer = installation.post(TRAIN, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_strangers_unknown_names_and_bad_keys(installation: Installation) -> None:
    client = installation.client
    for path in ("/platform/experiments", "/platform/runs/x"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.post(TRAIN, json={"why": "x"}).status_code == 401
    unknown = installation.post("/platform/experiments/nothing_such/train", {"why": "x"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_experiment")
    for run_id in ("00000000-0000-0000-0000-000000000000", "..%2f", "x" * 300):
        assert client.get(f"/platform/runs/{run_id}", headers=ADMIN).status_code == 404
    assert installation.post(TRAIN, {"why": "x"}, key="x" * 129).status_code == 422


def test_broken_data_are_not_trained_on_unless_someone_says_so(installation: Installation) -> None:
    report = yard_report(
        created_at=dt.datetime.now(dt.UTC).isoformat(),
        quality=(QualityBreak("stuck", "load_pu", ""),),
    )
    path = write_report(report, installation.settings)
    try:
        refused = installation.post(TRAIN, {"why": "x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "data_broken")
        assert "stuck:load_pu" in refused.json()["detail"]
        assert installation.post(TRAIN, {"why": "x", "despite_broken_data": True}).status_code == 202
        (listed,) = installation.client.get("/platform/experiments", headers=ADMIN).json()["experiments"]
        assert listed["drift"]["broken"] == ["stuck:load_pu"]
        assert listed["drift"]["live_error"] == pytest.approx(3.0)
    finally:
        path.unlink()


def test_a_damaged_report_hides_no_experiment(installation: Installation) -> None:
    path = write_report(yard_report(), installation.settings)
    path.write_text(path.read_text()[:100])
    try:
        (listed,) = installation.client.get("/platform/experiments", headers=ADMIN).json()["experiments"]
        assert (listed["experiment"], listed["drift"]) == (EXPERIMENT, None)
        assert installation.post(TRAIN, {"why": "x"}).status_code == 202
    finally:
        path.unlink()


def test_a_repeat_has_its_run_whatever_broke_since_and_what_is_refused_is_recorded(installation: Installation) -> None:
    body = {"why": "  the fans were replaced ", "who": " ana "}
    launched = installation.post(TRAIN, body, key="k-broken")
    assert launched.status_code == 202, launched.text
    assert (installation.audit()[-1]["why"], installation.audit()[-1]["who"]) == ("the fans were replaced", "ana")
    report = yard_report(quality=(QualityBreak("stuck", "load_pu", ""),))
    path = write_report(report, installation.settings)
    try:
        again = installation.post(TRAIN, body, key="k-broken")
        assert (again.status_code, again.json()["repeated"]) == (200, True), again.text
        assert again.json()["run_id"] == launched.json()["run_id"]
        assert installation.audit()[-1]["step"] == "repeated"
        unknown = "/platform/experiments/nothing_such/train"
        for where, asked, key, status, code in (
            (TRAIN, {"why": "x"}, None, 409, "data_broken"),
            (TRAIN, {"why": "x"}, "k-new", 409, "data_broken"),
            (TRAIN, {"why": "x", "model_version": "no_such"}, "k-new", 422, "invalid_versions"),
            (unknown, {"why": "x"}, None, 404, "unknown_experiment"),
        ):
            before = len(installation.audit())
            answer = installation.post(where, asked, key=key)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
            first, last = installation.audit()[before:]
            assert (first["step"], last["step"], last["outcome"]) == ("asked", "refused", code)
    finally:
        path.unlink()
    # What was refused has launched nothing, so that its key is free.
    assert installation.post(TRAIN, {"why": "x"}, key="k-new").status_code == 202


def test_a_fault_of_the_server_is_recorded_too(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of this test")

    monkeypatch.setattr(routes, "load_experiment", fail)
    app = build_app({EXPERIMENT: LocalBackend(installation.settings)}, installation.settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post(TRAIN, json={"why": "x"}, headers=ADMIN).status_code == 500
    assert installation.audit()[-1]["outcome"] == "internal_error"


def test_a_blank_reason_is_none_and_overrides_nothing(installation: Installation) -> None:
    for action in ("rollback", "promote"):
        path = f"/platform/experiments/{EXPERIMENT}/{action}"
        answer = installation.post(path, {"why": "   ", "override": True} if action == "promote" else {"why": "   "})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request"), answer.text
        assert [each["field"] for each in answer.json()["error"]["details"]] == ["why"]


def test_a_token_gives_so_many_orders_at_once(installation: Installation) -> None:
    answers = [installation.post(TRAIN, {}) for _ in range(25)]
    assert [answer.status_code for answer in answers[:20]] == [422] * 20
    assert (answers[-1].status_code, answers[-1].json()["error"]["code"]) == (429, "rate_limited")
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_experiments_are_listed_with_versions_aliases_and_the_gate_s_word(installation: Installation) -> None:
    (listed,) = installation.client.get("/platform/experiments", headers=ADMIN).json()["experiments"]
    assert (listed["experiment"], listed["production"]) == (EXPERIMENT, 1)
    (version,) = listed["versions"]
    assert version["aliases"] == ["production", "staging"]
    assert version["gate_passed"]
    assert "beats the baselines" in version["gate"]


def test_without_its_registry_s_server_the_list_says_so(installation: Installation) -> None:
    settings = replace(installation.settings, mlflow_tracking_uri="http://ana:secret@127.0.0.1:9")
    with TestClient(build_app({EXPERIMENT: LocalBackend(settings)}, settings)) as client:
        away = client.get("/platform/experiments", headers=ADMIN)
    assert (away.status_code, away.json()["error"]["code"]) == (503, "registry_unavailable")
    assert "http://127.0.0.1:9" in away.json()["detail"].replace("***@", "")
    assert "secret" not in away.text
    assert away.headers["retry-after"] == "5"


def test_where_nothing_was_registered_the_list_is_empty_and_makes_no_registry(installation: Installation) -> None:
    database = installation.settings.home / "none" / "mlflow.db"
    settings = replace(installation.settings, mlflow_tracking_uri=f"sqlite:///{database}")
    with TestClient(build_app({EXPERIMENT: LocalBackend(settings)}, settings)) as client:
        assert client.get("/platform/experiments", headers=ADMIN).json() == {"experiments": []}
    assert not database.exists()


def test_without_a_dagster_the_answer_says_so_and_the_record_too(installation: Installation) -> None:
    settings = replace(installation.settings, dagster_url="http://127.0.0.1:9")
    with TestClient(build_app({EXPERIMENT: LocalBackend(settings)}, settings)) as client:
        away = client.post(TRAIN, json={"why": "x"}, headers=ADMIN)
    assert (away.status_code, away.json()["error"]["code"]) == (503, "dagster_unavailable")
    assert away.headers["retry-after"] == "5"
    assert installation.audit()[-1]["outcome"] == "dagster_unavailable"


def test_the_routes_are_in_the_api_s_description(installation: Installation) -> None:
    paths = installation.client.get("/openapi.json").json()["paths"]
    train = paths["/platform/experiments/{name}/train"]["post"]
    assert {"401", "409", "422", "503"} <= set(train["responses"])
    assert "application/problem+json" in train["responses"]["409"]["content"]
    assert any(parameter["name"] == "Idempotency-Key" for parameter in train["parameters"])
    assert "why" in train["requestBody"]["content"]["application/json"]["schema"]["properties"]
