"""Reading the log back: as one frame, or in batches for what must not depend on its length."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mlplatform.monitoring.prediction_log.rows import COLUMNS, log_schema
from mlplatform.monitoring.prediction_log.store import log_store
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa


def read_predictions(
    settings: Settings,
    experiment: str,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    columns: Sequence[str] = COLUMNS,
) -> pd.DataFrame:
    """Return the logged predictions of an experiment, in the order they were served.

    One row per (request, entity, target, step); time stamps are UTC, `entity_id` is text, `label` is the predicted
    class (its probability is `value`) and missing unless the task is classification. The columns from `lower` on are
    missing where the answer had none and in what earlier versions logged; `intervals` has those of all coverages, the
    main one included, where there are several. A part file that cannot be read is skipped
    with a warning that names it. Without a log the frame is empty.

    Parameters:
        since: leaves out what was served earlier; a naive time is taken as UTC.
        until: leaves out what was served then or later.
        columns: those to read, of `COLUMNS`.

    Raises:
        ValueError: if there is no such column.
    """
    import pyarrow as pa

    read = (*columns, *(["served_at"] if "served_at" not in columns else []))
    batches = list(prediction_batches(settings, experiment, since, until, read))
    table = pa.Table.from_batches(batches, pa.schema([log_schema().field(name) for name in read]))
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)
    return frame.sort_values("served_at", kind="stable", ignore_index=True)[list(columns)]


def prediction_days(settings: Settings, experiment: str) -> dict[dt.date, str]:
    """Return the days in UTC with logged predictions, oldest first, each with a text that changes when its rows do."""
    return log_store(settings, experiment).days()


def prediction_batches(
    settings: Settings,
    experiment: str,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    columns: Sequence[str] = COLUMNS,
) -> Iterator[pa.RecordBatch]:
    """Return the same rows in batches, for reading a log of any length in bounded memory.

    They come day after day, and the rows of one request together; within a day in no order. See `read_predictions`.
    """
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ValueError(
            f"the prediction log has no column {', '.join(map(repr, unknown))}; it has {', '.join(COLUMNS)}"
        )
    return log_store(settings, experiment).batches(since, until, columns)
