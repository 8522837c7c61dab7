"""Ids as strangers have them, from their file to the answer and the log; and one that the file says is gone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from starlette.testclient import TestClient

from mlplatform.data import ingest
from mlplatform.features.online import materialize_online
from mlplatform.features.tables import update_feature_table
from mlplatform.monitoring import read_predictions
from mlplatform.settings import Settings
from mlplatform.testing.meters import meter_rows, meter_yard, write_rows
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

# Rows of every one lie 1 above those of the one before.
NAMES = [
    "007",
    "7",
    "12E2",
    "1200",
    "site/a",
    "x?y#z%2F",
    '"q"',
    "a b",
    "Z\u00fcrich \u5317\u4eac",
    "1787654321098765437",
]
ROWS = meter_rows(dict.fromkeys(NAMES, 480))


@pytest.fixture(scope="module")
def odd_yard(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    folder = tmp_path_factory.mktemp("odd")
    rows = ROWS.assign(scrapped="")
    yard = meter_yard(folder, mlflow_database, rows, dataset={"removed_column": "scrapped"})
    assert yard.run(TRAIN).success
    return yard


@pytest.fixture(scope="module")
def settings(odd_yard: Yard) -> Settings:
    return Settings.from_env({**odd_yard.environ, "MLPLATFORM_EXPERIMENT": EXPERIMENT})


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        yield client


def test_every_id_gets_its_own_answer_and_its_own_name(client: TestClient) -> None:
    answer = client.post("/predict/feast/batch", json={"entities": NAMES[::-1]}).json()
    assert [forecast["entity"] for forecast in answer["forecasts"]] == NAMES[::-1]
    levels = [sum(forecast["values"]["load"]) / 6 for forecast in answer["forecasts"]]
    assert [round(one - other) for one, other in itertools.pairwise(levels)] == [1] * (len(NAMES) - 1)


@pytest.mark.parametrize(
    "name",
    ["07", "7.0", " 7", "12e2", "site/a\0", "Zu\u0308rich \u5317\u4eac", "1787654321098765400", "SITE/A", "a  b"],
)
def test_what_only_looks_like_one_is_unknown(client: TestClient, name: str) -> None:
    answer = client.post("/predict/feast/batch", json={"entities": [name]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_entity")


@pytest.mark.parametrize("entity", [7, 7.0, True, None, "", ["7"], {"id": "7"}])
def test_what_is_no_text_is_refused(client: TestClient, entity: object) -> None:
    assert client.post("/predict/feast/batch", json={"entities": [entity]}).status_code == 422


def test_who_was_scrapped_is_unknown(odd_yard: Yard, settings: Settings, client: TestClient) -> None:
    assert client.post("/predict/feast/batch", json={"entities": ["7", "007"]}).status_code == 200
    mark = pd.DataFrame({"time": [""], "line": ["7"], "load": [""], "scrapped": ["true"]})
    write_rows(odd_yard, pd.concat([ROWS.assign(scrapped=""), mark]))
    dataset = odd_yard.config.dataset
    assert ingest(dataset, settings).removed == 1
    update_feature_table(dataset, settings)
    assert materialize_online(dataset, settings, "incremental").removed == 1
    gone = client.post("/predict/feast/batch", json={"entities": ["7"]})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "unknown_entity")
    rest = client.post("/predict/feast/batch", json={"entities": ["7", "007"]}).json()
    assert [forecast["entity"] for forecast in rest["forecasts"]] == ["007"]
    assert [error["entity"] for error in rest["errors"]] == ["7"]


def test_the_log_knows_everybody_by_name(settings: Settings) -> None:
    with TestClient(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        assert client.post("/predict/feast/batch", json={"entities": NAMES[2:]}).status_code == 200
    assert set(NAMES[2:]) <= set(read_predictions(settings, EXPERIMENT)["entity_id"])
