"""Latency of a direct forecast of 24 steps: its boosters merged beside a booster per step, in the same run.

Five columns, 168 hours back, with the parameters of `conf/model`. The model is fitted, stored and
loaded as a pair's is; both ways answer the same windows in turn, on one thread, with the same bits. A figure is the
median of the rounds for a whole prediction, features included, and for the boosters alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modelling_core.configured import configured

BENCHMARK, LOOKBACK, HORIZON, HOURS = "merged_trees", 168, 24, 3_000
COLUMNS = ("load", "ambient", "oil", "hot_spot", "cooling")
MODELS = ("xgboost_v1", "catboost_v1")
ROUNDS = 60
# Windows -> the most that a merged prediction may take, as a share of the separate one.
AIMS = {1: 1 / 3, 64: 1.0}


def main() -> None:
    """Report both ways of answering 1 and 64 windows."""
    for name in MODELS:
        model, samples = _loaded_model(name)
        if model.merged_ is None:
            raise RuntimeError(f"the boosters of {name} were not merged: {model.inference}")
        for rows, aim in AIMS.items():
            chosen = np.arange(rows)
            features = model.table(samples.select(chosen)).features
            case = f"{name}, {rows} windows, {HORIZON} steps"
            # What is derived from samples is kept beside them; every request brings new ones.
            _compare(f"{case}: whole prediction", model, partial(_predict, model, samples, chosen), aim)
            _compare(f"{case}: boosters alone", model, partial(model.changes, features), aim)


def _predict(model: Any, samples: Any, chosen: Any) -> Any:
    return model.predict(samples.select(chosen))


def _compare(case: str, model: Any, call: Callable[[], Any], aim: float) -> None:
    """Time a call with the boosters merged and apart, in turn."""
    from figures import report

    ways = {"merged": model.merged_, "separate": None}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    answers: dict[str, bytes] = {}
    for _ in range(ROUNDS):
        for way, model._merged in ways.items():
            took, answer = _timed(call)
            seconds[way].append(took)
            answers[way] = answer.tobytes()
    model._merged = ways["merged"]
    if answers["merged"] != answers["separate"]:
        raise RuntimeError(f"{case}: merged and separate boosters answer with different bits")
    merged, separate = (float(np.median(seconds[way])) * 1e6 for way in ways)
    report(BENCHMARK, case, merged, "us", peer=f"{HORIZON} boosters", peer_value=separate,
           aim=f"<= {aim:.2f} of the peer", met=merged <= aim * separate)  # fmt: skip


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = call()
    return time.perf_counter() - started, answer


def _loaded_model(name: str) -> tuple[Any, Any]:
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
    family, params = configured(name)
    model = create_model(family, params, spec)
    trainer_for(model).fit(model, samples, None, FitOptions())
    with tempfile.TemporaryDirectory() as place:
        save_model(model, family, Path(place, "model"))
        return load_model(Path(place, "model")), samples
