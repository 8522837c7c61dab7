"""What a log needs now and then: few files, and no rows older than asked for."""

from __future__ import annotations

import datetime as dt

from mlplatform.monitoring.prediction_log.compaction import Upkeep
from mlplatform.monitoring.prediction_log.rows import utc
from mlplatform.monitoring.prediction_log.store import log_store
from mlplatform.settings import Settings


def maintain_predictions(settings: Settings, experiment: str, now: dt.datetime) -> Upkeep:
    """Join the part files of past days, and delete what is older than `MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS`.

    May run beside servers, readers and itself, and be killed at any moment.

    Raises:
        Exception: whatever the disk or the database raises; the log reads as before then.
    """
    return log_store(settings, experiment).maintain(utc(now).date(), settings.prediction_log_retention_days)
