"""What the log holds, in a few numbers."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from mlplatform.monitoring.prediction_log.reading import prediction_batches
from mlplatform.monitoring.prediction_log.store import log_store
from mlplatform.settings import Settings


@dataclass
class LogSummary:
    """Counts of a log.

    Attributes:
        place: where it is kept.
        rows: its rows.
        last_served: when the newest was answered, in UTC; `None` of an empty log.
        requests, values: answered requests and predicted values per version.
    """

    place: str
    rows: int = 0
    last_served: dt.datetime | None = None
    requests: Counter[int] = field(default_factory=Counter)
    values: Counter[int] = field(default_factory=Counter)


def summarise_predictions(settings: Settings, experiment: str) -> LogSummary:
    """Return what an experiment's log holds, in memory that its length does not change."""
    import pyarrow as pa
    import pyarrow.compute as pc

    summary, last_id = LogSummary(str(log_store(settings, experiment))), None
    for batch in prediction_batches(settings, experiment, columns=("served_at", "request_id", "version")):
        if not batch.num_rows:
            continue
        # The rows of one request follow each other.
        runs = pc.run_end_encode(batch["request_id"])
        first = np.concatenate([[0], np.asarray(runs.run_ends)[:-1]])
        begins = first[int(runs.values[0].as_py() == last_id) :]
        last_id = runs.values[-1].as_py()
        versions = batch["version"].to_numpy()
        for counts, those in ((summary.requests, versions[begins]), (summary.values, versions)):
            counts.update(dict(zip(*(part.tolist() for part in np.unique(those, return_counts=True)), strict=True)))
        newest = pc.max(batch["served_at"]).cast(pa.timestamp("us", tz="UTC"), safe=False).as_py()
        summary.last_served = newest if summary.last_served is None else max(summary.last_served, newest)
        summary.rows += batch.num_rows
    return summary
