"""What fits of boosted trees give back, whatever the library that grew them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class CannotMergeError(ValueError):
    """Fitted models that must answer one by one; the message says why."""


@dataclass(frozen=True)
class Boosted:
    """One fitted model.

    Attributes:
        model: as the library made it, cut to `iterations` if early stopping was on.
        iterations: number of trees in use, per output.
        history: validation loss after every tree that was grown; empty without validation data.
    """

    model: Any
    iterations: int
    history: tuple[float, ...] = ()
