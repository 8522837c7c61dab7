"""Time points as callers write them: "now", ISO 8601 text, or a date and time."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import numpy as np
import pandas as pd

from mlplatform.features.errors import FeatureStoreError

TimePoint = str | dt.datetime | np.datetime64
NOW: Literal["now"] = "now"


def parse_time_point(time_point: TimePoint) -> pd.Timestamp | None:
    """Return a moment in UTC, or `None` for "now"; a moment without a zone is taken as UTC.

    Raises:
        FeatureStoreError: if the text is not a date and time.
    """
    if isinstance(time_point, str) and time_point == NOW:
        return None
    try:
        moment = pd.Timestamp(time_point)
    except ValueError as error:
        raise FeatureStoreError(f"time_point must be 'now' or an ISO 8601 time, but is {time_point!r}") from error
    if pd.isna(moment):
        raise FeatureStoreError(f"time_point must be 'now' or an ISO 8601 time, but is {time_point!r}")
    return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
