"""When what a drift report says starts a training run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mlplatform.config.base import Frozen

Trigger = Literal["errors", "features"]


class RetrainConfig(Frozen):
    """From drift reports to training runs.

    A cause (the served errors, or a feature) is on once `confirm` of the newest `reports` reports show it, and off
    after `clear_reports` in a row that show nothing: of errors, a ratio to the reference error of at most
    `clear_error_ratio` (by default halfway from 1 to `error_ratio`), of a feature, not even a suspicion. Causes of the
    kinds in `triggers` start a run; others are told and no more.

    A cause that a run has acted on counts as done until `new_data` of the recent window are rows that the run had not
    seen (of tables, until so many were added), or for `expire_hours`. Reports older than that are no evidence.
    `max_per_day` bounds the runs of any 24 hours. A run that failed is tried again up to `max_retries` times, the first
    time after `retry_minutes`, then after twice as long each time.
    """

    triggers: tuple[Trigger, ...] = ("errors",)
    confirm: int = Field(default=2, ge=1)
    reports: int = Field(default=3, ge=1, le=30)
    clear_reports: int = Field(default=2, ge=1, le=30)
    clear_error_ratio: float | None = Field(default=None, gt=0)
    new_data: float = Field(default=1.0, gt=0, le=1)
    expire_hours: float = Field(default=720.0, gt=0)
    max_per_day: int = Field(default=2, ge=1)
    max_retries: int = Field(default=2, ge=0)
    retry_minutes: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> RetrainConfig:
        if self.confirm > self.reports:
            raise ValueError(
                f"confirm is {self.confirm}, more than reports, {self.reports}, of which they have to be; "
                "lower it, or raise reports"
            )
        return self
