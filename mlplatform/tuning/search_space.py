"""From a configured search space to an Optuna suggestion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlplatform.config import ExperimentConfig, SearchDimension
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import optuna


def space_of(config: ExperimentConfig) -> dict[str, SearchDimension]:
    """Return the experiment's search space: its own if configured, otherwise the model family's."""
    if config.model.search_space is not None:
        return config.model.search_space
    space: dict[str, SearchDimension] = MODELS.get(config.model.family).search_space(config.task)
    return space


def suggest(trial: optuna.Trial, space: Mapping[str, SearchDimension]) -> dict[str, Any]:
    """Ask the trial for a value of every dimension."""
    values: dict[str, Any] = {}
    for name, dimension in space.items():
        if dimension.type == "categorical":
            values[name] = trial.suggest_categorical(name, list(dimension.choices or ()))
            continue
        assert dimension.low is not None
        assert dimension.high is not None
        if dimension.type == "int":
            step = int(dimension.step or 1)
            values[name] = trial.suggest_int(
                name, int(dimension.low), int(dimension.high), step=step, log=dimension.log
            )
        else:
            values[name] = trial.suggest_float(
                name, dimension.low, dimension.high, step=dimension.step, log=dimension.log
            )
    return values
