"""Labels that come after the answers: by request and row or entity, corrected, and each once whatever is sent again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from mlplatform.config import load_experiment
from mlplatform.monitoring import Label, keep_labels, maintain_feedback, maintain_predictions, update_errors
from mlplatform.monitoring.error_drift import judge_errors
from mlplatform.monitoring.feedback import feedback_schema
from mlplatform.monitoring.forecast_errors.pieces import pieces
from mlplatform.settings import Settings
from mlplatform_tests.serving.conftest import TOKEN, Platform, table
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend
from serving.protocols import feedback

REGRESSION, CLASSES, FORECAST = "tiny_regression", "tiny_classification", "tiny_forecast"
ROWS = [{"width": 1.0, "colour": "red"}, {"width": 5.0, "colour": "blue"}, {"width": 9.0, "colour": "red"}]
Labels = Sequence[Mapping[str, Any]]


@pytest.fixture
def own_logs(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The installation, with empty logs and no forecasts in batch, whatever other tests left."""
    for name in ("predictions_dir", "forecasts_dir", "feedback_dir", "forecast_errors_dir"):
        monkeypatch.setattr(Settings, name, property(lambda _, name=name: tmp_path / name))
    return platform


def server(platform: Platform, model: str) -> AbstractContextManager[TestClient]:
    settings = platform.serving(model)
    return TestClient(build_app({model: LocalBackend(settings)}, settings))


def ask(client: TestClient, request: str, rows: Any = ROWS) -> list[dict[str, Any]]:
    wait_until_loaded(client)
    answer = client.post("/predict", json={"rows": rows}, headers={"x-request-id": request})
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def tell(client: TestClient, labels: Labels, **rest: Any) -> dict[str, Any]:
    answer = client.post("/feedback", json={"labels": list(labels), **rest})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def errors_of(platform: Platform, model: str) -> pd.DataFrame:
    """Return the table after an update, by request and row."""
    settings = platform.serving(model)
    update_errors(load_experiment(model, settings=settings), settings)
    frame = pd.concat([pd.read_parquet(path) for path, _ in pieces(settings, model)])
    return frame.set_index(["request_id", "request_row"]).sort_index()


def test_labels_find_their_predictions_and_count_once(own_logs: Platform) -> None:
    labels = [{"request_id": "one", "row": 2, "value": 30.0}, {"request_id": "two", "entity": 71, "value": 12.0}]
    with server(own_logs, REGRESSION) as client:
        first = ask(client, "one")
        second = ask(client, "two", [{**row, "entity_id": 70 + number} for number, row in enumerate(ROWS)])
        told = tell(client, labels)
        assert told | {"feedback_id": ""} == {"model": REGRESSION, "feedback_id": "", "labels": 2, "new": True}
        assert tell(client, labels) == told | {"new": False}
        tell(client, [{"request_id": "nobody's", "row": 0, "value": 1.0}])
    found = errors_of(own_logs, REGRESSION)
    assert found["truth"].dropna().to_dict() == {("one", 2): 30.0, ("two", 1): 12.0}
    assert found.loc[("one", 2), "error"] == pytest.approx(first[2]["value"] - 30.0)
    assert found.loc[("two", 1), "value"] == pytest.approx(second[1]["value"])
    assert set(found["truth_from"].dropna()) == {"feedback"}


def test_of_several_labels_the_one_known_last_counts_however_they_arrive(own_logs: Platform) -> None:
    label = {"request_id": "one", "row": 0}
    with server(own_logs, REGRESSION) as client:
        ask(client, "one")
        tell(client, [{**label, "value": 1.0}])
        # Established before it arrived, and before the one that is there: too late to count.
        tell(client, [{**label, "value": 2.0, "known_at": "2020-01-01T00:00:00Z"}])
        tell(client, [{**label, "value": 3.0}], id="a correction")
        assert not tell(client, [{**label, "value": 99.0}], id="a correction")["new"]
        assert not tell(client, [{**label, "value": 2.0, "known_at": "2020-01-01T00:00:00Z"}])["new"]
    assert errors_of(own_logs, REGRESSION)["truth"].dropna().to_dict() == {("one", 0): 3.0}
    # Joined into few files, and sent once more after that, they say the same.
    settings = own_logs.serving(REGRESSION)
    maintain_feedback(settings, REGRESSION, dt.datetime.now(dt.UTC))
    assert len(list((settings.feedback_dir / REGRESSION).rglob("*.parquet"))) == 1
    with server(own_logs, REGRESSION) as client:
        wait_until_loaded(client)
        tell(client, [{**label, "value": 2.0, "known_at": "2020-01-01T00:00:00Z"}])
        tell(client, [{**label, "value": 3.0}], id="a correction")
    assert errors_of(own_logs, REGRESSION)["truth"].dropna().to_dict() == {("one", 0): 3.0}


