"""Scores of the recurrent and the attention network on ETTh1: oil temperature, lookback 168, horizon 24.

Fitted on the training rows, stopped early on the validation rows, scored on the test rows in units of the training
rows' deviation; medians of three seeds, with the parameters of `conf/model`.
"""

from __future__ import annotations

import statistics

import numpy as np

from mlplatform.datamodule import WindowSamples
from mlplatform.models import Calibration, FitOptions, Model, create_model
from mlplatform.training import trainer_for

LOOKBACK, HORIZON, SEEDS, COVERAGE = 168, 24, 3, 0.8
QUANTILES = (0.1, 0.5, 0.9)
LIMIT = "ridge with the quantiles of its own test errors"
AIMS = {("lstm", "MSE"): 0.0305, ("tft", "MSE"): 0.0299, ("tft", "pinball"): 0.0373}


def main() -> None:
    """Report the scores of both families."""
    from figures import report

    from modelling_core.configured import configured
    from modelling_core.etth1_data import parts, spec_of

    samples = parts(LOOKBACK, HORIZON, ["OT"])
    limit = _limit(samples)
    for family, quantiles in (("lstm", ()), ("tft", QUANTILES)):
        runs = []
        for seed in range(SEEDS):
            model = create_model(*configured(f"{family}_v1"), spec_of(samples["train"], quantiles))
            trainer_for(model).fit(model, samples["train"], samples["validation"], FitOptions(seed=seed))
            runs.append(_scores(model, samples))
        for name in runs[0]:
            value, aim = statistics.median(run[name] for run in runs), AIMS.get((family, name))
            is_pinball = name == "pinball"
            report("neural_scores", f"{family}, OT, {LOOKBACK} to {HORIZON}: {name}", value, "",
                   peer=LIMIT if is_pinball else None, peer_value=limit if is_pinball else None,
                   aim=None if aim is None else f"<= {aim}", met=None if aim is None else value <= aim)  # fmt: skip


def _limit(samples: dict[str, WindowSamples]) -> float:
    """Return the pinball loss of ridge forecasts with the quantiles, per step, of their own errors on the test rows.

    No model can know these; they show what is left to gain at a point error that is hard to beat.
    """
    from modelling_core.etth1_data import spec_of

    model = create_model("ridge", {}, spec_of(samples["train"]))
    trainer_for(model).fit(model, samples["train"], samples["validation"], FitOptions())
    truth, point = samples["test"].outputs(), model.predict(samples["test"])
    shifts = np.quantile(truth - point, QUANTILES, axis=0)
    return _pinball(truth, point[..., None] + np.moveaxis(shifts, 0, -1))


def _pinball(truth: np.ndarray, quantiles: np.ndarray) -> float:
    """Return the mean over samples, steps and levels."""
    error, levels = truth[..., None] - quantiles, np.array(QUANTILES)
    return float(np.maximum(levels * error, (levels - 1) * error).mean())


def _scores(model: Model, samples: dict[str, WindowSamples]) -> dict[str, float]:
    test, validation = samples["test"], samples["validation"]
    truth = test.outputs()
    scores = {"MSE": float(np.mean((model.predict(test) - truth) ** 2))}
    if not model.spec.quantiles:
        return scores
    quantiles = model.predict_quantiles(test)
    scores["pinball"] = _pinball(truth, quantiles)
    scores["coverage"] = float(np.mean((truth >= quantiles[..., 0]) & (truth <= quantiles[..., -1])))
    model.calibration = Calibration.fit([(validation, model.predict_bounds(validation, COVERAGE))], COVERAGE)
    intervals = model.predict_intervals(test)
    scores["coverage, calibrated"] = float(np.mean((truth >= intervals.lower) & (truth <= intervals.upper)))
    return scores


if __name__ == "__main__":
    main()
