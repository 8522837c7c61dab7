"""What a log needs now and then: few files, and no rows older than asked for."""

from __future__ import annotations

import datetime as dt

from mlplatform.monitoring.prediction_log.compaction import Compaction, compact_parts
from mlplatform.monitoring.prediction_log.rows import utc
from mlplatform.settings import Settings


def maintain_predictions(settings: Settings, experiment: str, now: dt.datetime) -> Compaction:
    """Join the part files of past days, and delete what is older than `MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS`.

    May run beside servers, readers and itself, and be killed at any moment.

    Raises:
        OSError: if the disk refuses; the log reads as before then.
    """
    folder = settings.predictions_dir / experiment
    return compact_parts(folder, utc(now).date(), settings.prediction_log_retention_days)
