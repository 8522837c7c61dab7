"""Peers on a set: statsforecast's AutoETS, AutoARIMA, MSTL and Theta, and mlforecast with LightGBM.

Run by the interpreter that `PEERS_PYTHON` names, so that they can live in an environment of their own:
`python -m forecasting_core.peers ROWS SETTINGS` reads a Parquet file and prints a JSON object per peer. This module
imports nothing of the project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from forecasting_core.series import SeriesSet

STATISTICAL = ("AutoETS", "AutoARIMA", "MSTL", "DynamicOptimizedTheta")
LAGGED = "mlforecast"


def measure(series: SeriesSet, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return scores and seconds of peers, by name."""
    with tempfile.TemporaryDirectory() as folder:
        rows, settings = Path(folder, "rows.parquet"), Path(folder, "settings.json")
        series.frame.to_parquet(rows)
        settings.write_text(
            json.dumps({"season": series.season, "horizon": series.horizon, "origins": series.origins, "names": names})
        )
        command = [os.environ.get("PEERS_PYTHON", sys.executable), "-m", "forecasting_core.peers", rows, settings]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False, env=_environment()
        )
    print(done.stderr[-500:], end="", file=sys.stderr)
    if done.returncode:
        raise RuntimeError(f"the peers failed: {done.stderr[-2000:]}")
    return {found.pop("name"): found for found in map(json.loads, done.stdout.splitlines())}


def _environment() -> dict[str, str]:
    return {**os.environ, "NIXTLA_ID_AS_COL": "1", "PYTHONPATH": ""}


def main(rows: str, settings: str) -> None:
    """Print the scores of every peer that is asked for."""
    from forecasting_core.scoring import score

    asked = json.loads(Path(settings).read_text())
    season, horizon, origins = asked["season"], asked["horizon"], asked["origins"]
    frame = pd.read_parquet(rows).rename(columns={"entity_id": "unique_id", "event_timestamp": "ds"})
    frame["ds"] = frame["ds"].dt.tz_localize(None)
    # Peers read no gaps.
    frame["y"] = frame.groupby("unique_id", sort=False)["y"].transform(lambda values: values.interpolate())
    back = frame.groupby("unique_id", sort=False).cumcount(ascending=False)
    train, test = frame[back >= horizon * origins], frame[back < horizon * origins]
    order = list(train["unique_id"].unique())
    history = [values.to_numpy(np.float64) for _, values in train.groupby("unique_id", sort=False)["y"]]
    truth = test["y"].to_numpy(np.float64).reshape(len(order) * origins, horizon)
    for name in asked["names"]:
        started = time.perf_counter()
        try:
            answers = (_lagged if name == LAGGED else _statistical)(name, frame, season, horizon, origins)
        except Exception as error:
            # A peer that cannot do a set, such as a season that is too long for it.
            print(f"{name}: {error}", file=sys.stderr)
            continue
        seconds = time.perf_counter() - started
        answers = answers.set_index("unique_id").loc[order]
        parts = [answers[column].to_numpy().reshape(truth.shape) for column in ("point", "lower", "upper")]
        of_origins = [values for values in history for _ in range(origins)]
        found = score(of_origins, truth, *parts, season)
        print(json.dumps({"name": name, **found, "seconds": seconds}), flush=True)


def _statistical(name: str, frame: pd.DataFrame, season: int, horizon: int, origins: int) -> pd.DataFrame:
    import statsforecast.models
    from statsforecast import StatsForecast

    model = getattr(statsforecast.models, name)(season_length=season)
    forecaster = StatsForecast(models=[model], freq=_step(frame), n_jobs=1)
    # Fitted at the first origin, and then told what came; ours are not fitted again either.
    how = {"refit": False} if origins > 1 and hasattr(model, "forward") else {}
    made = forecaster.cross_validation(horizon, frame, n_windows=origins, step_size=horizon, level=[80], **how)
    return made.rename(columns={name: "point", f"{name}-lo-80": "lower", f"{name}-hi-80": "upper"})


def _lagged(_name: str, frame: pd.DataFrame, season: int, horizon: int, origins: int) -> pd.DataFrame:
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.target_transforms import LocalStandardScaler
    from mlforecast.utils import PredictionIntervals

    shortest = int(frame.groupby("unique_id").size().min()) - origins * horizon
    lags: list[Any] = sorted({1, 2, 3, season, *([2 * season] if 2 * season + 3 * horizon < shortest else [])})
    model = LGBMRegressor(verbosity=-1, n_jobs=1)
    forecaster = MLForecast({"model": model}, _step(frame), lags, target_transforms=[LocalStandardScaler()])
    made = forecaster.cross_validation(
        frame,
        n_windows=origins,
        h=horizon,
        step_size=horizon,
        prediction_intervals=PredictionIntervals(n_windows=2, h=horizon),
        level=[80],
    )
    return made.rename(columns={"model": "point", "model-lo-80": "lower", "model-hi-80": "upper"})


def _step(train: pd.DataFrame) -> str:
    return str(pd.infer_freq(train.loc[train["unique_id"] == train["unique_id"].iloc[0], "ds"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
