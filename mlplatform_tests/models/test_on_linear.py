"""Trees that learn what a linear model leaves: trends go on, and what either cannot do is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlplatform.datamodule import WindowSamples
from mlplatform.models import Calibration, Contributions, Model, create_model, load_model, save_model
from mlplatform.plugins import MODELS
from mlplatform.testing.experiments import pump_config, pump_settings
from mlplatform.testing.model_samples import spec_for, windows
from mlplatform.training import trainer_for

SPEC = replace(spec_for("forecast"), scaling="window", season=4)
FAMILIES = ("xgboost", "catboost", "random_forest")


def rising(seed: int = 0) -> WindowSamples:
    """Return the windows with a target that rises further than any training window has it."""
    samples = windows(seed)
    values = samples.values.copy()
    values[:, 1] += np.float32(0.5) * np.arange(len(values), dtype=np.float32)
    return replace(samples, values=values, cache={})


def fitted(family: str, samples: WindowSamples, spec: object = SPEC, **params: object) -> Model:
    model = create_model(family, {**MODELS.get(family).example_params(), "on_linear": True, **params}, spec)  # type: ignore[arg-type]
    trainer_for(model).fit(model, samples, rising(1))
    return model


@pytest.mark.parametrize("strategy", ["direct", "horizon_feature"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_trend_goes_on_as_far_as_the_linear_model_takes_it(family: str, strategy: str) -> None:
    samples = rising()
    early = samples.select(np.arange(40))
    late = samples.select(np.arange(60, len(samples)))
    linear = create_model("ridge", {}, SPEC)
    trainer_for(linear).fit(linear, early, None)
    model = fitted(family, early, strategy=strategy)
    assert model.predict(late).shape == late.outputs().shape
    errors = [float(np.abs(each.predict(late) - late.outputs()).mean()) for each in (model, linear)]
    assert errors[0] < 1.1 * errors[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_the_same_when_it_was_stored_and_alone(family: str, tmp_path: Path) -> None:
    samples = rising()
    model = fitted(family, samples)
    save_model(model, family, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    expected = model.predict(samples)
    np.testing.assert_array_equal(loaded.predict(samples), expected)
    np.testing.assert_allclose(loaded.predict(samples.select(np.array([7])))[0], expected[7], rtol=1e-5)
    loaded.confirm_inference(samples)
    np.testing.assert_array_equal(loaded.predict(samples), expected)


def test_shares_add_up_to_the_forecast_with_the_linear_one_in_the_base() -> None:
    samples = rising()
    model = fitted("xgboost", samples)
    found = model.explain(samples)
    assert isinstance(found, Contributions)
    np.testing.assert_allclose(found.base + found.values.sum(axis=-1), model.predict(samples), rtol=1e-4, atol=1e-4)


def test_quantiles_and_intervals_follow_the_trend_too() -> None:
    samples = rising()
    model = fitted("xgboost", samples, replace(SPEC, quantiles=(0.1, 0.5, 0.9)))
    held_out = rising(2)
    model.calibration = Calibration.fit([(held_out, model.predict_bounds(held_out, 0.8))], 0.8)
    found = model.predict_intervals(rising(3))
    truth = rising(3).outputs()
    assert 0.7 < ((found.lower <= truth) & (truth <= found.upper)).mean() < 0.9


def test_what_is_missing_of_a_target_that_nothing_fills_is_refused_and_of_another_column_is_read() -> None:
    plain = replace(SPEC, scaling="", season=0)
    samples = rising()
    samples.values[20, 0] = np.nan
    fitted("xgboost", samples, plain)
    samples.values[20, 1] = np.nan
    samples.cache.clear()
    with pytest.raises(ValueError, match="cannot read missing values, found in b; add an impute step"):
        fitted("xgboost", samples, plain)


def test_what_the_family_cannot_be_fitted_to_is_told_without_a_fit() -> None:
    params = {**MODELS.get("catboost").example_params(), "on_linear": True, "calendar": False}
    model, samples = create_model("catboost", params, SPEC), windows()
    still = replace(samples, values=np.ones_like(samples.values), cache={})
    assert list(model.refusals(samples)) == []
    (refusal,) = model.refusals(still)
    assert refusal.startswith("learns from inputs that change, but 'a', 'b' and 'c' never change")


def test_it_is_not_written_where_it_is_not_used() -> None:
    params = MODELS.get("xgboost").Params
    assert "on_linear" not in params().model_dump()
    assert params(on_linear=True).model_dump()["on_linear"] is True
    assert "loss" not in params().model_dump()


@pytest.mark.parametrize(
    "params", [{"strategy": "recursive"}, {"loss": "poisson"}, {"difference": 1}, {"on_linear": True}]
)
def test_a_search_tries_it_where_it_can_be(params: dict[str, object], tmp_path: Path) -> None:
    config = pump_config(pump_settings(tmp_path))
    for name in ("xgboost", "catboost"):
        family = MODELS.get(name)
        assert family.alternatives(family.Params(**params), config) == ()
        (tried,) = family.alternatives(family.Params(), config)
        assert tried["on_linear"] is True
        of_short_series = family.alternatives(family.Params(), config.model_copy(update={"history": 96}))
        assert of_short_series == (tried, {**tried, "with_smoothing": True})
        family.Params(**of_short_series[1])
