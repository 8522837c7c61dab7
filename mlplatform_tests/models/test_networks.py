"""Networks: quantiles that cannot cross, and what a forecast may and may not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlplatform.datamodule.samples import WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import FitOptions, Model, create_model, load_model, save_model
from mlplatform.testing.model_samples import spec_for, windows
from mlplatform.training.trainers import trainer_for

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


def mirrored(seed: int, rows: int = 400) -> WindowSamples:
    """Two series that return every four steps, the second with the other sign: no one linear map serves both."""
    values = np.random.default_rng(seed).normal(size=(rows, 2))
    for row in range(4, rows):
        values[row] += values[row - 4] * (0.95, -0.95)
    times = np.datetime64("2024-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "h")
    return WindowSamples(values.astype(np.float32), times, np.arange(3, rows - 2), ("a", "b"), (0, 1), 4, 2)


def check_storage(model: Model, family: str, samples: WindowSamples, folder: Path) -> None:
    save_model(model, family, folder / "model")
    assert load_model(folder / "model").predict(samples).tobytes() == model.predict(samples).tobytes()


def test_layers_of_their_own_let_targets_of_dlinear_move_differently(tmp_path: Path) -> None:
    spec, samples = ModelSpec("forecast", ("a", "b"), (0, 1), 4, 2, step_seconds=3600), mirrored(1)
    params = {"kernel": 3, "max_epochs": 40, "learning_rate": 0.02, "schedule": "cosine"}
    errors = {}
    for individual in (True, False):
        model = create_model("dlinear", {**params, "individual": individual}, spec)
        trainer_for(model).fit(model, mirrored(0), None, FitOptions())
        errors[individual] = np.square(model.predict(samples) - samples.outputs()).mean(axis=(0, 1))
        check_storage(model, "dlinear", samples, tmp_path / str(individual))
    # The noise, which no forecast can know, has a variance of one.
    assert (errors[True] < 1.1).all()
    assert (errors[False] > 3).all()


def test_an_lstm_of_two_layers_learns(tmp_path: Path) -> None:
    params = {
        "layers": 2, "hidden": 16, "dropout": 0.1, "linear_skip": False,
        "max_epochs": 30, "batch_size": 16, "learning_rate": 0.01,
    }  # fmt: skip
    model = create_model("lstm", params, spec_for("forecast", (0, 2)))
    trainer_for(model).fit(model, replace(windows(0, (0, 2), rows=300), step_seconds=3600), None, FitOptions())
    samples = replace(windows(2, (0, 2), rows=200), step_seconds=3600)
    naive = create_model("repeat_last", {}, model.spec).predict(samples)
    error, naive_error = (np.abs(answers - samples.outputs()).mean() for answers in (model.predict(samples), naive))
    assert error < 0.5 * naive_error
    check_storage(model, "lstm", samples, tmp_path)


@pytest.mark.parametrize(("family", "tolerance"), [("nlinear", 0.02), ("dlinear", 0.02), ("lstm", 0.02), ("tft", 0.1)])
def test_bfloat16_learns_what_float32_does(family: str, tolerance: float) -> None:
    samples = replace(windows(rows=600), step_seconds=3600)
    losses = []
    for precision in ("float32", "bfloat16"):
        params = {"max_epochs": 5, "batch_size": 16, "precision": precision}
        model = create_model(family, params, spec_for("forecast"))
        losses.append(trainer_for(model).fit(model, samples, samples).history[-1])
        assert model.predict(samples).dtype == np.float32
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_intervals_start_at_a_plausible_width(family: str) -> None:
    """Before training, a network must not claim intervals several deviations wide; weight decay would keep them."""
    model = create_model(family, {}, replace(spec_for("forecast"), quantiles=(0.1, 0.5, 0.9)))
    trainer_for(model).fit(model, replace(windows(), step_seconds=3600), None, FitOptions(iterations=(1,)))
    answers = model.predict_quantiles(replace(windows(2), step_seconds=3600))
    assert 0.3 < np.median(answers[..., 2] - answers[..., 0]) < 0.8
