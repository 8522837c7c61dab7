"""Learning-rate schedules, as functions of the time trained: a resumed fit needs no state of theirs."""

from __future__ import annotations

import math

from mlplatform.models.networks import TorchParams

ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 0.04


def learning_rate(params: TorchParams, epoch: float) -> float:
    """Return the learning rate after `epoch` epochs, a fraction in the middle of one."""
    if epoch < params.warmup_epochs:
        return params.learning_rate * (epoch + 1) / (params.warmup_epochs + 1)
    epoch -= params.warmup_epochs
    done = min(epoch / max(params.max_epochs - params.warmup_epochs, 1), 1.0)
    factor = 1.0
    if params.schedule == "exponential":
        factor = params.decay ** math.floor(epoch)
    elif params.schedule == "cosine":
        factor = _fall(done)
    elif params.schedule == "one_cycle":
        rising = done < ONE_CYCLE_RISE
        risen = ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1 - _fall(done / ONE_CYCLE_RISE))
        factor = risen if rising else _fall((done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
    return params.learning_rate * factor


def _fall(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2
