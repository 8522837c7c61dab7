"""Losses for counts: what they learn, what they refuse, and how they are stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.datamodule import Samples, TabularSamples, WindowSamples
from mlplatform.models import CannotExplainError, FitOptions, Model, create_model, load_model, save_model
from mlplatform.testing.model_samples import spec_for, table, windows
from mlplatform.training import trainer_for

LOSSES = [{"loss": "poisson"}, {"loss": "tweedie", "variance_power": 1.3}]
FEW: dict[str, dict[str, Any]] = {
    "xgboost": {"num_boost_round": 40, "max_depth": 2},
    "catboost": {"iterations": 40, "depth": 2},
    "xgboost_tabular": {"num_boost_round": 60},
    "catboost_tabular": {"iterations": 60},
}
CASES = [(family, loss) for family in FEW for loss in LOSSES]
SPECS = {name: spec_for("regression" if name.endswith("tabular") else "forecast") for name in FEW}


def counts(family: str, level: float, seed: int = 0) -> Samples:
    """Return samples whose target is Poisson, with a mean that follows the inputs."""
    noise = np.random.default_rng(seed)
    if family.endswith("tabular"):
        samples = table("regression", seed, rows=400)
        return replace(samples, labels=noise.poisson(level * np.exp(samples.values[:, 0] / 2)).astype(np.float32))
    samples = windows(seed, rows=300)
    values = samples.values.copy()
    values[:, 1] = noise.poisson(level * np.exp(np.sin(np.arange(len(values)) / 4)))
    return replace(samples, values=values)


def truth(samples: Samples) -> np.ndarray:
    return samples.outputs() if isinstance(samples, WindowSamples) else samples.labels


def fit(family: str, params: dict[str, Any], samples: Samples, **spec: Any) -> Model:
    model = create_model(family, {**FEW[family], **params}, replace(SPECS[family], **spec))
    trainer_for(model).fit(model, samples, None, FitOptions())
    return model


@pytest.mark.parametrize("level", [2.0, 5000.0])
@pytest.mark.parametrize(("family", "loss"), CASES, ids=str)
def test_counts_of_any_size_are_learnt_never_negative_and_unbiased(
    family: str, loss: dict[str, Any], level: float, tmp_path: Path
) -> None:
    model = fit(family, loss, counts(family, level))
    fresh = counts(family, level, 1)
    answers, found = model.predict(fresh), truth(fresh)
    assert (answers > 0).all()
    assert abs(answers.mean() / found.mean() - 1) < 0.12
    # Better than the mean: in Poisson deviance, which small and large counts alike are judged by.
    assert deviance(found, answers) < 0.9 * deviance(found, np.full_like(found, found.mean()))
    save_model(model, family, tmp_path / "model")
    assert load_model(tmp_path / "model").predict(fresh).tobytes() == answers.tobytes()


def deviance(found: np.ndarray, mean: np.ndarray) -> float:
    wide, expected = found.astype(np.float64), mean.astype(np.float64)
    logs = np.where(wide > 0, wide * np.log(np.where(wide > 0, wide, 1) / expected), 0)
    return float(np.mean(2 * (logs - (wide - expected))))


@pytest.mark.parametrize("strategy", ["direct", "horizon_feature", "recursive"])
@pytest.mark.parametrize("family", ["xgboost", "catboost"])
def test_counts_of_many_levels_are_forecast_in_units_of_their_windows(family: str, strategy: str) -> None:
    params = {"loss": "poisson", "strategy": strategy}
    model = fit(family, params, counts(family, 50), scaling="window", season=25)
    samples = counts(family, 50, 1)
    assert isinstance(samples, WindowSamples)
    large = replace(samples, values=samples.values * np.float32(1024), cache={})
    np.testing.assert_allclose(model.predict(large), model.predict(samples) * 1024, rtol=1e-4)


@pytest.mark.parametrize("family", FEW)
def test_a_negative_target_is_refused_before_the_fit(family: str) -> None:
    samples = counts(family, 5)
    if isinstance(samples, TabularSamples):
        samples.labels[3] = -2
    else:
        samples.values[80, 1] = -2
    with pytest.raises(ValueError, match="targets of 0 and more, but a preprocessed target goes down to -2"):
        fit(family, {"loss": "poisson"}, samples)


@pytest.mark.parametrize("family", FEW)
def test_nothing_but_zeros_is_answered_with_next_to_nothing(family: str) -> None:
    samples = counts(family, 0)
    assert np.abs(fit(family, {"loss": "poisson"}, samples).predict(samples)).max() < 0.01


@pytest.mark.parametrize("family", FEW)
def test_shares_of_a_logarithm_are_no_shares_of_the_answer(family: str) -> None:
    samples = counts(family, 5)
    with pytest.raises(CannotExplainError, match="add up to the logarithm"):
        fit(family, {"loss": "poisson"}, samples).explain(samples)


@pytest.mark.parametrize("family", FEW)
def test_stored_parameters_say_nothing_of_a_loss_that_was_not_chosen(family: str) -> None:
    assert not {"loss", "variance_power"} & set(create_model(family, {}, SPECS[family]).params.model_dump())
