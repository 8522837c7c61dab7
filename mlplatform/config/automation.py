"""What stands beside an asset in Dagster's page: owners, tags, and when schedules and sensors run."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mlplatform.config.base import Frozen
from mlplatform.config.dagster_formats import check_cron, check_owner, check_tag_key, check_tag_value

Owners = tuple[Annotated[str, AfterValidator(check_owner)], ...]
Tags = dict[Annotated[str, AfterValidator(check_tag_key)], Annotated[str, AfterValidator(check_tag_value)]]
Cron = Annotated[str, AfterValidator(check_cron)]
# Sensors are looked at every few seconds; more often than this is not possible.
IntervalSeconds = Annotated[int, Field(ge=5)]


class DatasetAutomation(Frozen):
    """When the schedule and the sensor of a dataset run, once they are turned on. Crons are in UTC.

    `running` names those that are on from the start, until someone turns them off in the Dagster page.
    """

    materialize_cron: Cron = "5 * * * *"
    new_data_interval_s: IntervalSeconds = 60
    running: tuple[Literal["materialize", "new_data"], ...] = ()


class ExperimentAutomation(Frozen):
    """When the schedules and the sensor of an experiment run, once they are turned on. Crons are in UTC.

    `running` names those that are on from the start, until someone turns them off in the Dagster page;
    `first_report_day` is the first day that a drift report can be asked for.
    """

    monitor_cron: Cron = "15 4 * * *"
    forecast_cron: Cron = "30 5 * * *"
    drift_interval_s: IntervalSeconds = 60
    running: tuple[Literal["monitor", "forecast", "drift"], ...] = ()
    first_report_day: dt.date = dt.date(2024, 1, 1)
