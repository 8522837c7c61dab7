"""Months, business days and local hours, with both changes of the clocks: from a CSV and a few lines of YAML on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from dagster import DagsterInstance
from fastapi.testclient import TestClient

from mlplatform.config import TIMESTAMP, ExperimentConfig, load_experiment
from mlplatform.data import open_raw, read_raw
from mlplatform.definitions import build_defs
from mlplatform.defs.io_managers import ArtifactIOManager
from mlplatform.forecasts import make_forecasts, read_forecasts
from mlplatform.promotion import parity  # noqa: F401 (the check that the job runs)
from mlplatform.registry import open_tracking
from mlplatform.settings import Settings
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

pytestmark = pytest.mark.integration

YAML = """\
# @package _global_
defaults: [/base/forecast, {{override /model: xgboost_small_v1}}, {{override /tuning: none}}, _self_]
name: sales_trees
dataset: {{name: sales, source: {{uri: {path}}}, time_column: time, frequency: {frequency}, {more}
  window_steps: {window}, columns: {{sold: {{}}}}}}
targets: [sold]
features: {{calendar: {{fourier: [{{season: null, terms: 1}}], holidays: [{{country: US, before: 1}}]}}}}
lookback: {lookback}
horizon: {horizon}
split: {{reference_steps: {held_out}, context_steps: {window}, folds: 2,
  cv: {{params: {{validation_steps: {held_out}}}}}}}
