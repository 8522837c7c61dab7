"""The TransformManager: an experiment's preprocessing steps, fitted once and applied the same way everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.config import ExperimentConfig, StepConfig
from mlplatform.datamodule import Panel
from mlplatform.plugins import TRANSFORMS
from mlplatform.preprocessing.base import Transform

STATE_FILE = "preprocessor.json"
# What categories are turned into numbers by where no step says how.
DEFAULT_ENCODING = "label_encoding"


class TransformManager:
    """Preprocessing steps in order, one transform per step and column.

    Parameters:
        steps: the configured steps.
        columns: type (`float` or `category`) of every column the steps may touch, in model order.
        scaling: see `PreprocessingConfig`.
        moving: the columns that models can scale window by window.

    Attributes:
        fitted_: (column, transform name, transform) in the order of application; set by `fit`.
        windowed: the columns that come as they are, because models scale them window by window; set by `fit`.
    """

    def __init__(
        self,
        steps: Sequence[StepConfig],
        columns: Mapping[str, str],
        scaling: str = "none",
        moving: Sequence[str] = (),
    ) -> None:
        self.steps = tuple(steps)
        self.columns = dict(columns)
        self.scaling, self.moving = scaling, tuple(moving)
        self.windowed: tuple[str, ...] = ()
        self.fitted_: list[tuple[str, str, Transform]] = []

    @classmethod
    def for_experiment(cls, config: ExperimentConfig) -> TransformManager:
        """Return an unfitted manager for an experiment's features and targets.

        A step without columns applies to every feature of the type it accepts. Categorical columns that no step turns
        into numbers are label-encoded first, because models read numbers.
        """
        names = (*config.features.columns, *(t for t in config.targets if t not in config.features.columns))
        columns = {name: config.dataset.columns[name].type for name in names}
        steps = [_with_columns(step, config.features.columns, columns) for step in config.preprocessing.steps]
        encoding = [step for step in steps if TRANSFORMS.get(step.transform).accepts == "category"]
        encoded = {name for step in encoding for name in step.columns or ()}
        rest = tuple(name for name in names if columns[name] == "category" and name not in encoded)
        steps.insert(0, StepConfig(transform=DEFAULT_ENCODING, columns=rest))
        still = {*config.features.known_future, *config.features.static}
        moving = [name for name in names if columns[name] == "float" and name not in still]
        scaling = config.preprocessing.scaling if config.task == "forecast" else "none"
        return cls([step for step in steps if step.columns], columns, scaling, moving)

    @property
    def context(self) -> int:
        """Rows before a window that its first row depends on."""
        return sum(TRANSFORMS.get(step.transform)(**step.params).context for step in self.steps)

    def fit(self, panel: Panel) -> TransformManager:
        """Fit every step on the output of the steps before it. Pass training rows only.

        Raises:
            ValueError: if a step cannot be fitted or does not apply to the type of a column.
        """
        values = dict(panel.columns)
        types = dict(self.columns)
        self.fitted_ = []
        is_windowed = self.scaling == "window" or (self.scaling == "auto" and len(panel.entity_ids) > 1)
        self.windowed = self.moving if is_windowed else ()
        for step in self.steps:
            for name in step.columns or ():
                made: Transform = TRANSFORMS.get(step.transform)(**step.params)
                transform = made.without_level() if name in self.windowed else made
                if transform is None:
                    continue
                if transform.accepts != types[name]:
                    raise ValueError(
                        f"preprocessing step {step.transform!r} applies to {transform.accepts} columns, "
                        f"but {name!r} is {types[name]}"
                    )
                values[name] = transform.fit(values[name], name).apply(values[name], panel.offsets)
                types[name] = "float"
                self.fitted_.append((name, step.transform, transform))
        return self

    def transform(self, panel: Panel) -> Panel:
        """Return the panel with every step applied. Columns the panel lacks (a target at serving time) are skipped."""
        values = dict(panel.columns)
        for name, _, transform in self.fitted_:
            if name in values:
                values[name] = transform.apply(values[name], panel.offsets)
        return panel.with_columns(values)

    def invert(self, values: npt.NDArray[np.float32], column: str) -> npt.NDArray[np.float32]:
        """Map preprocessed values of `column`, of any shape, back to original units."""
        for name, _, transform in reversed(self.fitted_):
            if name == column:
                values = transform.invert(values)
        return values

    def classes(self, column: str) -> tuple[str, ...]:
        """Return the categories of a label-encoded column in code order."""
        for name, _, transform in self.fitted_:
            if name == column and hasattr(transform, "classes_"):
                return tuple(transform.classes_)
        raise ValueError(f"column {column!r} is not label-encoded")

    def save(self, folder: Path) -> None:
        """Write the fitted state as JSON into an existing folder."""
        fitted = [
            {"column": name, "transform": kind, "params": transform.params.model_dump(), "state": transform.state()}
            for name, kind, transform in self.fitted_
        ]
        steps = [step.model_dump(mode="json") for step in self.steps]
        document: dict[str, Any] = {"columns": self.columns, "steps": steps, "fitted": fitted}
        if self.windowed:
            document["windowed"] = self.windowed
        (folder / STATE_FILE).write_text(json.dumps(document, indent=1))

    @classmethod
    def load(cls, folder: Path) -> TransformManager:
        """Read what `save` wrote."""
        document = json.loads((folder / STATE_FILE).read_text())
        manager = cls([StepConfig.model_validate(step) for step in document["steps"]], document["columns"])
        manager.windowed = tuple(document.get("windowed", ()))
        for entry in document["fitted"]:
            transform: Transform = TRANSFORMS.get(entry["transform"])(**entry["params"])
            transform.restore(entry["state"])
            manager.fitted_.append((entry["column"], entry["transform"], transform))
        return manager


def _with_columns(step: StepConfig, features: Sequence[str], types: Mapping[str, str]) -> StepConfig:
    """Return the step with its columns spelled out."""
    accepts = TRANSFORMS.get(step.transform).accepts
    if step.columns is None:
        chosen = tuple(name for name in features if types[name] == accepts)
    else:
        chosen = tuple(name for name in step.columns if name in types)
    return step.model_copy(update={"columns": chosen})
