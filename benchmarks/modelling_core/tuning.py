"""Tuning: trials per minute beside a plain Optuna loop, compute saved by pruning, and trials lost by kill -9.

ETTh1, XGBoost, three folds, a horizon of twelve hours and sixty rounds. Two loops over the same values in the same
order are the peers, and both rebuild everything in every trial. The plain loop is what XGBoost's and Optuna's guides
show: one `XGBRegressor` per step of the horizon, with early stopping, on one thread or all cores, whichever is faster
here; its preprocessing and lag features are the platform's. The other loop is given all of the platform's model code,
so that the difference to it is only what is shared between trials, and pruning.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from figures import report

from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.data import ingest, read_raw
from mlplatform.datamodule import DataModule, create_data_module, read_part, write_split
from mlplatform.models.families import XGBoostForecastParams
from mlplatform.models.forecasting import last_observed, learning_table
from mlplatform.settings import Settings
from mlplatform.testing import pump_settings, slow_search, start_search, wait_for
from mlplatform.training import FoldData, fit_preprocessor, prepare_fold
from mlplatform.tuning import TuningResult, finished, fit_on_folds, interrupted, running, tune
from mlplatform.tuning.study import load_study

BENCHMARK = "tuning"
TRIALS, WORKERS, KILLED_TRIALS = 12, 2, 8
SMALL = ("horizon=12", "model.params.num_boost_round=60", f"tuning.trials={TRIALS}", "uncertainty.coverage=null")


def main() -> None:
    """Run all parts."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        speed(Path(folder))
        crash(Path(folder))


def speed(folder: Path) -> None:
    """Time searches with and without pruning beside the plain loop."""
    config, train = _etth1(folder)
    # Every trial completes, so that both sides fit the same.
    patient = _tuning(config, pruner_startup_trials=TRIALS)
    pruning = _tuning(config, pruner_startup_trials=4, warmup_steps=0)
    whole, seconds = _timed(patient, train, folder / "whole")
    params = [_params(config, row) for row in whole.trials]
    threads = min(1, os.cpu_count() or 1, key=lambda count: _loop(config, train, params[:2], _plain_trial(count))[1])
    scores, plain_s = _loop(config, train, params, _plain_trial(threads))
    _, own_s = _loop(config, train, params, _own_trial)
    ours, found = whole.best.mean(config.metric), min(scores)
    report(BENCHMARK, f"best cv {config.metric} of {TRIALS} trials", ours, "", peer="plain loop", peer_value=found,
           aim="equal to six digits", met=math.isclose(ours, found, rel_tol=1e-6))  # fmt: skip
    report(BENCHMARK, "trials per minute of a loop over the platform's own models", 60 * TRIALS / own_s, "1/min",
           peer="plain loop", peer_value=60 * TRIALS / plain_s)  # fmt: skip
    _speed("without pruning", seconds, plain_s)
    pruned, seconds = _timed(pruning, train, folder / "pruning")
    _speed("with pruning", seconds, plain_s)
    states = [row["state"] for row in pruned.trials]
    case = f"compute saved by pruning {states.count('PRUNED')} of {TRIALS} trials"
    report(BENCHMARK, case, 100 * pruned.saved_share, "%", aim="> 0", met=pruned.saved_share > 0)
    report(BENCHMARK, "with pruning: best cv mae", pruned.best.mean("mae"), "", peer="all trials in full",
           peer_value=ours)  # fmt: skip
    parallel = _tuning(pruning, executor="process", workers=WORKERS)
    _, seconds = _timed(parallel, train, folder / "process")
    _speed(f"with pruning, {WORKERS} worker processes, their start included", seconds, plain_s)


def crash(folder: Path) -> None:
    """Kill a search with its worker processes, run it again, and count what was lost."""
    pump, journal = folder / "pump", folder / "killed"
    pump_settings(pump)
    config, folds = slow_search(pump, KILLED_TRIALS, "process", WORKERS)
    process = start_search(pump, journal, KILLED_TRIALS, "process", WORKERS)
    wait_for(journal, config, 3, WORKERS)
    process.kill()
    process.wait()
    study = load_study(config, journal)
    kept, lost = len(finished(study)), len(running(study))
    result = tune(config, folds, journal)
    again = len(interrupted(load_study(config, journal)))
    report(BENCHMARK, f"kill -9 after {kept} trials, {WORKERS} workers: trials lost per worker", lost / WORKERS,
           "trials", aim="<= 1", met=lost <= WORKERS)  # fmt: skip
    is_whole = len(result.trials) == KILLED_TRIALS and again == lost
    report(BENCHMARK, "kill -9: trials finished after the resume", len(result.trials), "trials",
           aim=f"{KILLED_TRIALS}, of which {lost} repeated", met=is_whole)  # fmt: skip