def test_labels_stay_in_the_table_when_they_are_too_old_for_their_log(own_logs: Platform) -> None:
    with server(own_logs, REGRESSION) as client:
        ask(client, "one")
        tell(client, [{"request_id": "one", "row": 1, "value": 1.0}])
    before = errors_of(own_logs, REGRESSION)
    settings = replace(own_logs.serving(REGRESSION), prediction_log_retention_days=1)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=3)
    maintain_feedback(settings, REGRESSION, later)
    assert not list((settings.feedback_dir / REGRESSION).rglob("*.parquet"))
    # Another label makes the day's piece again, beside the log and without it.
    for number, truth in enumerate((2.0, 3.0)):
        with server(own_logs, REGRESSION) as client:
            wait_until_loaded(client)
            tell(client, [{"request_id": "one", "row": 2, "value": truth}], id=str(number))
        found = errors_of(own_logs, REGRESSION)
        assert found["truth"].dropna().to_dict() == {("one", 1): 1.0, ("one", 2): truth}
        assert found.loc[("one", 1), "error"] == before.loc[("one", 1), "error"]
        maintain_predictions(settings, REGRESSION, later)


@pytest.mark.parametrize("is_joined", [False, True])
def test_a_correction_can_be_taken_back_and_a_repeat_of_the_latest_label_is_none(
    own_logs: Platform, *, is_joined: bool
) -> None:
    settings = own_logs.serving(REGRESSION)
    first, second = ([{"request_id": "one", "row": 0, "value": value}] for value in (1.0, 2.0))
    with server(own_logs, REGRESSION) as client:
        ask(client, "one")
    with server(own_logs, REGRESSION) as client:
        wait_until_loaded(client)
        tell(client, first)
        told = tell(client, second)
        # What others say of other rows meanwhile makes no new label of a repeat, nor what was known before it.
        tell(client, [{"request_id": "one", "row": 1, "value": 7.0}, {"request_id": "two", "entity": 0, "value": 7.0}])
        tell(client, [{"request_id": "one", "row": 0, "value": 9.0, "known_at": "2020-01-01T00:00:00Z"}])
        assert tell(client, second) == told | {"new": False}
        assert errors_of(own_logs, REGRESSION)["truth"].dropna().to_dict() == {("one", 0): 2.0, ("one", 1): 7.0}
        if is_joined:
            maintain_feedback(settings, REGRESSION, dt.datetime.now(dt.UTC))
        back = tell(client, first)
        assert back["new"]
        assert tell(client, first) == back | {"new": False}
        assert errors_of(own_logs, REGRESSION)["truth"].dropna().to_dict() == {("one", 0): 1.0, ("one", 1): 7.0}
        # By its entity it is the same row, so that the label by row is a correction again.
        tell(client, [{"request_id": "one", "entity": "0", "value": 5.0}])
        assert tell(client, first)["new"]
    assert errors_of(own_logs, REGRESSION)["truth"].dropna().to_dict() == {("one", 0): 1.0, ("one", 1): 7.0}


