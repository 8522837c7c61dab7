"""The output of a network as a point or as quantiles that cannot cross."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

# Distance between two levels at an output of zero: a network starts with intervals of a plausible width for values of
# unit deviation, and weight decay pulls towards these.
START = 0.25

if TYPE_CHECKING:
    import torch

    from mlplatform.datamodule import ModelSpec


def outputs_per_step(spec: ModelSpec) -> int:
    """Return how many numbers a network puts out per step of the horizon."""
    return len(spec.targets) * max(len(spec.quantiles), 1)


def shape_outputs(raw: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """Turn (batch, horizon, outputs per step) into forecasts or ascending quantiles.

    The median is free; the others are its sum with softplus steps outwards, so that they never cross.

    Returns:
        (batch, horizon, targets), or with quantiles (batch, horizon, targets, quantiles).
    """
    import torch

    if not spec.quantiles:
        return raw
    raw = raw.reshape(*raw.shape[:-1], len(spec.targets), len(spec.quantiles))
    middle = spec.quantile_position(0.5)
    median = raw[..., middle : middle + 1]
    steps = torch.nn.functional.softplus(raw + math.log(math.expm1(START)))
    below = median - steps[..., :middle].flip(-1).cumsum(-1).flip(-1)
    above = median + steps[..., middle + 1 :].cumsum(-1)
    return torch.cat([below, median, above], dim=-1)


def add_level(outputs: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Add (batch, 1, targets) to forecasts of either shape."""
    return outputs + (level[..., None] if outputs.dim() == level.dim() + 1 else level)
