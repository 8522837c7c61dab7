"""A set through the platform: an experiment in one file on `base/forecast`, folds, refit, calibration, answers."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forecasting_core.scoring import score
from forecasting_core.series import SeriesSet
from mlplatform.candidates import Candidate, answerable, train_candidate
from mlplatform.config import load_experiment
from mlplatform.datamodule import DataModule, create_data_module
from mlplatform.settings import Settings
from mlplatform.training import fit_preprocessor, prepare_fold


def run(series: SeriesSet, model: str, **changes: Any) -> dict[str, dict[str, float]]:
    """Return the scores of a model version and of the seasonal naive baseline on the last horizon of every series."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.from_env({"MLPLATFORM_HOME": f"{folder}/home", "MLPLATFORM_CONF_DIR": f"{folder}/conf"})
        _write(Path(folder, "conf"), series, model, changes)
        config = load_experiment("bench", settings=settings)
        started = time.perf_counter()
        frame = series.frame
        cut = frame["event_timestamp"].max() - series.horizon * pd.Timedelta(config.dataset.nominal_step)
        train = create_data_module(config, frame[frame["event_timestamp"] <= cut].reset_index(drop=True))
        last = frame.assign(is_context=frame["event_timestamp"] <= cut).reset_index(drop=True)
        held_out = answerable("reference", create_data_module(config, last))
        folds = [
            prepare_fold(name, train, fold, fit_preprocessor(train, fold.fit_rows))
            for name, fold in zip(config.split.fold_names, train.folds(), strict=True)
        ]
        made = train_candidate(config, train, folds, {"reference": held_out}, Path(folder, "journal"))
        seconds = time.perf_counter() - started
    naive = made.report.baselines["seasonal_naive"].parts["reference"]
    return {
        model: {**_scores(series, made, train, held_out), "seconds": seconds},
        "seasonal_naive": {name: naive[name] for name in ("mase", "smape", "coverage")},
    }


def _scores(series: SeriesSet, made: Candidate, train: DataModule, held_out: DataModule) -> dict[str, float]:
    samples = held_out.samples(made.manager, made.manager.transform(held_out.panel), held_out.rows)
    answers = [held_out.invert(made.manager, each)[..., 0] for each in made.model.predict_intervals(samples)[:3]]
    truth = held_out.truth(made.manager, held_out.rows)[..., 0]
    panel = train.panel
    values = panel.columns["y"].astype(np.float64)
    bounds = zip(panel.entity_ids, panel.offsets[:-1], panel.offsets[1:], strict=True)
    history = {entity: values[start:end] for entity, start, end in bounds}
    entities = held_out.panel.row_entities[held_out.rows]
    found = score([history[entity] for entity in entities], truth, *answers, series.season)
    return {"series": float(len(entities)), **found}


def _write(folder: Path, series: SeriesSet, model: str, changes: dict[str, Any]) -> None:
    values = {
        "name": "bench",
        "defaults": ["/base/forecast", {"override /model": model}, {"override /tuning": "none"}, "_self_"],
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
        "extra_metrics": ["mase", "smape"],
        # Competitions have short series: every fold validates on one horizon.
        "split": {"reference_steps": series.horizon, "cv": {"params": {"validation_steps": series.horizon}}},
        "baselines": [{"name": "repeat_last"}, {"name": "seasonal_naive", "params": {"season": series.season}}],
        **({} if series.lookback is None else {"lookback": series.lookback}),
        **changes,
    }
    path = folder / "experiment" / "bench.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\n" + json.dumps(values))
