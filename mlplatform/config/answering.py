"""What a server does with an experiment beside answering from its production pair."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mlplatform.config.base import Frozen

PRODUCTION = "production"


class ChallengerConfig(Frozen):
    """A second pair that works on the traffic of the one in production.

    `alias` says which pair that is. With `mode` `split` it answers the `share` of all entities that a hash of their id
    falls into; with `shadow` it is asked about them too, and its answers are logged and never returned. A challenger
    that has not answered after `deadline_s` seconds, or fails, is replaced by production.
    """

    alias: str = Field(default="staging", min_length=1, max_length=256)
    share: float = Field(default=0.1, gt=0, le=1)
    mode: Literal["split", "shadow"] = "split"
    deadline_s: float = Field(default=1.0, gt=0, le=60)

    @model_validator(mode="after")
    def _challenges_production(self) -> ChallengerConfig:
        if self.alias == PRODUCTION:
            raise ValueError("alias is 'production', the pair that is challenged; name another alias, such as staging")
        return self


class AnsweringConfig(Frozen):
    """The challenger of an experiment, `null` for none, and what stands in for its forecasts.

    `fallback` answers, marked as such, for entities whose features are older than `staleness.max_age` or measured less
    than `observation.min_observed`, and where the model fails: with `seasonal_naive` the value one season earlier,
    with `last_forecast` the last one that the server made from the feature store, for the moments that it was made for.
    """

    challenger: ChallengerConfig | None = None
    fallback: Literal["none", "seasonal_naive", "last_forecast"] = "none"
