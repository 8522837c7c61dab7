"""Time points as callers write them: "now", ISO 8601 text, or a date and time."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import numpy as np
import pandas as pd

from mlplatform.data import parse_times
from mlplatform.features.errors import FeatureStoreError

TimePoint = str | dt.datetime | np.datetime64
NOW: Literal["now"] = "now"


def parse_time_point(time_point: TimePoint) -> pd.Timestamp | None:
    """Return a moment in UTC, or `None` for "now"; a moment without a zone is taken as UTC.

    Text is read as ingestion reads it: nothing but ISO 8601, of the years that nanoseconds can hold.

    Raises:
        FeatureStoreError: if it is not such a date and time.
    """
    if isinstance(time_point, str) and time_point == NOW:
        return None
    (moment,), _ = parse_times(pd.Series([time_point], dtype=object))
    if np.isnat(moment):
        raise FeatureStoreError(
            f"time_point must be 'now' or an ISO 8601 time of the years 1678 to 2261, but is {time_point!r}"
        )
    return pd.Timestamp(moment, tz="UTC")
