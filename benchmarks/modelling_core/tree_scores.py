"""Trees on ETTh1's oil temperature, 168 hours back and 24 ahead, beside ridge regression and the last value.

Fitted on the training part with early stopping on the validation part; test errors are in units of the training rows'
standard deviation. Tree families run with the parameters of `conf/model`, which were chosen by looking at these
errors on validation and test alike, so they flatter the trees.
"""

from __future__ import annotations

import time
from typing import Any

from figures import report

from mlplatform.datamodule import WindowSamples
from mlplatform.models import FitOptions, Model, create_model
from mlplatform.training import trainer_for
from modelling_core.configured import configured
from modelling_core.etth1_data import parts, spec_of

BENCHMARK, LOOKBACK, HORIZON = "tree_scores", 168, 24
ROUNDS, LIMIT_S = 100, 25.0
TREES = ("xgboost_differences_v1", "xgboost_v1", "catboost_v1", "random_forest_v1")
AIMS = {"xgboost_differences_v1": 0.0275, "ridge": 0.0263}


def main() -> None:
    """Print the test error of every family, of every strategy of XGBoost, and the seconds of a fit on one thread."""
    samples = parts(LOOKBACK, HORIZON, None, ("OT",))
    last_value = _score(_fit("repeat_last", {}, samples, FitOptions()), samples["test"])
    _report("repeat_last", last_value, last_value)
    _report("ridge", _score(_fit("ridge", {}, samples, FitOptions()), samples["test"]), last_value)
    for name in TREES:
        family, params = configured(name)
        _report(name, _score(_fit(family, params, samples, FitOptions()), samples["test"]), last_value)
    family, params = configured(TREES[0])
    for strategy in ("horizon_feature", "recursive"):
        model = _fit(family, {**params, "strategy": strategy}, samples, FitOptions())
        _report(f"{TREES[0]}, {strategy}", _score(model, samples["test"]), last_value)
    options = FitOptions(iterations=(ROUNDS,) * HORIZON, workers=1)
    started = time.process_time()
    _fit(family, params, samples, options)
    seconds = time.process_time() - started
    case = f"XGBoost, {HORIZON} boosters x {ROUNDS} rounds, fit on one thread"
    report(BENCHMARK, case, seconds, "CPU s", aim=f"<= {LIMIT_S:g}", met=seconds <= LIMIT_S)


def _fit(family: str, params: dict[str, Any], samples: dict[str, WindowSamples], options: FitOptions) -> Model:
    model = create_model(family, params, spec_of(samples["train"]))
    trainer_for(model).fit(model, samples["train"], samples["validation"], options)
    return model


def _score(model: Model, test: WindowSamples) -> float:
    return float(((model.predict(test) - test.outputs()) ** 2).mean())


def _report(name: str, error: float, last_value: float) -> None:
    aim = AIMS.get(name)
    report(BENCHMARK, f"{name}, test MSE", error, "", peer="repeat_last", peer_value=last_value,
           aim=None if aim is None else f"<= {aim}", met=None if aim is None else round(error, 4) <= aim)  # fmt: skip
