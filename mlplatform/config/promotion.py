"""When a candidate replaces the champion."""

from __future__ import annotations

from pydantic import Field

from mlplatform.config.base import Frozen


class DriftPromotionConfig(Frozen):
    """What a training that drift asked for has to show beside the rest.

    `min_probability` takes the place of the policy's where it asks for more. `max_worse_before` is by what share the
    candidate may be worse than the champion on the champion's own reference set; more is allowed only where the
    champion fails on the new one.
    """

    min_probability: float = Field(default=0.9, ge=0.5, lt=1)
    max_worse_before: float = Field(default=0.1, ge=0)


class PromotionConfig(Frozen):
    """When a candidate replaces the champion.

    `margin` is relative: 0.01 asks for a metric at least one percent better than the champion's. `min_reference_rows`
    is the least number of reference rows, over all entities, that a decision may rest on. `never_older` refuses a pair
    with a lower version number, or with training rows that end earlier, than the champion's. With `dry_run` the gate
    decides and reports, but nothing is promoted. `min_probability` is the least probability, by a paired bootstrap of
    the reference samples, that the candidate is better than the champion and was not lucky; 0.5 asks for a better score
    alone. From `reference_uses_warning` decisions on one reference set on, the gate proposes a fresh one.
    """

    margin: float = Field(default=0.0, ge=0, lt=1)
    must_beat_baselines: bool = True
    cooldown_hours: float = Field(default=0.0, ge=0)
    min_reference_rows: int = Field(default=1, ge=1)
    never_older: bool = True
    dry_run: bool = False
    min_probability: float = Field(default=0.5, ge=0.5, lt=1)
    reference_uses_warning: int = Field(default=20, ge=1)
    drift: DriftPromotionConfig = DriftPromotionConfig()
