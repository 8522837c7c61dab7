"""Labels that arrive after the fact for rows of tables, kept in a log of part files like that of predictions.

A label belongs to a prediction: by the request that was answered and the row's place in it or the entity that the
answer names, or by entity and time. It is never changed: a correction is a later label for the same prediction. The
labels of one request have an id, by default made of what they say; under one id they count once, however often they
are sent.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.monitoring.prediction_log import LogFormat, Upkeep, compact_parts, part_batches, part_days, write_part
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Label:
    """What turned out to be true for one prediction.

    Attributes:
        value: of a regression, in original units.
        label: of a classification.
        request_id: of the answer, with `request_row` (from 0) or `entity_id`.
        entity_id: as text; without a request, with `event_timestamp` where rows have a time.
        event_timestamp: the time of the row, in UTC.
        known_at: when it was established, in UTC; of several labels for a prediction the one known last counts. By
            default it is when it arrived.
    """

    value: float | None = None
    label: str | None = None
    request_id: str | None = None
    request_row: int | None = None
    entity_id: str | None = None
    event_timestamp: dt.datetime | None = None
    known_at: dt.datetime | None = None


def feedback_schema() -> pa.Schema:
    """Return the columns of the log."""
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("received_at", moment),
            ("feedback_id", pa.string()),
            ("request_id", pa.string()),
            ("request_row", pa.int32()),
            ("entity_id", pa.string()),
            ("event_timestamp", moment),
            ("value", pa.float64()),
            ("label", pa.string()),
            ("known_at", moment),
        ]
    )


FEEDBACK = LogFormat(feedback_schema, ("received_at", "feedback_id", "value", "label"), "received_at")


def keep_labels(
    settings: Settings, experiment: str, labels: Sequence[Label], received_at: dt.datetime, given_id: str | None = None
) -> tuple[str, bool]:
    """Write labels to the log; they are on the disk when this returns.

    Parameters:
        received_at: now, in UTC.
        given_id: what the sender calls them; default: a digest of them.

    Returns:
        The id, and whether they are new here: sent again, they change nothing.

    Raises:
        OSError: if the disk refuses.
    """
    import pyarrow as pa

    folder = feedback_folder(settings, experiment)
    feedback_id = hashlib.sha256((given_id or _said(labels)).encode()).hexdigest()[:32]
    if any(folder.glob(f"date=*/{feedback_id}.parquet")):
        return feedback_id, False
    common = {"received_at": received_at, "feedback_id": feedback_id}
    rows = [{**asdict(each), **common, "known_at": each.known_at or received_at} for each in labels]
    write_part(folder, feedback_id, pa.Table.from_pylist(rows, feedback_schema()), FEEDBACK)
    return feedback_id, True


def label_batches(settings: Settings, experiment: str) -> Iterator[pa.RecordBatch]:
    """Yield the labels of an experiment; some may be there twice, under one `feedback_id`."""
    return part_batches(feedback_folder(settings, experiment), None, None, feedback_schema().names, FEEDBACK)


def labels_text(settings: Settings, experiment: str) -> str:
    """Return a text that changes whenever the log does."""
    days = part_days(feedback_folder(settings, experiment))
    return hashlib.sha256(json.dumps(list(days.values())).encode()).hexdigest()[:16] if days else ""


def maintain_feedback(settings: Settings, experiment: str, now: dt.datetime) -> Upkeep:
    """Join part files, and delete what is older than `MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS`.

    Also those of the present day: each request leaves one.
    """
    keep, tomorrow = settings.prediction_log_retention_days, now.astimezone(dt.UTC).date() + DAY
    retention = None if keep is None else keep + 1
    return compact_parts(feedback_folder(settings, experiment), tomorrow, retention, FEEDBACK)


def feedback_folder(settings: Settings, experiment: str) -> Path:
    """Return the folder of an experiment's log."""
    return settings.feedback_dir / experiment


def _said(labels: Sequence[Label]) -> str:
    return json.dumps([asdict(each) for each in labels], sort_keys=True, default=str)
