"""The log's part files: `<predictions_dir>/<experiment>/date=YYYY-MM-DD/<name>.parquet`."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mlplatform.monitoring.prediction_log.rows import COLUMNS, schema, utc
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


def write_part(folder: Path, date: dt.date, rows: pa.Table) -> None:
    """Add a part file with rows that were served on a day.

    Raises:
        OSError: if the disk refuses; nothing is left there then.
    """
    import pyarrow.parquet as pq

    day = folder / f"date={date:%Y-%m-%d}"
    day.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    temporary = day / f".{name}.tmp"
    try:
        pq.write_table(rows, temporary)
        temporary.replace(day / f"{name}.parquet")
    finally:
        temporary.unlink(missing_ok=True)


def read_predictions(settings: Settings, experiment: str, since: dt.datetime | None = None) -> pd.DataFrame:
    """Return the logged predictions of an experiment, in the order they were served.

    One row per (request, entity, target, step) with the columns `COLUMNS`; time stamps are UTC, `entity_id` is text,
    `label` is the predicted class (its probability is `value`) and missing unless the task is classification. A part
    file that cannot be read is skipped with a warning that names it. Without a log the frame is empty.

    Parameters:
        since: leaves out what was served earlier; a naive time is taken as UTC.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    moment = None if since is None else utc(since)
    tables = [schema().empty_table()]
    for path in sorted((settings.predictions_dir / experiment).glob("date=*/*.parquet")):
        if moment is not None and _partition_date(path) < moment.date():
            continue
        try:
            # `partitioning=None`: the folder's date is where a file lies, not one of its columns.
            tables.append(pq.read_table(path, partitioning=None).select(list(COLUMNS)).cast(schema()))
        except (pa.ArrowException, OSError, KeyError) as error:
            logger.warning("skipped %s: not a readable prediction log file (%s)", path, error)
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    if moment is not None:
        frame = frame[frame["served_at"] >= moment]
    return frame.sort_values("served_at", kind="stable", ignore_index=True)


def _partition_date(path: Path) -> dt.date:
    return dt.date.fromisoformat(path.parent.name.removeprefix("date="))
