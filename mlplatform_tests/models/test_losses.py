"""The absolute error as a loss: answers are medians, in every family of boosted trees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlplatform.config import ConfigError, load_experiment
from mlplatform.datamodule import Float32, Samples, WindowSamples
from mlplatform.models import FitOptions, Model, create_model, load_model, save_model
from mlplatform.settings import Settings
from mlplatform.testing.model_samples import spec_for, table, windows
from mlplatform.training import trainer_for

FAMILIES = {
    "xgboost": {"num_boost_round": 60, "max_depth": 2},
    "catboost": {"iterations": 60, "depth": 2},
    "xgboost_tabular": {"num_boost_round": 60, "max_depth": 2},
    "catboost_tabular": {"iterations": 60, "depth": 2},
}


def skewed(family: str, seed: int) -> tuple[Samples, Float32]:
    """Return samples whose target is small, and in one of five cases large; and the target."""
    noise = np.random.default_rng(seed)
    if family.endswith("tabular"):
        samples = table("regression", seed, rows=600)
        labels = (noise.normal(0, 0.1, 600) + 20 * (noise.random(600) < 0.2)).astype(np.float32)
        return replace(samples, labels=labels), labels
    samples = windows(seed, rows=600)
    values = samples.values.copy()
    values[:, 1] = noise.normal(0, 0.1, len(values)) + 20 * (noise.random(len(values)) < 0.2)
    samples = replace(samples, values=values, cache={})
    assert isinstance(samples, WindowSamples)
    return samples, samples.outputs()


def fit(family: str, loss: str, samples: Samples) -> Model:
    spec = spec_for("regression" if family.endswith("tabular") else "forecast")
    model = create_model(family, {**FAMILIES[family], "loss": loss}, spec)
    trainer_for(model).fit(model, samples, None, FitOptions())
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_medians(family: str, tmp_path: Path) -> None:
    train, _ = skewed(family, 0)
    fresh, truth = skewed(family, 1)
    errors = {}
    for loss in ("squared_error", "absolute_error"):
        model = fit(family, loss, train)
        answers = model.predict(fresh)
        errors[loss] = float(np.abs(answers.reshape(truth.shape) - truth).mean())
        save_model(model, family, tmp_path / loss)
        assert load_model(tmp_path / loss).predict(fresh).tobytes() == answers.tobytes()
    # The mean of what is 0 four times and 20 once is off by 6.4 on average, the median by 4.
    assert errors["absolute_error"] < 0.8 * errors["squared_error"]


def test_a_classification_has_no_absolute_error(tmp_path: Path) -> None:
    packaged = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match="loss is 'absolute_error', but a classification has classes and no numbers"):
        load_experiment("breast_cancer_xgboost", ["+model.params.loss=absolute_error"], packaged)
