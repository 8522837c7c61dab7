"""Small windows and tables that a model of any family is fitted on in moments."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlplatform.datamodule.samples import Samples, TabularSamples, WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import FitOptions, FitResult, Model, create_model
from mlplatform.plugins import MODELS
from mlplatform.training.trainers import trainer_for

LOOKBACK, HORIZON = 12, 3


def spec_for(task: Any, targets: tuple[int, ...] = (1,), classes: int = 3) -> ModelSpec:
    """Return the shape of the samples of a task."""
    if task == "forecast":
        return ModelSpec(task, ("a", "b", "c"), targets, LOOKBACK, HORIZON, step_seconds=3600)
    return ModelSpec(task, ("a", "b", "c", "d"), classes=classes if task == "classification" else 0)


def windows(seed: int = 0, targets: tuple[int, ...] = (1,), rows: int = 90) -> WindowSamples:
    """Return windows of three noisy waves, hour by hour."""
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
        step_seconds=3600,
    )


def table(task: str, seed: int = 0, classes: int = 3, rows: int = 60) -> TabularSamples:
    """Return rows of four columns, two of which the label follows."""
    values = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    labels = values[:, 0] * 2 + values[:, 1]
    if task == "classification":
        labels = np.clip(np.floor(labels) + 1, 0, classes - 1)
        labels[:classes] = np.arange(classes)
    classes = classes if task == "classification" else 0
    return TabularSamples(values, labels.astype(np.float32), ("a", "b", "c", "d"), classes)


def samples_for(spec: ModelSpec, seed: int = 0) -> Samples:
    """Return samples of a shape."""
    return windows(seed, spec.targets) if spec.task == "forecast" else table(spec.task, seed, spec.classes)


def fitted(
    name: str, spec: ModelSpec, seed: int = 0, difference: int | None = None, **arguments: Any
) -> tuple[Model, FitResult]:
    """Return a model of the family `name`, fitted with the family's example parameters, and what the fit reported.

    Parameters:
        difference: as in `ModelParams`.
        arguments: `validation` samples; all else as in `FitOptions`.
    """
    model = create_model(name, {**MODELS.get(name).example_params(), "difference": difference}, spec)
    validation = arguments.pop("validation", samples_for(spec, 1))
    return model, trainer_for(model).fit(model, samples_for(spec), validation, FitOptions(seed=seed, **arguments))


def shape_of(spec: ModelSpec, count: int) -> tuple[int, ...]:
    """Return the shape of a prediction for `count` samples."""
    by_task = {"forecast": (HORIZON, len(spec.targets)), "regression": (), "classification": (spec.classes,)}
    return (count, *by_task[spec.task])