def test_labels_that_an_earlier_version_kept_are_known_and_can_be_corrected_back(own_logs: Platform) -> None:
    settings, now = own_logs.serving(REGRESSION), dt.datetime.now(dt.UTC) - dt.timedelta(minutes=3)
    first, second = ([Label(value=value, request_id="one", request_row=0)] for value in (1.0, 2.0))
    own, _ = keep_labels(settings, REGRESSION, first, now)
    (path,) = (settings.feedback_dir / REGRESSION).rglob("*.parquet")
    # They called it by what it says alone.
    plain = own.partition("-")[0]
    frame = pd.read_parquet(path).assign(feedback_id=plain)
    pq.write_table(pa.Table.from_pandas(frame, feedback_schema()), path.with_stem(plain))
    path.unlink()
    with server(own_logs, REGRESSION) as client:
        ask(client, "one")
    assert keep_labels(settings, REGRESSION, first, now + dt.timedelta(minutes=1)) == (plain, False)
    keep_labels(settings, REGRESSION, second, now + dt.timedelta(minutes=1))
    assert keep_labels(settings, REGRESSION, first, now + dt.timedelta(minutes=2))[1]
    assert errors_of(own_logs, REGRESSION)["truth"].dropna().to_dict() == {("one", 0): 1.0}


def test_a_label_of_a_request_goes_before_one_of_an_entity(own_logs: Platform) -> None:
    settings, now = own_logs.serving(REGRESSION), dt.datetime.now(dt.UTC)
    with server(own_logs, REGRESSION) as client:
        for request in ("one", "two"):
            ask(client, request, [{**row, "entity_id": 70 + number} for number, row in enumerate(ROWS)])
    keep_labels(settings, REGRESSION, [Label(value=100.0, request_id="one", request_row=1)], now)
    later = now + dt.timedelta(minutes=1)
    keep_labels(settings, REGRESSION, [Label(value=7.0, entity_id="71")], later)
    keep_labels(settings, REGRESSION, [Label(value=8.0, entity_id="71")], later + dt.timedelta(minutes=1))

    # Kept before it was refused for a dataset without entities, where it would be about every request.
    assert errors_of(own_logs, REGRESSION)["truth"].dropna().to_dict() == {("one", 1): 100.0}
    config = load_experiment(REGRESSION, settings=settings)
    dataset = config.dataset.model_copy(update={"entity_column": "id"})
    update_errors(config.model_copy(update={"dataset": dataset}), settings)
    (path,) = [path for path, _ in pieces(settings, REGRESSION)]
    found = pd.read_parquet(path).set_index(["request_id", "request_row"])
    assert found["truth"].dropna().to_dict() == {("one", 1): 100.0, ("two", 1): 8.0}


@pytest.mark.parametrize(
    ("time_column", "time", "field"),
    [
        (None, None, None),
        (None, "2026-01-01T00:00:00Z", "labels[0].time"),
        ("at", None, "labels[0].time"),
        ("at", "2026-01-01T00:00:00Z", None),
    ],
)
def test_entities_alone_name_rows_where_the_dataset_has_them(
    own_logs: Platform,
    monkeypatch: pytest.MonkeyPatch,
    time_column: str | None,
    time: str | None,
    field: str | None,
) -> None:
    config = load_experiment(REGRESSION, settings=own_logs.serving(REGRESSION))
    dataset = config.dataset.model_copy(update={"entity_column": "id", "time_column": time_column})
    monkeypatch.setattr(feedback, "load_experiment", lambda *_, **__: config.model_copy(update={"dataset": dataset}))
    with server(own_logs, REGRESSION) as client:
        answer = client.post("/feedback", json={"labels": [{"entity": 1, "value": 1.0, "time": time}]})
    found = [each["field"] for each in answer.json()["error"]["details"]] if answer.status_code == 422 else None
    assert found == (field and [field]), answer.text


def test_classes_are_right_or_wrong_and_the_live_error_is_the_share_of_wrong_ones(own_logs: Platform) -> None:
    with server(own_logs, CLASSES) as client:
        answers = ask(client, "one", ROWS * 10)
        truths = [answer["label"] if number % 3 else "unheard of" for number, answer in enumerate(answers)]
        tell(client, [{"request_id": "one", "row": row, "label": label} for row, label in enumerate(truths)])
    found = errors_of(own_logs, CLASSES)
    assert found["absolute_error"].tolist() == [0.0 if number % 3 else 1.0 for number in range(30)]
    settings = own_logs.serving(CLASSES)
    config = load_experiment(CLASSES, settings=settings)
    errors, test = judge_errors(config, settings, 1, pd.Timestamp.now(tz="UTC"), 0.1, None)
    assert (errors.predictions, errors.recent) == (30, pytest.approx(1 / 3))
    assert errors.is_drifted
    assert test is not None


