"""When the world has drifted, and when features are too old to be read."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import Field, model_validator

from mlplatform.config.base import Frozen, time_step
from mlplatform.config.found import AUTO
from mlplatform.config.retraining import RetrainConfig


class DriftConfig(Frozen):
    """When recent data counts as drifted, and how often that may start a training run.

    `false_alarm_rate` is the false-discovery rate over all features of a report, which is the share of reports that
    suspect anything while nothing changed. `min_effect` is the least change of level that matters, in standard
    deviations of the training rows, `min_missing` the least rise of the share of missing values. `test` compares
    shapes; its distance and the `quantile` of those between training stretches stand in the report for information.
    Level, spread and shares of categories are also judged in groups of entities: `group_by` is "entity", for each
    alone, a column of the dataset that says what an entity belongs to, or null for none; more than `max_groups` are not
    judged.
    `cooldown_hours` is the least time between two training runs that drift asks for; the rest of that is in `retrain`.
    """

    test: str = "wasserstein"
    recent_steps: int = Field(default=168, ge=2)
    quantile: float = Field(default=0.99, gt=0.5, lt=1)
    false_alarm_rate: float = Field(default=0.05, gt=0, lt=0.5)
    min_effect: float = Field(default=0.25, ge=0)
    min_missing: float = Field(default=0.1, gt=0, lt=1)
    group_by: str | None = "entity"
    max_groups: int = Field(default=1000, ge=2)
    error_ratio: float = Field(default=1.5, gt=1)
    min_predictions: int = Field(default=24, ge=1)
    cooldown_hours: float = Field(default=24.0, ge=0)
    retrain: RetrainConfig = RetrainConfig()

    @model_validator(mode="after")
    def _thresholds(self) -> DriftConfig:
        if self.clear_error_ratio > self.error_ratio:
            raise ValueError(
                f"retrain.clear_error_ratio is {self.clear_error_ratio:g}, above error_ratio, {self.error_ratio:g}: "
                "errors would be on and off at once; lower it"
            )
        return self

    @property
    def clear_error_ratio(self) -> float:
        """The ratio to the reference error up to which served errors count as ordinary again."""
        given = self.retrain.clear_error_ratio
        return (1.0 + self.error_ratio) / 2.0 if given is None else given


class StalenessConfig(Frozen):
    """How old features may be when they are read, and what happens to older ones.

    The age of an entity's features is the present of the read (the time point, or the clock for "now") minus the event
    time of its newest row. Without `max_age` no age is refused, so that data of the past stays usable; what a forecast
    is made from is then marked as stale once the forecast's last step lies before that present. `refuse` raises an
    error that names the entities, and drift reports call the feed broken; `flag` answers and marks them. In YAML,
    `max_age: auto` follows from the frequency of a forecast's dataset.
    """

    max_age: str | None = None
    action: Literal["refuse", "flag"] = "refuse"

    @model_validator(mode="after")
    def _length(self) -> StalenessConfig:
        if self.max_age == AUTO:
            raise ValueError(
                "max_age is 'auto', which follows from the frequency of a forecast's dataset; give a length such as "
                "1D, or null for any age"
            )
        if self.max_age is not None:
            time_step(self.max_age, "max_age")
        return self

    @property
    def limit(self) -> dt.timedelta | None:
        """The greatest age that is not too old; `None` for any."""
        return None if self.max_age is None else time_step(self.max_age, "max_age")

    @property
    def refused_beyond(self) -> dt.timedelta | None:
        """The age beyond which nothing is answered; `None` where every age is."""
        return self.limit if self.action == "refuse" else None
