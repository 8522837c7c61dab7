"""Old features over HTTP: refused or marked as the experiment's configuration says, which a reload reads anew."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from mlplatform.config import StalenessConfig
from mlplatform.monitoring.prediction_log import read_predictions
from mlplatform_tests.serving.conftest import HOURS, START, TOKEN, Platform, put_online
from mlplatform_tests.serving.installation import Installation
from mlplatform_tests.serving.test_api import ENTITIES, refusal, sample
from serving.bundle import BundleHolder, BundleLoader
from serving.errors import ErrorDetail, StaleFeaturesRefusedError

ADMIN = {"authorization": f"Bearer {TOKEN}"}
NEWEST = START + (HOURS - 1) * np.timedelta64(1, "h")


def hours_old(extra: float) -> str:
    """Return a limit that lies `extra` hours above the age of the newest rows."""
    age = np.datetime64(dt.datetime.now(dt.UTC).replace(tzinfo=None), "ns") - NEWEST
    return f"{int(age / np.timedelta64(1, 'h') + extra)}h"


@pytest.fixture
def installation(platform: Platform, tmp_path: Path) -> Installation:
    return Installation(platform, tmp_path)


def test_refuse_answers_409_with_entities_ages_and_the_limit(installation: Installation) -> None:
    installation.set_policy({"max_age": "6h"})
    with installation.serving() as client:
        error = refusal(client.post(ENTITIES, json={"entities": [2, 1]}), 409, "stale_features")
        metrics = client.get("/metrics").text
        assert client.get("/health/ready").status_code == 200
    newest = pd.Timestamp(NEWEST).isoformat()
    assert [detail["found"].split(":")[0] for detail in error["details"]] == ["2", "1"]
    assert f"newest row {newest}+00:00, age " in error["details"][0]["found"]
    assert error["details"][0]["expected"] == "features of dataset tiny at most 6:00:00 old"
    assert "older than the limit of 6:00:00: 2 (newest row" in error["message"]
    assert sample(metrics, 'mlplatform_stale_features_total{experiment="tiny_forecast",outcome="refused"}') == 2
    age = dt.datetime.now(dt.UTC) - pd.Timestamp(NEWEST, tz="UTC")
    assert sample(metrics, "mlplatform_feature_age_seconds{") == pytest.approx(age.total_seconds(), abs=60)
    assert "mlplatform_predictions_total{" not in metrics


def test_only_the_entities_that_are_too_old_are_named(installation: Installation, tmp_path: Path) -> None:
    platform = installation.platform
    behind = platform.raw[(platform.raw.entity_id != 3) | (platform.raw.event_timestamp < "2026-01-04T00:00Z")]
    settings = installation.settings(home=tmp_path / "state")
    put_online(behind, BundleLoader(settings).config().dataset, settings)
    installation.set_policy({"max_age": hours_old(10)})
    with installation.serving(home=tmp_path / "state") as client:
        error = refusal(client.post(ENTITIES, json={"entities": [1, 3, 2], "on_error": "fail"}), 409, "stale_features")
        assert [detail["found"].split(":")[0] for detail in error["details"]] == ["3"]
        assert client.post(ENTITIES, json={"entities": [1, 2]}).status_code == 200
        installation.set_policy({"max_age": hours_old(10), "action": "flag"})
        assert client.post("/admin/reload", headers=ADMIN).status_code == 200
        forecasts = client.post(ENTITIES, json={"entities": [1, 3, 2]}).json()["forecasts"]
    assert [(forecast["entity"], forecast["stale"]) for forecast in forecasts] == [(1, False), (3, True), (2, False)]
    assert forecasts[1]["age_seconds"] - forecasts[0]["age_seconds"] == pytest.approx(48 * 3600, abs=1)
    assert forecasts[1]["event_time"] == forecasts[1]["window_end"] == "2026-01-03T23:00:00Z"


def test_flag_answers_marks_and_counts(installation: Installation) -> None:
    installation.set_policy({"max_age": "6h", "action": "flag"})
    with installation.serving() as client:
        answer = client.post(ENTITIES, json={"entities": [2, 1]}, headers={"x-request-id": "marked"}).json()
        rows = client.post("/predict", json={"rows": installation.platform.rows()}).json()
        metrics = client.get("/metrics").text
    assert [forecast["stale"] for forecast in answer["forecasts"]] == [True, True]
    assert [forecast["stale"] for forecast in rows["forecasts"]] == [False]
    assert rows["forecasts"][0]["age_seconds"] == pytest.approx(answer["forecasts"][1]["age_seconds"], abs=60)
    assert rows["forecasts"][0]["values"] == answer["forecasts"][1]["values"]
    assert sample(metrics, 'mlplatform_stale_features_total{experiment="tiny_forecast",outcome="flagged"}') == 2
    assert "marked" in set(read_predictions(installation.settings(), "tiny_forecast").request_id)


def test_a_changed_policy_holds_after_a_reload_of_the_same_pair(installation: Installation) -> None:
    with installation.serving() as client:
        assert client.post(ENTITIES, json={"entities": [1]}).status_code == 200
        installation.set_policy({"max_age": "6h"})
        assert client.post(ENTITIES, json={"entities": [1]}).status_code == 200
        reload = client.post("/admin/reload", headers=ADMIN).json()
        assert reload["swapped"] is False
        refusal(client.post(ENTITIES, json={"entities": [1]}), 409, "stale_features")
        installation.set_policy({"max_age": "6x"})
        broken = refusal(client.post("/admin/reload", headers=ADMIN), 503, "reload_failed")
        assert "max_age must be a positive time step" in broken["message"]
        refusal(client.post(ENTITIES, json={"entities": [1]}), 409, "stale_features")


def test_without_a_limit_a_forecast_that_is_past_is_marked_and_answered(installation: Installation) -> None:
    def stale(client: httpx.Client, time_point: str) -> bool:
        answer = client.post(ENTITIES, json={"entities": [1], "time_point": time_point}).json()
        return bool(answer["forecasts"][0]["stale"])

    with installation.serving() as client:
        last = client.post(ENTITIES, json={"entities": [1]}).json()["forecasts"][0]["timestamps"][-1]
        after = (pd.Timestamp(last) + pd.Timedelta("1s")).isoformat()
        assert [stale(client, moment) for moment in ("now", last, after)] == [True, False, True]
        assert client.get("/models").json()["models"][0]["max_age"] is None


@pytest.mark.parametrize("experiment", ["tiny_regression", "tiny_classification"])
def test_tabular_answers_invent_no_age_and_are_refused_too(installation: Installation, experiment: str) -> None:
    row = {"width": 2, "colour": "red"}
    with installation.serving(experiment) as client:
        prediction = client.post(ENTITIES, json={"entities": [4]}).json()["predictions"][0]
        assert (prediction["event_time"], prediction["age_seconds"], prediction["stale"]) == (None, None, False)
        answers = client.post("/predict", json={"rows": [row]}).json()["predictions"]
        timed = {**row, "event_timestamp": "2026-03-01T00:00:00Z"}
        answers += client.post("/predict", json={"rows": [timed]}).json()["predictions"]
        assert [answer["event_time"] for answer in answers] == [None, "2026-03-01T00:00:00Z"]
        assert answers[0]["age_seconds"] is None
        assert answers[1]["age_seconds"] > 0
        assert "mlplatform_feature_age_seconds{" not in client.get("/metrics").text
        installation.set_policy({"max_age": "1D"}, experiment)
        client.post("/admin/reload", headers=ADMIN)
        error = refusal(client.post(ENTITIES, json={"entities": [4]}), 409, "stale_features")
        assert error["details"][0]["found"] == "4: of unknown age, because the dataset has no time_column"
    log = read_predictions(installation.settings(), experiment)
    assert log.origin.isna().tolist()[-3:] == log.event_timestamp.isna().tolist()[-3:] == [True, True, False]


def test_a_store_without_its_tables_is_503_with_what_was_tried(installation: Installation, tmp_path: Path) -> None:
    platform, home = installation.platform, tmp_path / "state"
    settings = installation.settings(home=home)
    put_online(platform.raw, BundleLoader(settings).config().dataset, settings)
    with installation.serving(home=home) as client:
        assert client.post(ENTITIES, json={"entities": [1]}).status_code == 200
        with closing(sqlite3.connect(settings.feast_dir / "online.db")) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in tables:
                connection.execute(f'DROP TABLE "{name}"')
            connection.commit()
        error = refusal(client.post(ENTITIES, json={"entities": [1]}), 503, "feature_store_unavailable")
        assert "(1 try in 0." in error["message"]
        assert str(home) not in error["message"]
        put_online(platform.raw, BundleLoader(settings).config().dataset, settings)
        assert client.post(ENTITIES, json={"entities": [1]}).status_code == 200


def test_a_reload_without_a_change_of_policy_keeps_the_bundle(installation: Installation) -> None:
    import asyncio

    holder = BundleHolder(BundleLoader(installation.settings()))
    asyncio.run(holder.reload())
    held = holder.require()
    installation.set_policy({"max_age": "6h", "action": "flag"})
    asyncio.run(holder.reload())
    changed = holder.require()
    assert changed.staleness == StalenessConfig(max_age="6h", action="flag")
    assert changed.forecaster is held.forecaster
    asyncio.run(holder.reload())
    assert holder.require() is changed


def test_a_refusal_survives_the_way_between_processes() -> None:
    import pickle

    detail = ErrorDetail(field="entities", found="1", expected="newer", action="wait")
    error = StaleFeaturesRefusedError("old", [detail], [1, 2, 3], 60.0)
    # What Ray does with the values that replicas send each other.
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert (copy.status, copy.code, copy.message, copy.details) == (409, "stale_features", "old", (detail,))
    assert (copy.entities, copy.oldest_seconds) == ((1, 2, 3), 60.0)
