"""The contract every model family keeps: shapes, storage without pickle, and the same bits twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mlplatform.config import check_conditions
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import FitOptions, Model, ModelParams, create_model, load_model, save_model
from mlplatform.plugins import MODELS
from mlplatform.testing.model_samples import LOOKBACK, fitted, samples_for, shape_of, spec_for, table, windows
from mlplatform.training.trainers import trainer_for

REGISTRY = MODELS
CASES = [(name, task) for name, family in MODELS for task in sorted(family.tasks)]
# Formats that cannot run code when they are read.
SAFE = {".json", ".npy", ".ubj", ".safetensors", ".cbm"}
SAFE_ELSEWHERE = {".txt", ".onnx"}


@pytest.mark.parametrize("name", MODELS.names())
def test_a_family_declares_tasks_strict_parameters_and_a_valid_search_space(name: str) -> None:
    family = MODELS.get(name)
    assert isinstance(family, type)
    assert issubclass(family, Model)
    assert family.tasks
    assert family.tasks <= {"forecast", "regression", "classification"}
    assert issubclass(family.Params, ModelParams)
    with pytest.raises(ValidationError, match="nonsense"):
        family.Params.model_validate({"nonsense": 1})
    for task in family.tasks:
        for key, dimension in family.search_space(task).items():
            for value in dimension.choices or (dimension.low, dimension.high):
                family.Params.model_validate({key: value})
        check_conditions(family.search_space(task), name)


@pytest.mark.parametrize("name", MODELS.names())
def test_a_family_knows_its_lookback_and_season(name: str) -> None:
    family = MODELS.get(name)
    assert isinstance(family, type)
    assert issubclass(family, Model)
    params = family.Params.model_validate(family.example_params())
    assert 1 <= family.least_lookback(params) <= LOOKBACK
    season = family.season(params)
    assert season is None or season >= 1


@pytest.mark.parametrize("targets", [(1,), (0, 2), (0, 1, 2), (2, 0)], ids=str)
@pytest.mark.parametrize("name", [name for name, task in CASES if task == "forecast"])
def test_a_forecast_has_the_shape_of_horizon_and_targets(name: str, targets: tuple[int, ...]) -> None:
    spec = spec_for("forecast", targets)
    samples = windows(2, targets)
    outputs = fitted(name, spec)[0].predict(samples)
    check_outputs(outputs, spec, len(samples))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", [name for name, task in CASES if task == "classification"])
def test_a_classification_is_probabilities(name: str, classes: int) -> None:
    spec = spec_for("classification", classes=classes)
    outputs = fitted(name, spec)[0].predict(table("classification", 2, classes))
    check_outputs(outputs, spec, 60)
    assert (outputs >= 0).all()
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name, task in CASES if task == "regression"])
def test_a_regression_is_one_number_per_sample(name: str) -> None:
    spec = spec_for("regression")
    check_outputs(fitted(name, spec)[0].predict(table("regression", 2)), spec, 60)


def check_outputs(outputs: Float32, spec: ModelSpec, count: int) -> None:
    """Check shape and type of a prediction, and that every value is a number."""
    assert outputs.shape == shape_of(spec, count)
    assert outputs.dtype == np.float32
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_stored_model_answers_with_the_same_bits_and_holds_no_pickle(name: str, task: str, tmp_path: Path) -> None:
    spec = spec_for(task)
    model, _ = fitted(name, spec)
    save_model(model, name, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    samples = samples_for(spec, 2)
    assert (loaded.spec, loaded.params) == (model.spec, model.params)
    assert loaded.predict(samples).tobytes() == model.predict(samples).tobytes()
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= SAFE | (SAFE_ELSEWHERE if name in MODELS.outside() else set())
    for path in files:
        assert not path.read_bytes().startswith(b"\x80"), f"{path} starts like a pickle"
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_the_same_seed_gives_the_same_bits(name: str, task: str) -> None:
    spec = spec_for(task)
    (first, one), (second, two) = fitted(name, spec, seed=5), fitted(name, spec, seed=5)
    assert one == two
    samples = samples_for(spec, 2)
    assert first.predict(samples).tobytes() == second.predict(samples).tobytes()


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_refit_runs_for_the_iterations_it_is_given(name: str, task: str) -> None:
    spec = spec_for(task)
    count = len(fitted(name, spec)[1].iterations)
    wanted = (2, 1, 3)[:count]
    for validation in (None, samples_for(spec, 1)):
        _, result = fitted(name, spec, iterations=wanted, validation=validation)
        assert result.iterations == wanted


@pytest.mark.parametrize(("name", "task"), CASES)
def test_validation_data_never_change_a_model_of_fixed_length(name: str, task: str) -> None:
    spec = spec_for(task)
    count = len(fitted(name, spec)[1].iterations)
    samples = samples_for(spec, 2)
    answers = {
        fitted(name, spec, iterations=(2,) * count, validation=validation)[0].predict(samples).tobytes()
        for validation in (None, samples_for(spec, 1))
    }
    assert len(answers) == 1


@pytest.mark.parametrize(("name", "task"), CASES)
def test_an_answer_does_not_depend_on_the_batch(name: str, task: str) -> None:
    spec = spec_for(task)
    model, _ = fitted(name, spec)
    samples = samples_for(spec, 2)
    together = model.predict(samples)
    for size in (1, 7):
        parts = [np.arange(start, min(start + size, len(samples))) for start in range(0, len(samples), size)]
        apart = np.concatenate([model.predict(samples.select(part)) for part in parts])
        if model.is_exact:
            assert apart.tobytes() == together.tobytes()
        else:
            np.testing.assert_allclose(apart, together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_no_samples_are_answered_with_nothing(name: str, task: str) -> None:
    spec = spec_for(task)
    model, _ = fitted(name, spec)
    nothing = samples_for(spec).select(np.zeros(0, dtype=np.int64))
    assert model.predict(nothing).shape == shape_of(spec, 0)


@pytest.mark.parametrize("name", [name for name, task in CASES if task == "forecast"])
def test_a_forecast_looks_at_its_window_only(name: str) -> None:
    spec = spec_for("forecast")
    model, _ = fitted(name, spec)
    samples = windows(2)
    origin = 40
    one = replace(samples, origins=np.array([origin]), cache={})
    changed = samples.values.copy()
    changed[: origin - LOOKBACK + 1] = 1e6
    changed[origin + 1 :] = -1e6
    elsewhere = replace(one, values=changed, cache={})
    assert model.predict(elsewhere).tobytes() == model.predict(one).tobytes()


FORECASTS = [name for name, task in CASES if task == "forecast"]
WINDOWED = replace(spec_for("forecast"), scaling="window", season=6)


@pytest.mark.parametrize("name", FORECASTS)
def test_scaled_windows_of_any_level_are_answered_alike(name: str) -> None:
    model, _ = fitted(name, WINDOWED)
    samples = windows(2)
    # A power of two, so that no rounding can move a value over the border of a tree's split.
    for factor in (np.float32(2**20), np.float32(2**-20)):
        elsewhere = replace(samples, values=samples.values * factor, cache={})
        np.testing.assert_allclose(model.predict(elsewhere), model.predict(samples) * factor, rtol=1e-5)


@pytest.mark.parametrize("name", FORECASTS)
def test_a_scaled_forecast_looks_at_its_window_only_and_fills_what_is_missing(name: str, tmp_path: Path) -> None:
    model, _ = fitted(name, WINDOWED)
    save_model(model, name, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    samples = windows(2)
    values = samples.values.copy()
    values[[36, 39, 40], 1] = np.nan
    changed = values.copy()
    changed[: 40 - LOOKBACK + 1] = 1e6
    changed[41:] = -1e6
    one = np.array([40])
    together = model.predict(replace(samples, values=values, cache={}))
    alone = loaded.predict(replace(samples, values=changed, origins=one, cache={}))
    position = int(np.flatnonzero(samples.origins == 40)[0])
    assert np.isfinite(together).all()
    if model.is_exact:
        assert alone[0].tobytes() == together[position].tobytes()
    else:
        np.testing.assert_allclose(alone[0], together[position], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORECASTS)
def test_a_family_is_fitted_to_scaled_windows_with_missing_values(name: str) -> None:
    samples = windows(0)
    values = samples.values.copy()
    # Inputs only: what is forecast is always there.
    values[[3, 4], 1] = np.nan
    first = samples.select(samples.origins >= LOOKBACK + 2)
    model = create_model(name, MODELS.get(name).example_params(), WINDOWED)
    trainer_for(model).fit(model, replace(first, values=values, cache={}), None, FitOptions())
    check_outputs(model.predict(windows(2)), WINDOWED, len(windows(2)))


# First differences, and those of a season that is shorter than the horizon, or longer.
@pytest.mark.parametrize("period", [1, 2, 4])
@pytest.mark.parametrize("name", [name for name in FORECASTS if name != "seasonal_naive"])
def test_any_family_learns_differences_and_answers_in_the_units_of_what_they_are_of(
    name: str, period: int, tmp_path: Path
) -> None:
    spec = replace(spec_for("forecast"), scaling="window", season=4)
    model, _ = fitted(name, spec, difference=period)
    save_model(model, name, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    samples = windows(2)
    outputs = loaded.predict(samples)
    check_outputs(outputs, spec, len(samples))
    assert outputs.tobytes() == model.predict(samples).tobytes()
    # A level that is added to a window is in its forecast, and nothing before or behind the window is.
    one = samples.select(np.array([30]))
    moved = samples.values.copy()
    moved[: one.origins[0] - LOOKBACK + 1] = 1e6
    moved[one.origins[0] + 1 :] = -1e6
    assert model.predict(replace(one, values=moved, cache={})).tobytes() == model.predict(one).tobytes()
    lifted = samples.values + np.float32(64)
    raised = model.predict(replace(one, values=lifted, cache={}))
    assert np.abs(raised - model.predict(one) - 64).max() < 4
