"""A thousand daily series of five years: seconds and peak memory of a fit and a forecast of all of them.

Ours is XGBoost of `conf/model` with the lags of a week; beside it stands mlforecast with the same booster, the same
lags, the same trailing means, two features of the date, and a booster per step, too. Each runs in a process of its own,
from the same table in Parquet, by the interpreters of the project and of `PEERS_PYTHON`; imports and the reading of the
table do not count. Called by `python benchmarks/forecasting.py daily`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SERIES, DAYS, SEASON, HORIZON, LOOKBACK = 1_000, 1_826, 7, 7, 56
AIM = 1.2


def measure() -> None:
    """Report ours and, where there is an interpreter for it, the peer."""
    from figures import report

    from mlplatform.models.forecasting.lag_features import LagFeatureParams

    features = LagFeatureParams().for_season(SEASON, dense=True)
    settings = {
        "lags": [0, *(lag for lag in features.target_lags if lag < LOOKBACK)],
        "means": [length for length in features.target_means if length <= LOOKBACK],
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.parquet")
        _series().to_parquet(rows)
        own = _run(sys.executable, "ours", rows, settings)
        python = os.environ.get("PEERS_PYTHON")
        peer = _run(python, "mlforecast", rows, settings) if python else None
    for figure, unit in (("seconds", "s"), ("peak_mib", "MiB"), ("mae", "")):
        beside = {} if peer is None else {"peer": "mlforecast, XGBoost", "peer_value": peer[figure]}
        judged = {} if peer is None or not unit else {"aim": f"<= {AIM} x", "met": own[figure] <= AIM * peer[figure]}
        report("forecasting", f"{SERIES} daily series of {DAYS} days: {figure}", own[figure], unit, **beside, **judged)


def _series() -> pd.DataFrame:
    """Return series with a week, a year, a level of their own and noise that remembers."""
    noise = np.random.default_rng(5)
    days = np.arange(DAYS)
    times = pd.date_range(end="2024-01-01", periods=DAYS, freq="D")
    pieces = []
    for place in range(SERIES):
        walk = np.cumsum(noise.normal(0, 0.02, DAYS))
        week = noise.normal(0, 0.2, SEASON)[days % SEASON]
        year = 0.3 * np.sin(2 * np.pi * (days / 365.25 + noise.random()))
        values = np.exp(noise.normal(4, 1.5) + walk + week + year + noise.normal(0, 0.1, DAYS))
        pieces.append(pd.DataFrame({"unique_id": f"s{place:04d}", "ds": times, "y": values.astype(np.float32)}))
    return pd.concat(pieces, ignore_index=True)


def _run(python: str, who: str, rows: Path, settings: dict[str, Any]) -> dict[str, float]:
    command = [python, "-W", "ignore", str(Path(__file__)), who, str(rows), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{who} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _ours(train: pd.DataFrame, _: dict[str, Any]) -> np.ndarray:
    from modelling_core.configured import configured

    from mlplatform.datamodule import ModelSpec, WindowSamples
    from mlplatform.models import FitOptions, create_model
    from mlplatform.training import trainer_for

    family, params = configured("xgboost_v1")
    step = {"step_seconds": 86_400}
    spec = ModelSpec("forecast", ("y",), (0,), LOOKBACK, HORIZON, scaling="window", season=SEASON, **step)
    values, times = train[["y"]].to_numpy(np.float32), train["ds"].to_numpy("datetime64[ns]")
    length = len(train) // SERIES
    starts = np.arange(SERIES)[:, None] * length

    def samples(own: np.ndarray) -> WindowSamples:
        return WindowSamples(values, times, (starts + own).reshape(-1), ("y",), (0,), LOOKBACK, HORIZON, **step)

    model = create_model(family, {**params, "max_bin": 64}, spec)
    trainer_for(model).fit(model, samples(np.arange(LOOKBACK - 1, length - HORIZON)), None, FitOptions())
    return model.predict(samples(np.array([length - 1])))[..., 0]


def _mlforecast(train: pd.DataFrame, settings: dict[str, Any]) -> np.ndarray:
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean
    from mlforecast.target_transforms import LocalStandardScaler
    from xgboost import XGBRegressor

    booster = XGBRegressor(
        n_estimators=40, learning_rate=0.2, max_depth=6, colsample_bytree=0.7, max_bin=64, tree_method="hist"
    )
    forecaster = MLForecast(
        {"model": booster},
        "D",
        [lag + 1 for lag in settings["lags"]],
        {1: [RollingMean(length) for length in settings["means"]]},
        ["dayofweek", "dayofyear"],
        target_transforms=[LocalStandardScaler()],
    )
    forecaster.fit(train, static_features=[], max_horizon=HORIZON)
    return forecaster.predict(HORIZON)["model"].to_numpy().reshape(SERIES, HORIZON)


def main(who: str, rows: str, settings: str) -> None:
    """Print seconds, peak memory and error of one of the two."""
    from modelling_core.size import peak_gb

    frame = pd.read_parquet(rows)
    is_test = frame.groupby("unique_id", sort=False).cumcount(ascending=False) < HORIZON
    train, truth = frame[~is_test].reset_index(drop=True), frame.loc[is_test, "y"].to_numpy().reshape(SERIES, HORIZON)
    act = {"ours": _ours, "mlforecast": _mlforecast}[who]
    act(
        train.groupby("unique_id", sort=False).tail(200).head(200 * SERIES).reset_index(drop=True), json.loads(settings)
    )
    began = time.perf_counter()
    answer = act(train, json.loads(settings))
    seconds = time.perf_counter() - began
    error = float(np.abs(answer - truth).mean())
    print(json.dumps({"seconds": seconds, "peak_mib": 1024 * peak_gb(), "mae": error}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(*sys.argv[1:])
