"""When a candidate replaces the champion."""

from __future__ import annotations

from pydantic import Field

from mlplatform.config.base import Frozen


class PromotionConfig(Frozen):
    """When a candidate replaces the champion.

    `margin` is relative: 0.01 asks for a metric at least one percent better than the champion's. `min_reference_rows`
    is the least number of reference rows, over all entities, that a decision may rest on. `never_older` refuses a pair
    with a lower version number, or with training rows that end earlier, than the champion's. With `dry_run` the gate
    decides and reports, but nothing is promoted.
    """

    margin: float = Field(default=0.0, ge=0, lt=1)
    must_beat_baselines: bool = True
    cooldown_hours: float = Field(default=0.0, ge=0)
    min_reference_rows: int = Field(default=1, ge=1)
    never_older: bool = True
    dry_run: bool = False
