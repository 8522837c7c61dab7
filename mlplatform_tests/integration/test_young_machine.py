"""Three machines, one nine days old and one hardly measured: from the CSV to the same answers on every route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.forecasts import make_forecasts, read_forecasts, read_left_out
from mlplatform.promotion.gate import run_gate
from mlplatform.registry import open_tracking
from mlplatform.registry.pairs import PRODUCTION
from mlplatform.testing.meters import meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

pytestmark = pytest.mark.integration

HORIZON, CONTEXT = 6, 6
YOUNG = 9 * 24
HOURS = {"whole": 200 * 24, "gappy": 200 * 24, "young": YOUNG}
END = "2024-06-01T00:00:00Z"
# Of the newest days of `gappy`, the last third of each was measured.
GAPPY = 20 * 24


class Told(NamedTuple):
    """What a route says of a machine: nothing but that it refuses, or a forecast of `HORIZON` values."""

    observed: float
    is_fallback: bool
    values: tuple[float, ...]


Answers = dict[str, Told | str]
REFUSED = "too_little_observed"


def measured() -> pd.DataFrame:
    rows = meter_rows(HOURS, end=END)
    hour = rows.groupby("line").cumcount(ascending=False)
    is_gap = (rows["line"] == "gappy") & (hour < GAPPY) & (hour % 24 >= 8)
    return rows[~is_gap]


def trained(folder: Path, mlflow_database: Path, lookback: int, observation: Mapping[str, Any]) -> Yard:
    """Return an installation that has promoted a pair, and said whom it is not scored on."""
    window = lookback + CONTEXT
    yard = meter_yard(
        folder,
        mlflow_database,
        measured(),
        dataset={"window_steps": window},
        split={"reference_steps": 72, "context_steps": window},
        lookback=lookback,
        horizon=HORIZON,
        observation=dict(observation),
    )
    assert yard.run(TRAIN).success
    assert yard.pairs.resolve(EXPERIMENT, PRODUCTION).version == 1
    return yard


def messages_of(yard: Yard) -> list[str]:
    (run,) = yard.instance.get_runs()
    return [entry.user_message for entry in yard.instance.all_logs(run.run_id)]


def sent_rows(needed: int) -> list[dict[str, Any]]:
    """Return the newest hours of every machine as a client has them, a null where nothing was measured."""
    frame = measured().assign(time=lambda rows: pd.to_datetime(rows["time"], utc=True))
    found = []
    for line, rows in frame.groupby("line", sort=False):
        hourly = rows.set_index("time")["load"].asfreq("h").tail(needed)
        found += [
            {"line": line, "time": f"{time:%Y-%m-%dT%H:%M:%SZ}", "load": None if np.isnan(load) else load}
            for time, load in hourly.items()
        ]
    return found


def of_http(answer: Any) -> Answers:
    assert answer.status_code == 200, answer.text
    document = answer.json()
    told: Answers = {
        each["entity"]: Told(each["observed"], each["fallback"], tuple(np.float32(each["values"]["load"]).tolist()))
        for each in document["forecasts"]
    }
    return told | {each["entity"]: each["code"] for each in document.get("errors", [])}


def of_rows(client: TestClient, needed: int) -> Answers:
    """Ask by one request per machine: where rows come along, what is refused of one is refused of all."""
    told: Answers = {}
    sent = sent_rows(needed)
    for line in HOURS:
        answer = client.post("/predict", json={"rows": [row for row in sent if row["line"] == line]})
        told |= {line: answer.json()["error"]["code"]} if answer.status_code == 409 else of_http(answer)
    return told


def of_table(table: pd.DataFrame, value: str, fallback: str) -> Answers:
    return {
        str(line): Told(
            float(rows["observed"].iloc[0]), bool(rows[fallback].iloc[0]), tuple(np.float32(rows[value]).tolist())
        )
        for line, rows in table.groupby(ENTITY)
    }


def of_pyfunc(needed: int, lines: Iterable[str]) -> Answers:
    rows = pd.DataFrame(sent_rows(needed)).rename(columns={"line": ENTITY, "time": TIMESTAMP})
    rows[TIMESTAMP] = pd.to_datetime(rows[TIMESTAMP], utc=True)
    table = mlflow.pyfunc.load_model(f"models:/{EXPERIMENT}_forecaster@{PRODUCTION}").predict(rows)
    skipped = table.attrs["skipped"]
    assert all(
        reason.endswith("of the lookback was measured, and min_observed is 50.0%") for reason in skipped.values()
    )
    return of_table(table, "load", "is_fallback") | {line: REFUSED for line in lines if line in skipped}


def of_batch(yard: Yard) -> Answers:
    report = make_forecasts(yard.config, yard.settings)
    left_out = read_left_out(yard.settings, EXPERIMENT, report.origin).set_index(ENTITY)["reason"]
    return of_table(read_forecasts(yard.settings, EXPERIMENT, report.origin), "value", "fallback") | left_out.to_dict()


@pytest.mark.parametrize("action", ["refuse", "fallback"])
# Nine days are more than the first lookback, and less than the second.
@pytest.mark.parametrize("lookback", [48, 240])
def test_a_young_machine_and_a_gappy_one_are_answered_alike_on_every_route(
    tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch, lookback: int, action: str
) -> None:
    observation = {"min_observed": 0.5, "action": action, "short": "model"}
    yard = trained(tmp_path, mlflow_database, lookback, observation)
    _names_whom_it_is_not_scored_on(yard, lookback)
    monkeypatch.setenv("MLPLATFORM_HOME", str(yard.settings.home))
    settings = replace(yard.settings, experiment=EXPERIMENT)
    with TestClient(build_app({EXPERIMENT: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        (model,) = client.get("/models").json()["models"]
        assert model["input_rows"] == lookback + CONTEXT
        by_entity = of_http(client.post("/predict/feast/batch", json={"entities": list(HOURS)}))
        by_rows = of_rows(client, model["input_rows"])
    open_tracking(yard.settings)
    routes = {"rows": by_rows, "pyfunc": of_pyfunc(model["input_rows"], HOURS), "batch": of_batch(yard)}
    assert routes == dict.fromkeys(routes, by_entity)

    whole, gappy, young = (by_entity[line] for line in HOURS)
    assert isinstance(whole, Told)
    assert isinstance(young, Told)
    assert (whole.observed, whole.is_fallback) == (1.0, False)
    assert (young.observed, young.is_fallback) == (min(1.0, YOUNG / lookback), False)
    assert len(young.values) == HORIZON
    if action == "refuse":
        assert gappy == REFUSED
    else:
        last = float(np.float32(measured().query("line == 'gappy'")["load"].iloc[-1]))
        assert gappy == Told(pytest.approx(1 / 3), is_fallback=True, values=(last,) * HORIZON)


def _names_whom_it_is_not_scored_on(yard: Yard, lookback: int) -> None:
    needed = lookback + CONTEXT
    is_left_out = needed + HORIZON > YOUNG
    found = f"reference: nothing is forecast for young ({YOUNG} rows): a forecast needs {needed} rows up to its origin"
    assert any(found in message for message in messages_of(yard)) == is_left_out
    reference = run_gate(yard.config, yard.pairs.resolve(EXPERIMENT, "latest"), yard.pairs).decision.reference
    assert reference is not None
    assert reference.left_out == (("young",) if is_left_out else ())
