"""Scores of the recurrent and the attention network on ETTh1: oil temperature, lookback 168, horizon 24.

Fitted on the training rows, stopped early on the validation rows, scored on the test rows in units of the training
rows' deviation; medians of three seeds, with the parameters of `conf/model`.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from mlplatform.datamodule.samples import WindowSamples
from mlplatform.models.base import FitOptions, Model, create_model
from mlplatform.models.calibration import Calibration
from mlplatform.training.trainers import trainer_for

LOOKBACK, HORIZON, SEEDS, COVERAGE = 168, 24, 3, 0.8
QUANTILES = (0.1, 0.5, 0.9)
AIMS = {("lstm", "MSE"): 0.0305, ("tft", "MSE"): 0.0299, ("tft", "pinball"): 0.0373}


def main() -> None:
    """Report the scores of both families."""
    from figures import report

    from modelling_core.etth1_data import parts, spec_of

    samples = parts(LOOKBACK, HORIZON, ["OT"])
    for family, quantiles in (("lstm", ()), ("tft", QUANTILES)):
        runs = []
        for seed in range(SEEDS):
            model = create_model(family, _params(family), spec_of(samples["train"], quantiles))
            trainer_for(model).fit(model, samples["train"], samples["validation"], FitOptions(seed=seed))
            runs.append(_scores(model, samples))
        for name in runs[0]:
            value, aim = statistics.median(run[name] for run in runs), AIMS.get((family, name))
            report("neural_scores", f"{family}, OT, {LOOKBACK} to {HORIZON}: {name}", value, "",
                   aim=None if aim is None else f"<= {aim}", met=None if aim is None else value <= aim)  # fmt: skip


def _params(family: str) -> dict[str, Any]:
    import yaml

    from mlplatform.settings import PACKAGE_ROOT

    params: dict[str, Any] = yaml.safe_load((PACKAGE_ROOT / "conf" / "model" / f"{family}_v1.yaml").read_text())[
        "params"
    ]
    return params


def _scores(model: Model, samples: dict[str, WindowSamples]) -> dict[str, float]:
    test, validation = samples["test"], samples["validation"]
    truth = test.outputs()
    scores = {"MSE": float(np.mean((model.predict(test) - truth) ** 2))}
    if not model.spec.quantiles:
        return scores
    levels, quantiles = np.array(QUANTILES), model.predict_quantiles(test)
    error = truth[..., None] - quantiles
    scores["pinball"] = float(np.maximum(levels * error, (levels - 1) * error).mean())
    scores["coverage"] = float(np.mean((truth >= quantiles[..., 0]) & (truth <= quantiles[..., -1])))
    model.calibration = Calibration.fit([(validation, model.predict_bounds(validation, COVERAGE))], COVERAGE)
    intervals = model.predict_intervals(test)
    scores["coverage, calibrated"] = float(np.mean((truth >= intervals.lower) & (truth <= intervals.upper)))
    return scores


if __name__ == "__main__":
    main()
