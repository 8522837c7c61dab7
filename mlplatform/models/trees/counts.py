"""The losses that trees are fitted to, and those for counts above all: Poisson and Tweedie, with a log link.

For targets that are never negative, and often 0, both libraries fit the logarithm of the mean (Jørgensen, The Theory of
Dispersion Models, 1997), so that answers are above 0 and errors may grow with the level. What is learnt are the targets
themselves, not changes of them.

Here: the parameters, and what keeps them from being used. Not here: the libraries' settings (`xgboost`, `catboost`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import Samples, WindowSamples
from mlplatform.models.base import DirectFitModel, ModelParams, S
from mlplatform.models.explanation import CannotExplainError
from mlplatform.plugins import TRANSFORMS, PluginUse

COUNT_LOSSES = ("poisson", "tweedie")
# A mean of 0 has no logarithm.
LEAST_MEAN = 1e-6


class LossParams(ModelParams):
    """`loss` is the squared error, the absolute one, or for counts that of a `poisson` or `tweedie` distribution.

    Answers tend to the mean with the squared error, and with the absolute one to the median, which has the least `mae`
    and `mase`. `variance_power` is Tweedie's, between 1 (Poisson) and 2 (gamma). With quantiles, the loss is theirs.
    """

    later: ClassVar[frozenset[str]] = frozenset({"loss", "variance_power"})

    loss: Literal["squared_error", "absolute_error", "poisson", "tweedie"] = "squared_error"
    variance_power: float = Field(default=1.5, gt=1, lt=2)

    @property
    def is_of_counts(self) -> bool:
        """Whether targets must not be negative."""
        return self.loss in COUNT_LOSSES


def loss_mistakes(use: PluginUse, params: ModelParams, config: ExperimentConfig) -> Iterator[str]:
    """Yield what keeps a loss from being used in an experiment."""
    if not isinstance(params, LossParams) or params.loss == "squared_error":
        return
    key = f"{use.params_key}.loss is {params.loss!r}"
    if config.task == "classification":
        yield f"{key}, but a classification has classes and no numbers; leave it out"
    if use.section == "model" and config.uncertainty.quantiles:
        yield f"{key}, but uncertainty.quantiles has a loss of its own; leave one of them out"
    if not params.is_of_counts:
        return
    if params.difference is not None:
        yield f"{key}, but differences can be negative; leave loss or difference out"
    for target in config.targets:
        if found := _changed_by(target, config):
            yield (
                f"{key}, which needs {target!r} in its own units, but {found} changes them; use preprocessing.scaling: "
                "window, or give that step columns without the target"
            )


class LearnsCounts(DirectFitModel[S]):
    """A boosted family, whose loss may be one for counts."""

    @classmethod
    @override
    def check(cls, use: PluginUse, params: Any, config: ExperimentConfig) -> Iterator[str]:
        """Yield what keeps the family, or its loss, from being used."""
        yield from super().check(use, params, config)
        yield from loss_mistakes(use, params, config)

    @override
    def refusals(self, train: Samples | None, validation: Samples | None = None) -> Iterator[str]:
        """Yield what the model's loss cannot learn."""
        yield from super().refusals(train, validation)
        yield from _negative(self.params, train, validation)


def _changed_by(target: str, config: ExperimentConfig) -> str | None:
    """Return the step that changes the units of a target before the model sees it."""
    preprocessing, dataset = config.preprocessing, config.dataset
    is_windowed = config.task == "forecast" and (
        preprocessing.scaling == "window" or (preprocessing.scaling == "auto" and dataset.entity_column is not None)
    )
    for position, step in enumerate(preprocessing.steps):
        touched = config.features.columns if step.columns is None else step.columns
        transform = TRANSFORMS.get(step.transform)(**step.params)
        left = transform.without_level() if is_windowed else transform
        if target in touched and left is not None and left.is_invertible:
            return f"preprocessing.steps[{position}] ({step.transform})"
    return None


def _negative(params: ModelParams, *parts: Samples | None) -> Iterator[str]:
    """Yield that samples cannot be fitted with a loss of counts, if a target of theirs is negative."""
    if not isinstance(params, LossParams) or not params.is_of_counts:
        return
    outputs = (part.outputs() if isinstance(part, WindowSamples) else part.labels for part in parts if part is not None)
    least = min(float(np.min(values, initial=0)) for values in outputs)
    if least < 0:
        yield (
            f"has loss {params.loss!r}, which is for targets of 0 and more, but a preprocessed target goes down to "
            f"{least:g}; use loss squared_error, or for a target that preprocessing has scaled preprocessing.scaling: "
            "window"
        )


def refuse_explanation(params: ModelParams) -> None:
    """Refuse shares in answers that are no sum of them.

    Raises:
        CannotExplainError: for a loss of counts.
    """
    if isinstance(params, LossParams) and params.is_of_counts:
        raise CannotExplainError(
            f"with loss {params.loss!r} trees add up to the logarithm of an answer, in which shares of it do not; "
            "train with loss squared_error"
        )
