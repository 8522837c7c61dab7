"""How much of what a forecast looks at must have been measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlplatform.config.base import Frozen


class ObservationConfig(Frozen):
    """The least share of a forecast's lookback that must have been measured, and what happens below it.

    The share is that of the numeric column with the fewest measured steps. The default, 0, lets every forecast pass;
    answers carry the share in any case. `refuse` answers nothing for the entity; `fallback` answers the last measured
    value of every target instead of the model's forecast, marked as such, and refuses where there is none.
    """

    min_observed: float = Field(default=0.0, ge=0, le=1)
    action: Literal["refuse", "fallback"] = "refuse"
