"""Coverage of calibrated 80 % intervals on ETTh1's test part, OT, lookback 168, horizon 24.

As a training run does it: models of three expanding folds of the training part predict rows they have not seen, their
residuals calibrate the model that is fitted on the whole training part, and its intervals meet the test part, a year
later. The peer is the same without the windows' difficulty: one margin for all windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from figures import report

from mlplatform.datamodule import WindowSamples
from mlplatform.models import Calibration, FitOptions, Intervals, Model, create_model
from mlplatform.training import trainer_for
from modelling_core.configured import configured
from modelling_core.etth1_data import BORDERS, parts, spec_of

LOOKBACK, HORIZON, COVERAGE = 168, 24, 0.8
BLOCK, FOLDS = 1440, 3
QUANTILES = (0.1, 0.5, 0.9)
MODELS = ("ridge_v1", "nlinear_v1", "xgboost_v1", "xgboost_differences_v1", "catboost_v1", "lstm_v1", "tft_v1")


def main() -> None:
    """Print coverage and width for every family; those that can are fitted to quantiles."""
    samples = parts(LOOKBACK, HORIZON, ["OT"])
    train, test = samples["train"], samples["test"]
    for name, family, params in [("repeat_last", "repeat_last", {}), *((name, *configured(name)) for name in MODELS)]:
        held_out = []
        for fit, validation in _folds(train):
            model = _fitted(family, params, fit, validation)
            held_out.append((validation, model.predict_bounds(validation, COVERAGE)))
        model = _fitted(family, params, train, samples["validation"])
        bounds = model.predict_bounds(test, COVERAGE)
        intervals = Calibration.fit(held_out, COVERAGE).apply(bounds, test)
        plain = _one_margin(held_out, bounds)
        covered, width = _measure(intervals, test)
        report(
            "modelling",
            f"{name}: coverage of calibrated 80 % intervals on the test part",
            covered,
            "share",
            peer="one margin for all windows",
            peer_value=_measure(plain, test)[0],
            aim="0.78 to 0.82",
            met=0.78 <= covered <= 0.82,
        )
        report(
            "modelling",
            f"{name}: mean width of these intervals",
            width,
            "scaled",
            peer="one margin for all windows",
            peer_value=_measure(plain, test)[1],
        )
        report("modelling", f"{name}: coverage before calibration", _measure(bounds, test)[0], "share")


def _folds(train: WindowSamples) -> list[tuple[WindowSamples, WindowSamples]]:
    folds = []
    end = BORDERS["train"][1]
    for k in range(FOLDS):
        start = end - (FOLDS - k) * BLOCK
        fit = train.select(train.origins + HORIZON < start)
        validation = train.select((train.origins + 1 >= start) & (train.origins + HORIZON < start + BLOCK))
        folds.append((fit, validation))
    return folds


def _fitted(family: str, params: dict[str, Any], train: WindowSamples, validation: WindowSamples) -> Model:
    model = create_model(family, params, spec_of(train, QUANTILES))
    trainer_for(model).fit(model, train, validation, FitOptions(seed=0))
    return model


def _one_margin(held_out: list[tuple[WindowSamples, Intervals]], bounds: Intervals) -> Intervals:
    scores = [
        np.maximum(b.lower - samples.outputs(), samples.outputs() - b.upper).reshape(len(samples), -1)
        for samples, b in held_out
    ]
    margin = np.quantile(np.concatenate(scores), COVERAGE, axis=0).astype(np.float32)[None, :, None]
    return Intervals(bounds.point, bounds.lower - margin, bounds.upper + margin)


def _measure(intervals: Intervals, samples: WindowSamples) -> tuple[float, float]:
    truth = samples.outputs()
    covered = float(np.mean((intervals.lower <= truth) & (truth <= intervals.upper)))
    return covered, float(np.mean(intervals.upper - intervals.lower))
