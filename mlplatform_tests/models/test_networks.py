"""Networks: quantiles that cannot cross, and what a forecast may and may not read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlplatform.models.base import FitOptions, Model, create_model
from mlplatform.training.trainers import trainer_for
from mlplatform_tests.models.test_models import spec_for, windows

QUANTILES = (0.1, 0.25, 0.5, 0.9)
FAMILIES = ["lstm", "tft"]


def fitted(family: str, **spec: object) -> Model:
    params = {"max_epochs": 2, "batch_size": 16, "hidden": 8}
    model = create_model(family, params, replace(spec_for("forecast", (0, 2)), **spec))  # type: ignore[arg-type]
    samples = windows(targets=(0, 2))
    samples = replace(samples, known=model.spec.known, static=model.spec.static, step_seconds=3600)
    trainer_for(model).fit(model, samples, None, FitOptions())
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_quantiles_never_cross_and_their_median_is_the_prediction(family: str) -> None:
    model = fitted(family, quantiles=QUANTILES)
    samples = replace(windows(2, (0, 2)), step_seconds=3600)
    samples.values[:] *= 50
    answers = model.predict_quantiles(samples)
    assert answers.shape == (len(samples), 3, 2, 4)
    assert (np.diff(answers, axis=-1) >= 0).all()
    assert model.predict(samples).tobytes() == np.ascontiguousarray(answers[..., 2]).tobytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_known_columns_are_read_over_the_horizon_and_no_others(family: str) -> None:
    model = fitted(family, known=(1,))
    samples = replace(windows(2, (0, 2)), origins=np.array([40]), known=(1,), step_seconds=3600)
    for column, is_read in ((0, False), (1, True), (2, False)):
        values = samples.values.copy()
        values[41:44, column] += 3
        same = np.array_equal(model.predict(replace(samples, values=values, cache={})), model.predict(samples))
        assert same != is_read


@pytest.mark.parametrize("normalisation", ["last_value", "revin"])
def test_a_shift_of_the_series_shifts_the_forecast(normalisation: str) -> None:
    spec = spec_for("forecast", (0, 1, 2))
    model = create_model("lstm", {"normalisation": normalisation, "max_epochs": 1}, spec)
    trainer_for(model).fit(model, windows(targets=(0, 1, 2)), None)
    samples = windows(2, (0, 1, 2))
    shifted = replace(samples, values=samples.values + 10, cache={})
    np.testing.assert_allclose(model.predict(shifted), model.predict(samples) + 10, rtol=1e-4)