def test_rows_of_the_dataset_are_labels_where_the_experiment_says_so(own_logs: Platform) -> None:
    with server(own_logs, REGRESSION) as client:
        ask(client, "one", [{**row, "entity_id": number} for number, row in enumerate(ROWS)])
    settings = own_logs.serving(REGRESSION)
    config = load_experiment(REGRESSION, settings=settings)
    dataset = config.dataset.model_copy(update={"entity_column": "id"})
    truth = config.truth.model_copy(update={"labels_from_dataset": True})
    update_errors(config.model_copy(update={"truth": truth, "dataset": dataset}), settings)
    (path,) = [path for path, _ in pieces(settings, REGRESSION)]
    found = pd.read_parquet(path).sort_values("request_row")

    assert found["truth"].tolist() == table()["weight"].tolist()[:3]
    assert set(found["truth_from"]) == {"dataset"}


@pytest.mark.parametrize(
    ("labels", "field"),
    [
        ([{"request_id": "a", "row": 0, "label": "large"}], "labels[0].value"),
        ([{"request_id": "a", "row": 0, "value": 1.0, "label": "large"}], "labels[0].value"),
        ([{"entity": 0, "value": 1.0}], "labels[0].entity"),
        ([{"entity": 1, "value": 1.0, "time": "2026-01-01T00:00:00Z"}], "labels[0].entity"),
        ([{"request_id": "a", "row": 0, "value": 1.0}] * 2, "labels[1].row"),
        (
            [{"request_id": "a", "row": 0, "value": 1.0}, {"request_id": "a", "entity": "0", "value": 2.0}],
            "labels[1].row",
        ),
        (
            [{"request_id": "a", "entity": 0, "value": 1.0}, {"request_id": "a", "entity": "0", "value": 2.0}],
            "labels[1].row",
        ),
        ([{"value": 1.0}], "labels.0"),
        ([{"request_id": "a", "value": 1.0}], "labels.0"),
        ([{"request_id": "a", "row": 0, "entity": 1, "value": 1.0}], "labels.0"),
        ([{"request_id": "a", "row": -1, "value": 1.0}], "labels.0.row"),
        ([], "labels"),
    ],
)
def test_labels_that_can_be_of_no_prediction_are_refused_and_none_is_kept(
    own_logs: Platform, labels: Labels, field: str
) -> None:
    with server(own_logs, REGRESSION) as client:
        answer = client.post("/feedback", json={"labels": list(labels)})
    assert answer.status_code == 422, answer.text
    assert field in [each["field"] for each in answer.json()["error"]["details"]]
    assert not list(own_logs.settings.feedback_dir.rglob("*.parquet"))


def test_models_that_forecast_take_no_labels_and_tokens_protect_the_route(own_logs: Platform) -> None:
    settings = own_logs.serving(FORECAST, api_tokens=("secret",))
    body = {"labels": [{"request_id": "a", "row": 0, "value": 1.0}]}
    with TestClient(build_app({FORECAST: LocalBackend(settings)}, settings)) as client:
        assert client.post("/feedback", json=body).status_code == 401
        answer = client.post("/feedback", json=body, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 409
    assert "ingest these instead" in answer.json()["error"]["message"]


def test_a_full_disk_is_said_and_loses_nothing_that_is_there(
    own_logs: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with server(own_logs, REGRESSION) as client:
        tell(client, [{"request_id": "one", "row": 0, "value": 1.0}])
        monkeypatch.setattr(pq, "write_table", refuse)
        answer = client.post("/feedback", json={"labels": [{"request_id": "one", "row": 1, "value": 1.0}]})
        assert answer.status_code == 503
        assert "No space left" in answer.json()["error"]["message"]
    assert len(list((own_logs.settings.feedback_dir / REGRESSION).rglob("*.parquet"))) == 1
