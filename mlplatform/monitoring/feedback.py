"""Labels that arrive after the fact for rows of tables, kept in a log of part files like that of predictions.

A label belongs to a prediction: by the request that was answered and the row's place in it or the entity that the
answer names, or by entity and time where the dataset has entities. It is never changed: a correction is a later label
for the same prediction. The labels of one request have an id, and under one id they count once, however often they are
sent. Without an id of the sender's they count once as long as nothing contradicts them: sent again after a correction,
they correct it back.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.monitoring.prediction_log import (
    LogFormat,
    Upkeep,
    batches_of,
    compact_parts,
    newer_parts,
    part_batches,
    part_days,
    readers_lock,
    write_part,
)
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

DAY = dt.timedelta(days=1)
# Parts that are looked into when labels are sent again. Behind more of them, they are written once more, which costs a
# file and changes no truth.
MOST_READ = 256


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
        given_id: what the sender calls them; default: a digest of them, with the moment where that decides which of
            several labels counts.

    Returns:
        The id, and whether they are new here. Under a given id, or if all say when they were known, they are new once.
        Others are new again after labels that contradict them; and so may they be, without any change, once their file
        was joined with others.

    Raises:
        OSError: if the disk refuses.
    """
    import pyarrow as pa

    folder = feedback_folder(settings, experiment)
    feedback_id = hashlib.sha256((given_id or _said(labels)).encode()).hexdigest()[:32]
    undated = [] if given_id else [each for each in labels if each.known_at is None]
    # Files of earlier versions have no moment in their names, which sorts first.
    arrivals = sorted(folder.glob(f"date=*/{feedback_id}{'*' if undated else ''}.parquet"), key=lambda path: path.stem)
    if arrivals and (not undated or _is_last_word(folder, arrivals[-1], undated)):
        return arrivals[-1].stem, False
    if undated:
        # Each arrival counts for itself: the same labels may have been corrected since the last one.
        feedback_id = f"{feedback_id}-{received_at.astimezone(dt.UTC):%Y%m%dT%H%M%S%f}"
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


def _is_last_word(folder: Path, arrival: Path, labels: Sequence[Label]) -> bool:
    """Return whether no label that came after these says otherwise of what may be one of their predictions.

    Parameters:
        arrival: their part file.
        labels: those of it that count from the moment of their arrival.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    names = feedback_schema().names
    with readers_lock(folder, shared=True):
        own = [batch for batch in batches_of(folder, [arrival], ["received_at"], FEEDBACK) if batch.num_rows]
        if not own:
            return False
        moment = own[0]["received_at"][0].as_py()
        newer = list(itertools.islice(newer_parts(folder, moment, arrival), MOST_READ + 1))
        if len(newer) > MOST_READ:
            return False
        # What came after them with a `known_at` before theirs does not count.
        known, received = ds.field("known_at"), ds.field("received_at")
        at = pa.scalar(moment, pa.timestamp("us", tz="UTC"))
        condition = (known > at) | ((known == at) & (received > at))
        request, entity = ds.field("request_id"), ds.field("entity_id")
        requests = pa.array({each.request_id for each in labels}, pa.string())
        entities = pa.array({each.entity_id for each in labels if each.request_id is None}, pa.string())
        condition &= pc.is_in(request, value_set=requests)
        condition &= request.is_valid() | pc.is_in(entity, value_set=entities)
        said = _by_name(labels)
        found = batches_of(folder, newer, names, FEEDBACK, condition)
        return not any(_contradict(said, row) for batch in found for row in batch.to_pylist())


def _by_name(labels: Iterable[Label]) -> dict[tuple[Any, ...], set[tuple[Any, Any]]]:
    """Return what labels say of each prediction by its name, and of all rows, or all entities, of each request."""
    said = defaultdict[tuple[Any, ...], set[tuple[Any, Any]]](set)
    for each in labels:
        name = each.request_id, each.request_row, each.entity_id, each.event_timestamp
        for key in (name, (each.request_id, each.request_row is None)):
            said[key].add((each.value, each.label))
    return dict(said)


def _contradict(said: Mapping[tuple[Any, ...], set[tuple[Any, Any]]], row: Mapping[str, Any]) -> bool:
    """Return whether labels say otherwise than a row of the log of what may be the same prediction."""
    own = {(row["value"], row["label"])}
    request, place = row["request_id"], row["request_row"]
    if said.get((request, place, row["entity_id"], row["event_timestamp"]), own) != own:
        return True
    # A row of a request and an entity of it may be the same; only the predictions know.
    return request is not None and said.get((request, place is not None), own) != own


def _said(labels: Sequence[Label]) -> str:
    return json.dumps([asdict(each) for each in labels], sort_keys=True, default=str)
