"""From a configured search space to an Optuna suggestion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlplatform.config import ExperimentConfig, SearchDimension
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import optuna


def space_of(config: ExperimentConfig) -> dict[str, SearchDimension]:
    """Return the experiment's search space: its own if configured, otherwise the model family's.

    A family that has the parameter `calendar` is also tried without what `features.calendar` says.
    """
    if config.model.search_space is not None:
        return config.model.search_space
    family = MODELS.get(config.model.family)
    space: dict[str, SearchDimension] = family.search_space(config.task)
    if space and config.features.calendar is not None and "calendar" in family.Params.model_fields:
        return {**space, "calendar": SearchDimension(type="categorical", choices=(True, False))}
    return space


def alternatives_of(config: ExperimentConfig) -> tuple[dict[str, Any], ...]:
    """Return the changes of the configured parameters that a search tries first; none with a space of one's own."""
    if not config.tuning.alternatives or config.model.search_space is not None:
        return ()
    family = MODELS.get(config.model.family)
    params = family.Params.model_validate(config.model.params)
    found: tuple[dict[str, Any], ...] = family.alternatives(params, config)
    return found


def suggest(trial: optuna.Trial, space: Mapping[str, SearchDimension]) -> dict[str, Any]:
    """Ask the trial for a value of every dimension whose conditions hold.

    A dimension whose parent was itself left out is left out too. Left-out dimensions keep the configured value.
    """
    values: dict[str, Any] = {}
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        conditions = space[name].when
        for parent in conditions:
            visit(parent)
        if all(parent in values and values[parent] in allowed for parent, allowed in conditions.items()):
            values[name] = _value(trial, name, space[name])

    for name in space:
        visit(name)
    return values


def _value(trial: optuna.Trial, name: str, dimension: SearchDimension) -> Any:
    if dimension.type == "categorical":
        return trial.suggest_categorical(name, list(dimension.choices or ()))
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.type == "int":
        step = int(dimension.step or 1)
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)
