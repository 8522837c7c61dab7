"""Why a model answered what it did: shares of single inputs in an answer, or weights of whole variables.

Shares are Shapley values of a tree ensemble (Lundberg et al., From local explanations to global understanding with
explainable AI for trees, Nature Machine Intelligence 2020), as the boosters compute them: exact, and with the base they
add up to the answer. Weights are those of a network's variable selection, which say how much of each variable it let
through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Kind = Literal["value", "level", "change", "mean", "known", "calendar", "step"]
# Where shares add up: in what the model answers, in log-odds (one number per class, through the logistic function), or
# in scores of classes (through softmax).
Space = Literal["output", "log_odds", "scores"]


class CannotExplainError(ValueError):
    """A model whose answers have no such explanation; the message says why."""


@dataclass(frozen=True)
class Feature:
    """What one share is of.

    Attributes:
        input: the column; of the calendar, `event_timestamp`.
        kind: `value` of a row; `level`, the column's last value; `change`, an earlier value less the last one; `mean`,
            a trailing average less the last value; `known`, a value at a step of the horizon, numbers less the last
            value; `calendar`; `step`, the number of the step.
        lag: steps before the last value.
        length: steps that are averaged.
        step: of the horizon, from 1.
        part: which part of the calendar.
    """

    input: str
    kind: Kind
    lag: int | None = None
    length: int | None = None
    step: int | None = None
    part: str | None = None


@dataclass(frozen=True)
class Contributions:
    """Shares of features in answers, in preprocessed space.

    Attributes:
        base: what an answer is without any feature, of the shape of the answers: (samples, horizon, targets),
            (samples,) or (samples, classes). Of a forecast of changes the last observed value is in it.
        values: of shape (..., features); with `base` they add up to the answers, as `space` says.
    """

    features: tuple[Feature, ...]
    base: Float64
    values: Float64
    space: Space = "output"


@dataclass(frozen=True)
class VariableWeights:
    """How much of each variable a network let through, of one sample; the weights of a group add up to one.

    Attributes:
        static, past, future: weight by variable; `static` is empty without static columns.
        lag_attention: attention to the step `k` steps before the origin at position `k`, averaged over the horizon.
    """

    static: Mapping[str, float]
    past: Mapping[str, float]
    future: Mapping[str, float]
    lag_attention: tuple[float, ...]


Explanation = Contributions | tuple[VariableWeights, ...]
