"""The steps of preprocessing, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from mlplatform.config.base import Frozen
from mlplatform.config.dataset import DatasetConfig
from mlplatform.plugins import TRANSFORMS, PluginUse


class StepConfig(Frozen):
    """One preprocessing step: a transform, the columns it applies to (default: all it can), and its parameters."""

    transform: str
    columns: tuple[str, ...] | None = None
    params: dict[str, Any] = Field(default_factory=dict)


class PreprocessingConfig(Frozen):
    """The steps of the TransformManager, in order, and how series of different level are made alike.

    `scaling: window` lets the model of a forecast scale every window by itself: measured numbers come to it in their
    own units, steps that know one level for all series (scales, clips, imputed constants) are left out for them, and
    what is missing counts as unchanged. `auto` does so where more than one series is trained on. `none` scales all
    series alike.
    """

    steps: tuple[StepConfig, ...] = ()
    scaling: Literal["none", "auto", "window"] = "none"


def preprocessing_context(preprocessing: PreprocessingConfig) -> int:
    """Return how many rows before a window its first row depends on, over all steps."""
    return sum(TRANSFORMS.get(step.transform)(**step.params).context for step in preprocessing.steps)


def step_uses(preprocessing: PreprocessingConfig) -> Iterator[PluginUse]:
    """Yield the transforms of the steps, in order."""
    for position, step in enumerate(preprocessing.steps):
        owner = f"preprocessing.steps[{position}]"
        yield PluginUse(
            TRANSFORMS, f"{owner}.transform", step.transform, f"{owner}.params", step.params, step.columns or ()
        )


def step_column_mistakes(preprocessing: PreprocessingConfig, dataset: DatasetConfig) -> Iterator[str]:
    """Yield the columns of steps that the dataset does not have."""
    for position, step in enumerate(preprocessing.steps):
        for name in step.columns or ():
            if name not in dataset.columns:
                yield (
                    f"preprocessing.steps[{position}].columns names {name!r}, which is not a column of dataset "
                    f"{dataset.name!r}; allowed: {', '.join(dataset.columns)}"
                )
