"""A history behind the lookback: read as far as it is there, by training, checks, gate and every route alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.forecasts import make_forecasts, read_forecasts
from mlplatform.promotion.gate import run_gate
from mlplatform.registry import open_tracking
from mlplatform.registry.pairs import PRODUCTION
from mlplatform.testing.meters import meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, TRAIN
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

pytestmark = pytest.mark.integration

HORIZON, CONTEXT, LOOKBACK, HISTORY = 6, 6, 48, 400
# One machine has less than the history, and none of the reference set's forecasts does without it.
HOURS = {"whole": 100 * 24, "young": 14 * 24}
MODEL = {
    "version": "yard",
    "family": "xgboost",
    "params": {"on_linear": True, "with_smoothing": True, "num_boost_round": 5, "max_depth": 2},
}


def sent_rows(needed: int) -> list[dict[str, Any]]:
    """Return the newest hours of every machine as a client has them."""
    rows = meter_rows(HOURS, end="2024-06-01T00:00:00Z")
    newest = rows[rows.groupby("line").cumcount(ascending=False) < needed]
    times = pd.to_datetime(newest["time"], utc=True).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return newest[["line", "load"]].assign(time=times).to_dict("records")


def of_http(answer: Any) -> dict[str, tuple[float, ...]]:
    assert answer.status_code == 200, answer.text
    found = {each["entity"]: each for each in answer.json()["forecasts"]}
    assert all(each["observed"] == 1.0 and not each["fallback"] for each in found.values())
    # What a series has not of the history is no gap.
    assert not any(each["marks"] for each in found.values())
    return {entity: tuple(np.float32(each["values"]["load"]).tolist()) for entity, each in found.items()}


def of_table(table: pd.DataFrame, value: str) -> dict[str, tuple[float, ...]]:
    return {str(line): tuple(np.float32(rows[value]).tolist()) for line, rows in table.groupby(ENTITY)}


def test_every_route_reads_what_there_is_of_the_history(
    tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = HISTORY + CONTEXT
    yard = meter_yard(
        tmp_path,
        mlflow_database,
        meter_rows(HOURS, end="2024-06-01T00:00:00Z"),
        dataset={"window_steps": window},
        split={"reference_steps": 72, "context_steps": window},
        lookback=LOOKBACK,
        history=HISTORY,
        preprocessing={"scaling": "window"},
        horizon=HORIZON,
        model=MODEL,
    )
    # With parity, leakage and integrity, which block.
    assert yard.run(TRAIN).success
    info = yard.pairs.resolve(EXPERIMENT, PRODUCTION)
    reference = run_gate(yard.config, info, yard.pairs).decision.reference
    assert reference is not None
    assert reference.left_out == ()
    forecaster = yard.pairs.load(info)
    assert (forecaster.contract.input_rows, forecaster.contract.least_rows) == (window, LOOKBACK + CONTEXT)

    monkeypatch.setenv("MLPLATFORM_HOME", str(yard.settings.home))
    settings = replace(yard.settings, experiment=EXPERIMENT)
    with TestClient(build_app({EXPERIMENT: LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        (model,) = client.get("/models").json()["models"]
        assert (model["input_rows"], model["least_rows"]) == (window, LOOKBACK + CONTEXT)
        by_entity = of_http(client.post("/predict/feast/batch", json={"entities": list(HOURS)}))
        by_rows = of_http(client.post("/predict", json={"rows": sent_rows(window)}))
        least = of_http(client.post("/predict", json={"rows": sent_rows(LOOKBACK + CONTEXT)}))
        fewer = client.post("/predict", json={"rows": sent_rows(LOOKBACK + CONTEXT - 1)})
    open_tracking(yard.settings)
    rows = pd.DataFrame(sent_rows(window)).rename(columns={"line": ENTITY, "time": TIMESTAMP})
    rows[TIMESTAMP] = pd.to_datetime(rows[TIMESTAMP], utc=True)
    pyfunc = mlflow.pyfunc.load_model(f"models:/{EXPERIMENT}_forecaster@{PRODUCTION}").predict(rows)
    report = make_forecasts(yard.config, yard.settings)
    batch = read_forecasts(yard.settings, EXPERIMENT, report.origin)
    routes = {"rows": by_rows, "pyfunc": of_table(pyfunc, "load"), "batch": of_table(batch, "value")}
    assert routes == dict.fromkeys(routes, by_entity)
    assert set(by_entity) == set(HOURS)

    # Without its history a series is smoothed from less, and answered otherwise.
    assert set(least) == set(HOURS)
    assert least["whole"] != by_entity["whole"]
    assert fewer.status_code == 422
    assert f"at least {LOOKBACK + CONTEXT} (lookback {LOOKBACK}" in fewer.text
