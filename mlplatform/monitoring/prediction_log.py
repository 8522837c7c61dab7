"""The prediction log: what was served, kept as Parquet for drift reports and error tracking.

A server appends one `ServedPredictions` per request; a background thread turns them into rows and writes part files
`<predictions_dir>/<experiment>/date=YYYY-MM-DD/<uuid>.parquet`. Appending never blocks on the disk and never fails a
request: when the disk cannot keep up, the oldest predictions are dropped and counted.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

COLUMNS = (
    "served_at",
    "request_id",
    "experiment",
    "version",
    "pair_id",
    "entity_id",
    "origin",
    "target",
    "step",
    "event_timestamp",
    "value",
    "label",
)


@dataclass(frozen=True)
class ServedPredictions:
    """The predictions of one request, for n entities.

    Attributes:
        served_at: when the answer was made, in UTC.
        request_id: the request's `x-request-id`.
        version, pair_id: the pair that answered.
        entity_ids: of shape (n,), as text.
        origins: of shape (n,), datetime64[ns] in UTC: the last moment the prediction looked at; NaT of rows without a
            time.
        targets: names of the targets.
        steps: of shape (steps,): 1 to horizon for a forecast, 0 for a tabular prediction.
        timestamps: of shape (n, steps), datetime64[ns] in UTC: the moment that is predicted.
        values: of shape (n, steps, targets), in original units; for classification the probability of `labels`.
        labels: of shape (n,): the predicted classes; `None` unless the task is classification.
    """

    served_at: dt.datetime
    request_id: str
    version: int
    pair_id: str
    entity_ids: Sequence[str]
    origins: npt.NDArray[np.datetime64]
    targets: tuple[str, ...]
    steps: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.datetime64]
    values: npt.NDArray[np.floating[Any]]
    labels: Sequence[str] | None = None

    @property
    def rows(self) -> int:
        """Number of log rows these predictions make."""
        return int(self.values.size)


class PredictionLog:
    """Buffers served predictions and writes them in the background.

    Parameters:
        settings: says where the log lives.
        experiment: the experiment whose predictions these are.
        flush_rows: rows that start a write at once.
        flush_interval_s: longest time a prediction waits for its write, in seconds.
        max_rows: rows kept in memory; beyond it the oldest are dropped.
    """

    def __init__(
        self,
        settings: Settings,
        experiment: str,
        *,
        flush_rows: int = 50_000,
        flush_interval_s: float = 10.0,
        max_rows: int = 1_000_000,
    ) -> None:
        self.folder = settings.predictions_dir / experiment
        self.experiment = experiment
        self.flush_rows = flush_rows
        self.flush_interval_s = flush_interval_s
        self.max_rows = max_rows
        self.written_rows = 0
        self.dropped_rows = 0
        self._buffer: deque[ServedPredictions] = deque()
        self._buffered_rows = 0
        self._closed = False
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def buffered_rows(self) -> int:
        """Rows that wait for their write."""
        return self._buffered_rows

    def append(self, predictions: ServedPredictions) -> None:
        """Take one request's predictions. Returns at once; drops the oldest ones when the buffer is full."""
        with self._changed:
            if self._closed:
                self.dropped_rows += predictions.rows
                return
            self._buffer.append(predictions)
            self._buffered_rows += predictions.rows
            self._drop_oldest()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
                self._thread.start()
            if self._buffered_rows >= self.flush_rows:
                self._changed.notify()

    def flush(self) -> None:
        """Write everything appended so far.

        Raises:
            OSError: if the disk refuses; the predictions stay in the buffer for the next attempt.
        """
        with self._writing:
            with self._changed:
                taken = list(self._buffer)
                self._buffer.clear()
                self._buffered_rows = 0
            by_date: dict[dt.date, list[ServedPredictions]] = {}
            for predictions in taken:
                by_date.setdefault(_utc(predictions.served_at).date(), []).append(predictions)
            while by_date:
                date, batch = next(iter(by_date.items()))
                try:
                    self._write(date, batch)
                except OSError:
                    self._put_back([predictions for rest in by_date.values() for predictions in rest])
                    raise
                del by_date[date]
                self.written_rows += sum(predictions.rows for predictions in batch)

    def close(self) -> None:
        """Stop the background thread and write what is left."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        except OSError:
            logger.exception("%d rows of the prediction log %s are lost", self.buffered_rows, self.folder)

    def _run(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._buffered_rows >= self.flush_rows, timeout=self.flush_interval_s
                )
            if self._closed:
                return
            try:
                self.flush()
            except OSError as error:
                logger.warning("cannot write the prediction log %s, will try again: %s", self.folder, error)
                with self._changed:
                    # A full buffer would otherwise retry a failing disk in a busy loop.
                    self._changed.wait_for(lambda: self._closed, timeout=self.flush_interval_s)

    def _put_back(self, predictions: list[ServedPredictions]) -> None:
        with self._changed:
            self._buffer.extendleft(reversed(predictions))
            self._buffered_rows += sum(item.rows for item in predictions)
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        while self._buffered_rows > self.max_rows:
            oldest = self._buffer.popleft()
            self._buffered_rows -= oldest.rows
            self.dropped_rows += oldest.rows

    def _write(self, date: dt.date, batch: Sequence[ServedPredictions]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = self.folder / f"date={date:%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        temporary = folder / f".{name}.tmp"
        try:
            pq.write_table(pa.concat_tables([_table(self.experiment, item) for item in batch]), temporary)
            temporary.replace(folder / f"{name}.parquet")
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

    moment = None if since is None else _utc(since)
    tables = [_schema().empty_table()]
    for path in sorted((settings.predictions_dir / experiment).glob("date=*/*.parquet")):
        if moment is not None and _partition_date(path) < moment.date():
            continue
        try:
            # `partitioning=None`: the folder's date is where a file lies, not one of its columns.
            tables.append(pq.read_table(path, partitioning=None).select(list(COLUMNS)).cast(_schema()))
        except (pa.ArrowException, OSError, KeyError) as error:
            logger.warning("skipped %s: not a readable prediction log file (%s)", path, error)
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    if moment is not None:
        frame = frame[frame["served_at"] >= moment]
    return frame.sort_values("served_at", kind="stable", ignore_index=True)


def _table(experiment: str, predictions: ServedPredictions) -> pa.Table:
    """Return the log rows of one request, entity after entity, step after step."""
    import pyarrow as pa

    samples, steps, targets = predictions.values.shape
    sample, step, target = (index.reshape(-1) for index in np.indices((samples, steps, targets)))
    rows = len(sample)
    labels = predictions.labels if predictions.labels is not None else [None] * samples
    columns = {
        "served_at": np.full(rows, np.datetime64(_utc(predictions.served_at).replace(tzinfo=None), "ns")),
        "request_id": pa.repeat(predictions.request_id, rows),
        "experiment": pa.repeat(experiment, rows),
        "version": np.full(rows, predictions.version, dtype=np.int64),
        "pair_id": pa.repeat(predictions.pair_id, rows),
        "entity_id": pa.array(predictions.entity_ids, pa.string()).take(sample),
        "origin": predictions.origins.astype("datetime64[ns]")[sample],
        "target": pa.array(predictions.targets, pa.string()).take(target),
        "step": predictions.steps.astype(np.int32)[step],
        "event_timestamp": predictions.timestamps.astype("datetime64[ns]")[sample, step],
        "value": predictions.values.reshape(-1).astype(np.float64),
        "label": pa.array(labels, pa.string()).take(sample),
    }
    schema = _schema()
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in schema], schema=schema)


def _schema() -> pa.Schema:
    import pyarrow as pa

    moment = pa.timestamp("ns", tz="UTC")
    types = {
        **dict.fromkeys(COLUMNS, pa.string()),
        **dict.fromkeys(("served_at", "origin", "event_timestamp"), moment),
        "version": pa.int64(),
        "step": pa.int32(),
        "value": pa.float64(),
    }
    return pa.schema([(name, types[name]) for name in COLUMNS])


def _partition_date(path: Path) -> dt.date:
    return dt.date.fromisoformat(path.parent.name.removeprefix("date="))


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