baselines: [{{name: repeat_last}}]
"""


@dataclass(frozen=True)
class Series:
    """A series of the real world in small.

    Attributes:
        times: as the file has them.
        ahead: the moments after the last one, in UTC.
    """

    frequency: str
    more: str
    times: list[str]
    season: int
    lookback: int
    horizon: int
    ahead: list[str]


def months() -> Series:
    times = pd.date_range("1990-01-01", "2019-12-01", freq="MS")
    ahead = [f"2020-{month:02}-01T00:00:00Z" for month in range(1, 7)]
    # What step months are is left to the data.
    return Series("auto", "", times.strftime("%Y-%m-%d").tolist(), 12, 24, 6, ahead)


def business_days() -> Series:
    times = pd.date_range("2022-01-03", "2023-12-22", freq="B")
    ahead = [f"2023-12-{day}T05:00:00Z" for day in (26, 27, 28, 29)] + ["2024-01-02T05:00:00Z"]
    free = "holidays: [2023-12-25, 2024-01-01], timezone: America/New_York,"
    return Series("C", free, times.strftime("%Y-%m-%d").tolist(), 5, 10, 5, ahead)


def local_hours() -> Series:
    moments = pd.date_range("2024-01-01", "2024-12-31 23:00", freq="h", tz="Europe/Berlin")
    ahead = ["2024-12-31T23:00:00Z", "2025-01-01T00:00:00Z", "2025-01-01T01:00:00Z"]
    return Series("h", "timezone: Europe/Berlin,", moments.strftime("%Y-%m-%d %H:%M").tolist(), 24, 48, 3, ahead)


def sold_of(series: Series) -> list[float]:
    """Return what was sold: a trend, a season and noise."""
    steps = np.arange(len(series.times))
    noise = np.random.default_rng(0).normal(size=len(steps))
    sold = 100 + 0.01 * steps + 10 * np.sin(2 * np.pi * steps / series.season) + noise
    return sold.round(2).tolist()


def install(series: Series, folder: Path) -> None:
    """Write the data and the configuration."""
    data = folder / "sales.csv"
    pd.DataFrame({"time": series.times, "sold": sold_of(series)}).to_csv(data, index=False)
    conf = folder / "conf" / "experiment"
    conf.mkdir(parents=True)
    text = YAML.format(
        path=data, frequency=series.frequency, more=series.more, lookback=series.lookback, window=2 * series.lookback,
        horizon=series.horizon, held_out=max(40, 2 * series.horizon),
    )  # fmt: skip
    assert len(text.splitlines()) <= 13
    (conf / "sales_trees.yaml").write_text(text)


def train(settings: Settings) -> None:
    resources = {"io_manager": ArtifactIOManager(root=str(settings.assets_dir))}
    defs = build_defs(experiments=[load_experiment("sales_trees", settings=settings)], resources=resources)
    with DagsterInstance.ephemeral() as instance:
        assert defs.resolve_job_def("train_sales_trees").execute_in_process(instance=instance).success


@pytest.mark.parametrize("make", [months, business_days, local_hours])
def test_a_calendar_is_kept_from_the_file_to_the_answer(
    make: Callable[[], Series], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = make()
    install(series, tmp_path)
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLPLATFORM_CONF_DIR", str(tmp_path / "conf"))
    settings = replace(Settings.from_env(), experiment="sales_trees")
    train(settings)
    config = load_experiment("sales_trees", settings=settings)
    raw = open_raw(config.dataset, settings)
    assert raw is not None
    assert (raw.state.rows_read, raw.state.quarantined) == (len(series.times), 0)
    steps = config.dataset.calendar
    assert series.frequency in ("auto", steps.frequency)
    assert steps.steps(*raw.spans[["first", "last"]].to_numpy()[0]) == len(series.times) - 1
    with TestClient(build_app({"sales_trees": LocalBackend(settings)}, settings)) as client:
        wait_until_loaded(client)
        answer = client.post("/predict/feast/batch", json={"entities": [1], "time_point": "now"})
        assert answer.status_code == 200, answer.text
        (forecast,) = answer.json()["forecasts"]
        assert forecast["timestamps"] == series.ahead
        _asks_in_local_time(client, series, forecast)
    _answers_are_the_same_in_batches_and_from_mlflow(config, series, settings, forecast)


def _answers_are_the_same_in_batches_and_from_mlflow(
    config: ExperimentConfig, series: Series, settings: Settings, forecast: dict[str, Any]
) -> None:
    # Answers over HTTP have as many digits as tell numbers of single precision apart.
    expected = np.float32(forecast["values"]["sold"]).tolist()
    open_tracking(settings)
    raw = read_raw(config.dataset, settings).sort_values(TIMESTAMP).iloc[-2 * series.lookback :]
    answer = mlflow.pyfunc.load_model("models:/sales_trees_forecaster@production").predict(raw)
    assert answer["sold"].tolist() == expected
    # Of now from the online store, of the last row's moment from the feature table.
    for moment in ("now", pd.Timestamp(raw[TIMESTAMP].max())):
        report = make_forecasts(config, settings, moment)
        found = read_forecasts(settings, "sales_trees", report.origin)
        assert found["value"].tolist() == expected
        assert [f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in found["timestamp"]] == series.ahead


def _asks_in_local_time(client: TestClient, series: Series, forecast: dict[str, Any]) -> None:
    """The same rows as the file has them, without a zone, get the same answer, in the clocks that are asked for."""
    zone = "UTC" if "timezone" not in series.more else series.more.split("timezone: ")[1].split(",")[0]
    described = client.get("/models").json()["models"][0]
    assert described["timezone"] == zone
    needed = described["input_rows"]
    times = series.times[-needed:]
    sold = sold_of(series)[-needed:]
    rows = [{"entity_id": 1, "event_timestamp": time, "sold": value} for time, value in zip(times, sold, strict=True)]
    answer = client.post("/predict?timezone=local", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    (local,) = answer.json()["forecasts"]
    assert local["values"] == forecast["values"]
    expected = pd.to_datetime(series.ahead).tz_convert(zone)
    assert [pd.Timestamp(time).isoformat() for time in local["timestamps"]] == [time.isoformat() for time in expected]
    tokyo = client.post("/predict/feast/batch?timezone=Asia/Tokyo", json={"entities": [1]}).json()["forecasts"][0]
    assert tokyo["timestamps"][0] == expected[0].tz_convert("Asia/Tokyo").isoformat()
    assert client.post("/predict?timezone=Tokyo", json={"rows": rows}).status_code == 422