def _etth1(folder: Path) -> tuple[ExperimentConfig, DataModule]:
    environ = {"MLPLATFORM_HOME": str(folder / "home"), "MLPLATFORM_DATA_DIR": os.environ["MLPLATFORM_DATA_DIR"]}
    settings = Settings.from_env(environ)
    config = load_experiment("etth1_xgboost", SMALL, settings)
    ingest(config.dataset, settings)
    write_split(config.dataset, config.split, read_raw(config.dataset, settings), settings)
    return config, create_data_module(config, read_part(settings, "etth1", config.split.version_id, "train"))


def _tuning(config: ExperimentConfig, **changes: Any) -> ExperimentConfig:
    return config.model_copy(update={"tuning": config.tuning.model_copy(update=changes)})


def _folds(module: DataModule) -> list[FoldData]:
    return [
        prepare_fold(name, module, fold, fit_preprocessor(module, fold.fit_rows))
        for name, fold in zip(module.config.split.fold_names, module.folds(), strict=True)
    ]


def _timed(config: ExperimentConfig, train: DataModule, journal: Path) -> tuple[TuningResult, float]:
    """Return a search and its seconds, preparation of the folds included."""
    started = time.perf_counter()
    result = tune(config, _folds(train), journal)
    return result, time.perf_counter() - started


def _params(config: ExperimentConfig, row: dict[str, Any]) -> dict[str, Any]:
    fixed = ("number", "state", "loss", "seconds")
    return config.model.params | {name: value for name, value in row.items() if name not in fixed}


def _loop(
    config: ExperimentConfig, train: DataModule, params: Sequence[dict[str, Any]], fit: Callable[..., float]
) -> tuple[list[float], float]:
    """Return the scores and the seconds of a loop that prepares everything in every trial."""
    scores: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        scores.append(statistics.mean(fit(config, fold, params[trial.number]) for fold in _folds(train)))
        return scores[-1]

    started = time.perf_counter()
    optuna.create_study().optimize(objective, n_trials=len(params))
    return scores, time.perf_counter() - started


def _own_trial(config: ExperimentConfig, fold: FoldData, params: dict[str, Any]) -> float:
    return fit_on_folds(config, [fold], config.model.family, params).mean(config.metric)


def _plain_trial(threads: int) -> Callable[..., float]:
    """Return the function that fits one regressor per step and returns their score on a fold."""
    from xgboost import XGBRegressor

    def fit(config: ExperimentConfig, fold: FoldData, params: dict[str, Any]) -> float:
        typed = XGBoostForecastParams(**params)
        train, held_out = (learning_table(samples, fold.spec, typed) for samples in (fold.train, fold.validation))
        settings = typed.booster_params(config.seed) | {"n_jobs": threads, "base_score": 0.0}
        del settings["nthread"]
        changes = np.empty_like(held_out.labels)
        for step in range(held_out.labels.shape[1]):
            regressor = XGBRegressor(
                n_estimators=typed.num_boost_round, early_stopping_rounds=typed.patience, **settings
            )
            known = [(held_out.features, held_out.labels[:, step])]
            regressor.fit(train.features, train.labels[:, step], eval_set=known, verbose=False)
            changes[:, step] = regressor.predict(held_out.features)
        forecasts = last_observed(fold.validation)[:, None] + changes[..., None]
        return fold.score(forecasts)[config.metric]

    return fit


def _speed(case: str, seconds: float, plain_s: float) -> None:
    ours, plain = 60 * TRIALS / seconds, 60 * TRIALS / plain_s
    report(BENCHMARK, f"trials per minute {case}", ours, "1/min", peer="plain loop", peer_value=plain, aim=">= 2x",
           met=ours >= 2 * plain)  # fmt: skip
