"""Latency of a direct XGBoost forecast of 24 steps: one merged booster beside a booster per step, in the same run.

Five columns, 168 hours back, with the parameters of `conf/model/xgboost_v1.yaml`. The model is fitted, stored and
loaded as a pair's is; both ways answer the same windows in turn, on one thread, with the same bits. A figure is the
median of the rounds for a whole prediction, features included, and for the boosters alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modelling_core.configured import configured

BENCHMARK, LOOKBACK, HORIZON, HOURS = "merged_trees", 168, 24, 3_000
COLUMNS = ("load", "ambient", "oil", "hot_spot", "cooling")
ROUNDS = 60
AIMS = {1: 1 / 3, 64: 1.0}


def main() -> None:
    """Report both ways of answering 1 and 64 windows."""
    from figures import report

    from mlplatform.models.forecasting.lag_features import origin_features

    model, samples = _loaded_model()
    merged = model.merged_
    if merged is None:
        raise RuntimeError(f"the boosters were not merged: {model.inference}")

    def predict(rows: int) -> Any:
        # What is derived from samples is kept beside them; every request brings new ones.
        return model.predict(samples.select(np.arange(rows)))

    for rows, aim in AIMS.items():
        features = origin_features(samples.select(np.arange(rows)), model.spec, model.params, with_known=True)
        for what, call in (
            ("whole prediction", lambda rows=rows: predict(rows)),
            ("boosters alone", lambda features=features: model.changes(features)),
        ):
            seconds: dict[bool, list[float]] = {True: [], False: []}
            answers: dict[bool, bytes] = {}
            for number in range(2 * ROUNDS):
                is_merged = number % 2 == 0
                model.merged_ = merged if is_merged else None
                took, answer = _timed(call)
                seconds[is_merged].append(took)
                answers[is_merged] = answer.tobytes()
            if answers[True] != answers[False]:
                raise RuntimeError(f"{rows} windows: merged and separate boosters answer with different bits")
            one, many = (float(np.median(seconds[way])) * 1e6 for way in (True, False))
            report(BENCHMARK, f"{rows} windows, {HORIZON} steps: {what}", one, "us", peer=f"{HORIZON} boosters",
                   peer_value=many, aim=f"<= {aim:.2f} of the peer", met=one <= aim * many)  # fmt: skip


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = call()
    return time.perf_counter() - started, answer


def _loaded_model() -> tuple[Any, Any]:
    """Return a model that was stored and loaded, and its windows."""
    from mlplatform.datamodule import ModelSpec, WindowSamples
    from mlplatform.models import FitOptions, create_model, load_model, save_model
    from mlplatform.training import trainer_for

    noise = np.random.default_rng(0)
    season = np.sin(np.arange(HOURS) * (2 * np.pi / 24))
    values = season[:, None] + noise.standard_normal((HOURS, len(COLUMNS))).cumsum(axis=0) * 0.05
    times = np.datetime64("2024-01-01", "ns") + np.arange(HOURS) * np.timedelta64(1, "h")
    spec = ModelSpec("forecast", COLUMNS, (2,), LOOKBACK, HORIZON, step_seconds=3600)
    samples = WindowSamples(values.astype(np.float32), times, np.arange(LOOKBACK - 1, HOURS - HORIZON), COLUMNS, (2,),
                            LOOKBACK, HORIZON, step_seconds=3600)  # fmt: skip
    family, params = configured("xgboost_v1")
    model = create_model(family, params, spec)
    trainer_for(model).fit(model, samples, None, FitOptions())
    with tempfile.TemporaryDirectory() as place:
        save_model(model, family, Path(place, "model"))
        return load_model(Path(place, "model")), samples
