"""How much of what a forecast looks at must have been measured, and how long a series must be."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from mlplatform.config.base import Frozen


class ObservationConfig(Frozen):
    """The least share of a forecast's lookback that must have been measured, and what happens below it.

    The share is that of the numeric column with the fewest measured steps. The default, 0, lets every forecast pass;
    answers carry the share in any case. `refuse` answers nothing for the entity; `fallback` answers the last measured
    value of every target instead of the model's forecast, marked as such, and refuses where there is none.

    `short` is for series that begin inside the lookback, more than a tenth of it late: the `model` answers, with what
    is missing unobserved; something `naive` stands in, marked as such; `skip` leaves them out of an answer that has
    others, by name; or `refuse` answers nothing. `null` has the model answer what the feature store holds, and refuses
    rows that are too few.
    """

    min_observed: float = Field(default=0.0, ge=0, le=1)
    action: Literal["refuse", "fallback"] = "refuse"
    short: Literal["model", "naive", "skip", "refuse"] | None = None

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and says nothing: digests and versions of stored configurations stay."""
        values: dict[str, Any] = write(self)
        if self.short is None:
            values.pop("short", None)
        return values
