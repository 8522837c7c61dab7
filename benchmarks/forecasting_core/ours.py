"""A set through the platform: an experiment in one file on `base/forecast`, folds, refit, calibration, answers."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from forecasting_core.scoring import score
from forecasting_core.series import SeriesSet
from mlplatform.candidates import Candidate, answerable, train_candidate
from mlplatform.config import load_experiment
from mlplatform.datamodule import DataModule, create_data_module
from mlplatform.settings import Settings
from mlplatform.training import fit_preprocessor, prepare_fold


def run(series: SeriesSet, model: str, tuning: str = "", /, **changes: Any) -> dict[str, dict[str, float]]:
    """Return the scores of a model version and of the seasonal naive baseline on the last horizons of every series.

    Parameters:
        tuning: preset of the search; that of `base/forecast` by default.
        changes: values of the experiment beside what the set says.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.from_env({"MLPLATFORM_HOME": f"{folder}/home", "MLPLATFORM_CONF_DIR": f"{folder}/conf"})
        _write(Path(folder, "conf"), series, changes)
        overrides = [f"model={model}", "extra_metrics=[mase,smape]", *([f"tuning={tuning}"] if tuning else [])]
        config = load_experiment("bench", overrides, settings)
        started = time.perf_counter()
        frame = series.frame
        cut = series.cut
        train = create_data_module(config, frame[frame["event_timestamp"] <= cut].reset_index(drop=True))
        last = frame.assign(is_context=frame["event_timestamp"] <= cut).reset_index(drop=True)
        held_out = answerable("reference", create_data_module(config, last))
        ends = dict(zip(held_out.panel.entity_ids.tolist(), held_out.panel.offsets[1:].tolist(), strict=True))
        ahead = [ends[entity] - 1 for entity in held_out.panel.row_entities[held_out.rows].tolist()] - held_out.rows
        held_out.rows = held_out.rows[ahead % series.horizon == 0]
        folds = [
            prepare_fold(name, train, fold, fit_preprocessor(train, fold.fit_rows))
            for name, fold in zip(config.split.fold_names, train.folds(), strict=True)
        ]
        made = train_candidate(config, train, folds, {"reference": held_out}, Path(folder, "journal"))
        seconds = time.perf_counter() - started
    naive = made.report.baselines["seasonal_naive"].parts["reference"]
    return {
        model: {**_scores(series, made, train, held_out), "seconds": seconds},
        "seasonal_naive": {name: naive[name] for name in ("mase", "smape", "coverage") if name in naive},
    }


def _scores(series: SeriesSet, made: Candidate, train: DataModule, held_out: DataModule) -> dict[str, float]:
    samples = held_out.samples(made.manager, made.manager.transform(held_out.panel), held_out.rows)
    has_bounds = made.model.calibration is not None
    found = made.model.predict_intervals(samples) if has_bounds else (made.model.predict(samples),)
    point, *bounds = [held_out.invert(made.manager, each)[..., 0] for each in found[:3]]
    lower, upper = bounds or (None, None)
    truth = held_out.truth(made.manager, held_out.rows)[..., 0]
    panel = train.panel
    values = panel.columns["y"].astype(np.float64)
    parts = zip(panel.entity_ids.tolist(), panel.offsets[:-1], panel.offsets[1:], strict=True)
    history = {entity: values[start:end] for entity, start, end in parts}
    entities = held_out.panel.row_entities[held_out.rows].tolist()
    scores = score([history[entity] for entity in entities], truth, point, lower, upper, series.season)
    return {"series": float(len(set(entities))), "points": float(truth.size), **scores}


def _write(folder: Path, series: SeriesSet, changes: dict[str, Any]) -> None:
    path = folder / "experiment" / "bench.yaml"
    path.parent.mkdir(parents=True)
    if series.experiment:
        path.write_text(series.experiment + "".join(f"{key}: {json.dumps(value)}\n" for key, value in changes.items()))
        return
    values = {
        "name": "bench",
        "defaults": ["/base/forecast", "_self_"],
        "dataset": {
            "name": "series",
            "source": {"uri": "series.csv"},
            "time_column": "time",
            "entity_column": "series",
            "frequency": series.frequency,
            "columns": {"y": {}},
        },
        "targets": ["y"],
        "horizon": series.horizon,
        # Competitions have short series: every fold validates on one horizon.
        "split": {"reference_steps": series.horizon, "cv": {"params": {"validation_steps": series.horizon}}},
        "baselines": [{"name": "repeat_last"}, {"name": "seasonal_naive", "params": {"season": series.season}}],
        **({} if series.lookback is None else {"lookback": series.lookback}),
        **changes,
    }
    path.write_text("# @package _global_\n" + json.dumps(values))
