"""The contract every model family keeps, over the registry: shapes, storage without pickle, and the same bits twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples, TabularSamples, WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import FitOptions, FitResult, Model, ModelParams, create_model, load_model, save_model
from mlplatform.plugins import MODELS
from mlplatform.training.trainers import trainer_for

LOOKBACK, HORIZON = 12, 3
# A new family adds parameters that make it quick to fit here.
QUICK: dict[str, dict[str, Any]] = {
    "catboost": {"iterations": 4, "patience": 2, "depth": 2, "target_lags": [1, 3, 11, 12]},
    "catboost_tabular": {"iterations": 6, "patience": 2, "depth": 2},
    "dlinear": {"max_epochs": 3, "batch_size": 16},
    "dummy": {},
    "linear": {},
    "lstm": {"max_epochs": 3, "batch_size": 16, "hidden": 8},
    "nlinear": {"max_epochs": 3, "batch_size": 16},
    "random_forest": {"n_estimators": 3, "max_depth": 3, "target_lags": [1, 3, 11, 12]},
    "random_forest_tabular": {"n_estimators": 7},
    "repeat_last": {},
    "ridge": {},
    "seasonal_naive": {"season": 6},
    "tft": {"max_epochs": 2, "batch_size": 32, "hidden": 8},
    "xgboost": {"num_boost_round": 4, "patience": 2, "max_depth": 2, "subsample": 0.8, "target_lags": [1, 3, 11, 12]},
    "xgboost_tabular": {"num_boost_round": 6, "patience": 2, "max_depth": 2, "subsample": 0.8},
}
# Families whose answer to a sample does not depend, to the last bit, on the samples beside it.
EXACT = {
    "catboost",
    "catboost_tabular",
    "dummy",
    "random_forest",
    "random_forest_tabular",
    "repeat_last",
    "seasonal_naive",
    "xgboost",
    "xgboost_tabular",
}
CASES = [(name, task) for name, plugin in MODELS for task in sorted(plugin.tasks)]


def spec_for(task: Any, targets: tuple[int, ...] = (1,), classes: int = 3) -> ModelSpec:
    if task == "forecast":
        return ModelSpec(task, ("a", "b", "c"), targets, LOOKBACK, HORIZON, step_seconds=3600)
    return ModelSpec(task, ("a", "b", "c", "d"), classes=classes if task == "classification" else 0)


def windows(seed: int = 0, targets: tuple[int, ...] = (1,), rows: int = 90) -> WindowSamples:
    noise = np.random.default_rng(seed)
    steps = np.arange(rows)
    values = np.column_stack([np.sin(steps / 4 + shift) + noise.normal(0, 0.1, rows) for shift in range(3)])
    return WindowSamples(
        values=values.astype(np.float32),
        timestamps=np.datetime64("2024-01-01", "ns") + steps * np.timedelta64(1, "h"),
        origins=np.arange(LOOKBACK - 1, rows - HORIZON, dtype=np.int64),
        channels=("a", "b", "c"),
        targets=targets,
        lookback=LOOKBACK,
        horizon=HORIZON,
    )


def table(task: str, seed: int = 0, classes: int = 3, rows: int = 60) -> TabularSamples:
    values = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    labels = values[:, 0] * 2 + values[:, 1]
    if task == "classification":
        labels = np.clip(np.floor(labels) + 1, 0, classes - 1)
        labels[:classes] = np.arange(classes)
    classes = classes if task == "classification" else 0
    return TabularSamples(values, labels.astype(np.float32), ("a", "b", "c", "d"), classes)


def samples_for(spec: ModelSpec, seed: int = 0) -> Samples:
    return windows(seed, spec.targets) if spec.task == "forecast" else table(spec.task, seed, spec.classes)


def fitted(name: str, spec: ModelSpec, seed: int = 0, **arguments: Any) -> tuple[Model, FitResult]:
    assert name in QUICK, f"add quick parameters for model family {name!r} to QUICK"
    model = create_model(name, QUICK[name], spec)
    validation = arguments.pop("validation", samples_for(spec, 1))
    return model, trainer_for(model).fit(model, samples_for(spec), validation, FitOptions(seed=seed, **arguments))


def shape_of(spec: ModelSpec, count: int) -> tuple[int, ...]:
    by_task = {"forecast": (HORIZON, len(spec.targets)), "regression": (), "classification": (spec.classes,)}
    return (count, *by_task[spec.task])


@pytest.mark.parametrize("name", MODELS.names())
def test_a_family_declares_tasks_strict_parameters_and_a_valid_search_space(name: str) -> None:
    plugin = MODELS.get(name)
    assert issubclass(plugin, Model)
    assert plugin.tasks
    assert plugin.tasks <= {"forecast", "regression", "classification"}
    assert issubclass(plugin.Params, ModelParams)
    with pytest.raises(ValidationError, match="nonsense"):
        plugin.Params(nonsense=1)
    for task in plugin.tasks:
        for key, dimension in plugin.search_space(task).items():
            for value in dimension.choices or (dimension.low, dimension.high):
                plugin.Params.model_validate({key: value})


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
    assert {path.suffix for path in files} <= {".json", ".npy", ".ubj", ".safetensors", ".cbm"}
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


def tree_counts(model: Model) -> list[int]:
    boosters: list[Any] = [*getattr(model, "parts_", []), *([model.booster_] if hasattr(model, "booster_") else [])]
    return [one.tree_count_ if hasattr(one, "tree_count_") else one.num_boosted_rounds() for one in boosters]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_refit_runs_for_the_iterations_it_is_given(name: str, task: str) -> None:
    spec = spec_for(task)
    count = len(fitted(name, spec)[1].iterations)
    wanted = (2, 1, 3)[:count]
    for validation in (None, samples_for(spec, 1)):
        model, result = fitted(name, spec, iterations=wanted, validation=validation)
        assert result.iterations == wanted
        assert tree_counts(model) in ([], list(wanted))


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
        if name in EXACT:
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


def test_a_model_of_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        create_model("ridge", {"colour": 1}, spec_for("forecast"))
