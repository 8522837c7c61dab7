"""The shape of a modelling problem, as data modules describe it and models are built for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlplatform.config import Task


@dataclass(frozen=True)
class ModelSpec:
    """The shape of the problem a model is built for.

    Attributes:
        task: forecast, regression or classification.
        channels: names of the input columns.
        targets: positions of the targets in `channels` (forecast only).
        lookback, horizon: window lengths in steps (forecast only).
        classes: number of classes (classification only).
        step_seconds: length of a time step (forecast only).
    """

    task: Task
    channels: tuple[str, ...]
    targets: tuple[int, ...] = ()
    lookback: int = 0
    horizon: int = 0
    classes: int = 0
    step_seconds: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Rebuild a spec from its JSON form."""
        typed: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**typed)
