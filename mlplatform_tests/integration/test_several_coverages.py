"""An experiment with several coverages: every place that tells intervals, and what came true of them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from mlplatform.config import AdaptationConfig
from mlplatform.forecasts import make_forecasts, read_forecasts
from mlplatform.models import Bounds
from mlplatform.monitoring import summarise_errors
from mlplatform.monitoring.adaptation import update_scale
from mlplatform.monitoring.forecast_errors import update_errors
from mlplatform.monitoring.prediction_log import PredictionLog, ServedPredictions, read_predictions
from mlplatform.registry import read_scale
from mlplatform.registry.batch import answer_batch
from mlplatform.testing.meters import END, meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

COVERAGES = (0.8, 0.5, 0.95)
HORIZON = 6
HOURS = {"a": 480, "b": 480}


@pytest.fixture(scope="module")
def meters(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    yard = meter_yard(
        tmp_path_factory.mktemp("meters"),
        mlflow_database,
        meter_rows(HOURS),
        uncertainty={"coverage": list(COVERAGES), "calibration": "auto"},
    )
    assert yard.run(TRAIN).success
    return yard


def test_a_run_scores_every_coverage(meters: Yard) -> None:
    pair = meters.pairs.resolve(EXPERIMENT)
    metrics = meters.pairs.client.get_run(pair.run_id).data.metrics
    for of_part in ("reference", "baseline_repeat_last_reference"):
        widths = [metrics[f"{of_part}_interval_width{name}"] for name in ("_50", "", "_95")]
        assert widths == sorted(widths)
        names = ("coverage_95", "interval_score_50", "pinball_95_scaled")
        assert {f"{of_part}_{name}" for name in names} <= set(metrics)
    assert meters.pairs.load(pair).coverages == COVERAGES


def test_server_batch_and_pyfunc_tell_the_same_intervals(meters: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = meters.settings
    monkeypatch.setenv("MLPLATFORM_HOME", str(settings.home))
    report = make_forecasts(meters.config, settings)
    batch = read_forecasts(settings, EXPERIMENT, report.origin).sort_values(["entity_id", "step"], ignore_index=True)
    rows = meter_rows(HOURS).rename(columns={"line": "entity_id", "time": "event_timestamp"})
    rows["event_timestamp"] = pd.to_datetime(rows["event_timestamp"], utc=True)
    pyfunc = answer_batch(meters.pairs.load(meters.pairs.resolve(EXPERIMENT)), rows)
    live = replace(settings, experiment=EXPERIMENT)
    app = build_app({EXPERIMENT: LocalBackend(live)}, live)
    with TestClient(app) as client:
        wait_until_loaded(client)
        (model,) = client.get("/models").json()["models"]
        answer = client.post("/predict/feast/batch", json={"entities": ["a", "b"]}).json()
        frame = rows.groupby("entity_id").tail(model["input_rows"]).astype({"event_timestamp": str})
        invoked = client.post("/invocations", json={"dataframe_split": frame.to_dict("split")}).json()["predictions"]
    assert (model["intervals"], model["coverages"]) == (0.8, list(COVERAGES))
    names = {0.8: "", 0.5: "_50", 0.95: "_95"}
    for place, coverage in enumerate(sorted(COVERAGES)):
        for side in ("lower", "upper"):
            column = f"load_{side}{names[coverage]}"
            expected = pyfunc[column].to_numpy(np.float32).tolist()
            told = [each["intervals"][place] for each in answer["forecasts"]]
            assert {each["coverage"] for each in told} == {coverage}
            assert np.float32([value for each in told for value in each[side]["load"]]).tolist() == expected
            assert [np.float32(each[place][side]).item() for each in batch["intervals"]] == expected
            assert np.float32([row[column] for row in invoked]).tolist() == expected
    assert [each["interval"] for each in answer["forecasts"]] == [each["intervals"][1] for each in answer["forecasts"]]
    assert [each[1]["upper"] for each in batch["intervals"]] == batch["upper"].tolist()
    logged = read_predictions(settings, EXPERIMENT)
    assert [[each["coverage"] for each in row] for row in logged["intervals"]] == [sorted(COVERAGES)] * len(logged)


def served(pair: Any, back: int, loads: pd.Series) -> ServedPredictions:
    """Return a forecast whose truths lie twice as far from the point as the upper bound of 50 % does."""
    origin = pd.Timestamp(END).tz_localize(None) - pd.Timedelta(hours=back)
    times = np.array([origin + pd.Timedelta(hours=step) for step in range(1, HORIZON + 1)], "datetime64[ns]")
    truth = np.array([loads[f"{pd.Timestamp(moment):%Y-%m-%dT%H:%M:%SZ}"] for moment in times])
    value = (truth - 2.0)[None, :, None]
    return ServedPredictions(
        served_at=dt.datetime.now(dt.UTC),
        request_id=f"r{back}",
        version=pair.version,
        pair_id="forced",
        entity_ids=["a"],
        origins=np.array([origin], "datetime64[ns]"),
        targets=("load",),
        steps=np.arange(1, HORIZON + 1),
        timestamps=times[None, :],
        values=value,
        lower=value - 5.0,
        upper=value + 4.0,
        coverage=COVERAGES[0],
        others=(Bounds(value - 5.0, value + 1.0, 0.5), Bounds(value - 9.0, value + 8.0, 0.95)),
    )


def test_what_came_true_is_counted_and_learnt_from_by_coverage(meters: Yard) -> None:
    settings, pair = meters.settings, meters.pairs.resolve(EXPERIMENT)
    loads = meter_rows({"a": 480}).set_index("time")["load"]
    log = PredictionLog(settings, EXPERIMENT)
    for back in range(60, 5, -1):
        log.append(served(pair, back, loads))
    log.close()
    config = meters.config.model_copy(update={"adaptation": AdaptationConfig(step_size=0.02, window=100)})
    update_errors(config, settings)
    found = summarise_errors(config, settings, ("pair_id", "coverage"))
    forced = found[found["pair_id"] == "forced"]
    assert forced["coverage"].tolist() == sorted(COVERAGES)
    assert forced["covered"].tolist() == [0.0, 1.0, 1.0]
    # The truth lies 1 above the upper bound, whose level is .75, and 7 above the lower one, whose level is .25.
    assert forced["pinball"].iloc[0] == pytest.approx((0.75 * 1 + 0.25 * 7) / 2, rel=1e-4)
    (alone,) = summarise_errors(config, settings, ("pair_id",)).query("pair_id == 'forced'").to_dict("records")
    assert (alone["covered"], alone["coverage"]) == (1.0, pytest.approx(0.8))

    model = meters.pairs.load(pair).model
    now = pd.Timestamp.now(tz="UTC")
    scale = update_scale(config, settings, replace(pair, pair_id="forced"), model, now)
    assert scale is not None
    assert [each[0] for each in scale.scales] == pytest.approx([0.5, 2.0, 0.25], rel=1e-3)
    assert read_scale(settings, EXPERIMENT) == scale
