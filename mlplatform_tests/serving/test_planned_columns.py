"""A planned column that a pair does not name as known, read by it or not: every forecast begins behind the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from mlplatform.datamodule import read_manifest
from mlplatform.datamodule.history import may_end, planned_columns
from mlplatform.forecasts import make_forecasts, read_forecasts
from mlplatform.registry import Contract
from mlplatform.registry.tracking import open_tracking
from mlplatform.settings import Settings
from mlplatform.testing.meters import meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

# All of it lies in the past: no clock tells what is planned from what was measured.
END = pd.Timestamp("2024-01-20T23:00:00Z")
PLANNED = {"planned": 8, "patchy": 8}
NAMES = ("planned", "patchy", "plain", "dead")
# The load of `dead` fell silent for the last hours, while its shifts were measured on.
DEAD = 10
HORIZON, LOOKBACK = 6, 24


def rows_of() -> pd.DataFrame:
    rows = meter_rows(dict.fromkeys(NAMES, 480), end=END.isoformat())
    ahead = [
        pd.DataFrame({"time": pd.date_range(END, periods=steps + 1, freq="h")[1:], "line": name})
        for name, steps in PLANNED.items()
    ]
    rows["time"] = pd.to_datetime(rows["time"], utc=True)
    rows = pd.concat([rows, *ahead], ignore_index=True)
    # A plan may have holes.
    rows = rows[~((rows["line"] == "patchy") & (rows["time"] == END + pd.Timedelta(hours=3)))]
    rows["shift"] = (rows["time"].dt.hour < 12).astype(float)
    rows["heat"] = (20 + rows["load"]).where(rows["time"] <= END)
    is_dead = (rows["line"] == "dead") & (rows["time"] > END - pd.Timedelta(hours=DEAD))
    return rows.assign(load=rows["load"].mask(is_dead))


def trained(folder: Path, mlflow_database: Path, columns: list[str]) -> Yard:
    yard = meter_yard(
        folder,
        mlflow_database,
        rows_of().assign(time=lambda rows: rows["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")),
        dataset={"columns": {"load": {}, "shift": {}, "heat": {}}},
        features={"columns": columns},
    )
    assert yard.run(TRAIN).success
    return yard


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    return trained(tmp_path_factory.mktemp("planned"), mlflow_database, ["load", "shift", "heat"])


@pytest.fixture(scope="module")
def client(yard: Yard) -> Iterator[TestClient]:
    with served(yard) as client:
        yield client


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    """An installation whose pair reads nothing but its target."""
    return trained(tmp_path_factory.mktemp("blind"), mlflow_database, ["load"])


@contextmanager
def served(yard: Yard) -> Iterator[TestClient]:
    settings = Settings.from_env({**yard.environ, "MLPLATFORM_EXPERIMENT": EXPERIMENT})
    with TestClient(build_app({EXPERIMENT: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        yield client


Answers = dict[str, tuple[str, float, tuple[float, ...]]]


def of_http(answer: Any) -> Answers:
    """Return per machine the first moment that is forecast, the share observed and the values."""
    assert answer.status_code == 200, answer.text
    return {
        each["entity"]: (each["timestamps"][0], each["observed"], tuple(np.float32(each["values"]["load"]).tolist()))
        for each in answer.json()["forecasts"]
    }


def of_table(table: pd.DataFrame, time: str, value: str) -> Answers:
    return {
        name: (
            f"{pd.Timestamp(rows[time].iloc[0]):%Y-%m-%dT%H:%M:%SZ}",
            float(rows["observed"].iloc[0]),
            tuple(np.float32(rows[value]).tolist()),
        )
        for name, rows in table.groupby("entity_id")
    }


def sent(columns: Sequence[str] = ("load", "shift", "heat")) -> list[dict[str, Any]]:
    """Return the rows of a client that exports what it has: its newest days, plans and all."""
    rows = rows_of()[["line", "time", *columns]]
    rows = rows[(rows["time"] > END - pd.Timedelta(hours=60)) & (rows["line"] != "patchy")]
    found = rows.assign(time=rows["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).astype(object)
    return found.where(found.notna(), None).to_dict("records")


def test_what_goes_on_behind_the_target_is_noted_when_a_pair_is_trained(yard: Yard) -> None:
    assert read_manifest(yard.settings, "yard", "yard").planned == ("shift",)
    contract = yard.pairs.resolve(EXPERIMENT).contract
    assert (contract.known, contract.planned) == ((), ("shift",))
    assert Contract.from_json(contract.to_json()) == contract
    assert "planned" not in replace(contract, planned=()).to_json()


def test_every_route_begins_behind_the_last_observed_target(client: TestClient, yard: Yard) -> None:
    stored = of_http(client.post("/predict/feast/batch", json={"entities": list(NAMES)}))
    first = f"{END + pd.Timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    assert {name: told[0] for name, told in stored.items()} == dict.fromkeys(NAMES, first)
    # Where other things were measured on, a silent target is a gap, and shows as one.
    assert {name: told[1] for name, told in stored.items()} == {
        **dict.fromkeys(NAMES, 1.0),
        "dead": (LOOKBACK - DEAD) / LOOKBACK,
    }
    later = client.post("/predict/feast/batch", json={"entities": list(NAMES), "time_point": "2024-02-01T00:00:00Z"})
    assert of_http(later) == stored
    within = client.post("/predict/feast/batch", json={"entities": list(NAMES), "time_point": "2024-01-21T02:00:00Z"})
    assert of_http(within) == stored
    make_forecasts(yard.config, yard.settings)
    assert of_table(read_forecasts(yard.settings, EXPERIMENT), "timestamp", "value") == stored

    told = {name: stored[name] for name in NAMES if name != "patchy"}
    assert of_http(client.post("/predict", json={"rows": sent()})) == told
    open_tracking(yard.settings)
    rows = rows_of().rename(columns={"line": "entity_id", "time": "event_timestamp"})
    answers = mlflow.pyfunc.load_model(f"models:/{EXPERIMENT}_forecaster@production").predict(rows)
    assert of_table(answers, "event_timestamp", "load") == stored


def test_a_plan_that_a_pair_does_not_read_is_no_past_either(blind: Yard) -> None:
    contract = blind.pairs.resolve(EXPERIMENT).contract
    assert (contract.columns, contract.planned, contract.reads_plans) == (("load",), ("shift",), False)
    assert Contract.from_json(contract.to_json()) == contract
    # Of its own columns nothing tells a silent target from a plan.
    begins = dict.fromkeys(NAMES, END) | {"dead": END - pd.Timedelta(hours=DEAD)}
    with served(blind) as client:
        stored = of_http(client.post("/predict/feast/batch", json={"entities": list(NAMES)}))
        assert {name: told[:2] for name, told in stored.items()} == {
            name: (f"{end + pd.Timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}", 1.0) for name, end in begins.items()
        }
        for moment in ("2024-02-01T00:00:00Z", "2024-01-21T02:00:00Z"):
            body = {"entities": list(NAMES), "time_point": moment}
            assert of_http(client.post("/predict/feast/batch", json=body)) == stored
        told = {name: stored[name] for name in NAMES if name != "patchy"}
        assert of_http(client.post("/predict", json={"rows": sent(["load"])})) == told
        silent = [{**row, "load": None} for row in sent(["load"]) if row["line"] == "plain"]
        unknown = client.post("/predict", json={"rows": [*sent(["load"]), *({**row, "line": "new"} for row in silent)]})
        assert {each["entity"] for each in unknown.json()["forecasts"]} >= set(told) | {"new"}
    make_forecasts(blind.config, blind.settings)
    assert of_table(read_forecasts(blind.settings, EXPERIMENT), "timestamp", "value") == stored
    open_tracking(blind.settings)
    rows = rows_of().rename(columns={"line": "entity_id", "time": "event_timestamp"})
    answers = mlflow.pyfunc.load_model(f"models:/{EXPERIMENT}_forecaster@production").predict(rows)
    assert of_table(answers, "event_timestamp", "load") == stored


def test_planned_is_what_goes_on_behind_the_last_target_of_all() -> None:
    rows = rows_of().rename(columns={"line": "entity_id", "time": "event_timestamp"})
    assert planned_columns(rows, ["load"]) == ("shift",)
    assert planned_columns(rows[rows["event_timestamp"] <= END], ["load"]) == ()
    assert planned_columns(rows, []) == planned_columns(rows.iloc[:0], ["load"]) == ()


@pytest.mark.parametrize(
    ("more", "plan", "expected"),
    [
        ("110000", "111111", "110000"),
        ("110100", "111001", "111100"),
        # Without a plan behind it, what is empty is a gap.
        ("110000", "110000", "111111"),
        # A hole in a plan is no gap of the past.
        ("110000", "000100", "110000"),
        ("000000", "000000", "111111"),
        # Nobody knows whether there is a plan.
        ("110100", None, "111100"),
        ("111111", None, "111111"),
    ],
)
def test_a_past_ends_before_a_plan_but_not_before_a_gap(more: str, plan: str | None, expected: str) -> None:
    says_more, ends = (np.array([[step == "1" for step in text]]) for text in (more, expected))
    says_plan = None if plan is None else np.array([[step == "1" for step in plan]])
    assert may_end(says_more, says_plan).tolist() == ends.tolist()
