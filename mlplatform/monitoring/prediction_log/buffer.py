"""The buffer between requests and the log: appending costs a request microseconds, whatever the disk does.

A server appends one `ServedPredictions` per request; a background thread turns what has gathered into one table and
writes it. Appending never blocks on the disk and never fails a request: when the disk cannot keep up, the oldest
predictions are dropped and counted.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlplatform.monitoring.prediction_log.rows import ServedPredictions, log_table
from mlplatform.monitoring.prediction_log.store import log_store
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

# Rows of one part file, unless one request alone has more. Bounds the memory of a write, and what a failed one repeats.
PART_ROWS = 50_000
# Requests that are handled before the thread steps back: about a millisecond of Python.
SLICE_REQUESTS = 128
# How long it steps back, in seconds. A thread that never waits keeps others from Python's lock for five milliseconds
# at a time.
STEP_BACK_S = 0.001


@dataclass
class Piece:
    """What is written together: predictions of one day.

    Attributes:
        id: the same at every attempt to write it, so that a write whose success went unheard of adds nothing again.
    """

    predictions: deque[ServedPredictions] = field(default_factory=deque)
    rows: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


class PredictionLog:
    """Buffers served predictions and writes them in the background.

    Parameters:
        settings: says where the log lives.
        experiment: the experiment whose predictions these are.
        flush_rows: rows that start a write at once.
        flush_interval_s: longest time a prediction waits for its write, in seconds.
        max_rows: rows kept in memory; beyond it the oldest are dropped.

    Raises:
        ValueError: if the settings name a place that cannot be.
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
        # Loaded now: the first write would do it while requests are answered. pyarrow loads pandas for its first array.
        import pandas  # noqa: F401
        import pyarrow.parquet  # noqa: F401

        self.store = log_store(settings, experiment)
        self.experiment = experiment
        self.flush_rows = flush_rows
        self.flush_interval_s = flush_interval_s
        self.max_rows = max_rows
        self.written_rows = 0
        self.dropped_rows = 0
        self._buffer: deque[ServedPredictions] = deque()
        # Those whose write failed come first.
        self._pieces: deque[Piece] = deque()
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
            Exception: whatever the disk or the database raises; the predictions stay for the next attempt.
        """
        with self._writing:
            with self._changed:
                taken, self._buffer = self._buffer, deque()
                pieces, self._pieces = self._pieces, deque()
                self._buffered_rows = 0
            pieces.extend(self._cut(taken))
            try:
                while pieces:
                    self._write(pieces[0])
                    pieces.popleft()
            finally:
                self._put_back(pieces)

    def close(self) -> None:
        """Stop the background thread and write what is left."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        except Exception:
            logger.exception("%d rows of the prediction log %s are lost", self.buffered_rows, self.store)

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
            except Exception as error:
                # Whatever it was: without this thread nothing would be written until the next restart.
                logger.warning("cannot write the prediction log %s, will try again: %r", self.store, error)
                with self._changed:
                    # A full buffer would otherwise retry a failing disk in a busy loop.
                    self._changed.wait_for(lambda: self._closed, timeout=self.flush_interval_s)

    def _put_back(self, pieces: deque[Piece]) -> None:
        with self._changed:
            self._pieces = pieces
            self._buffered_rows += sum(piece.rows for piece in pieces)
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        while self._buffered_rows > self.max_rows:
            rows = self._pop_oldest().rows
            self._buffered_rows -= rows
            self.dropped_rows += rows

    def _pop_oldest(self) -> ServedPredictions:
        if not self._pieces:
            return self._buffer.popleft()
        piece = self._pieces[0]
        oldest = piece.predictions.popleft()
        piece.rows -= oldest.rows
        if not piece.predictions:
            self._pieces.popleft()
        return oldest

    def _cut(self, taken: Sequence[ServedPredictions]) -> list[Piece]:
        pieces: list[Piece] = []
        of_day: dict[dt.date, Piece] = {}
        for part in self._slices(taken):
            for predictions in part:
                piece = of_day.get(date := predictions.date)
                if piece is None or piece.rows + predictions.rows > PART_ROWS:
                    piece = of_day[date] = Piece()
                    pieces.append(piece)
                piece.predictions.append(predictions)
                piece.rows += predictions.rows
        return pieces

    def _write(self, piece: Piece) -> None:
        import pyarrow as pa

        rows = pa.concat_tables([self._table(part) for part in self._slices(piece.predictions)])
        written = self.store.write(piece.id, rows)
        self.written_rows += written
        self.dropped_rows += piece.rows - written

    def _table(self, part: Sequence[ServedPredictions]) -> pa.Table:
        """Return the rows of some requests, without those that make none: these would fail at every attempt."""
        import pyarrow as pa

        try:
            return log_table(self.experiment, part)
        except (ValueError, TypeError) as error:
            if len(part) > 1:
                return pa.concat_tables([self._table([predictions]) for predictions in part])
            logger.error("dropped predictions that the prediction log %s cannot hold: %s", self.store, error)
            return log_table(self.experiment, [])

    def _slices(self, predictions: Sequence[ServedPredictions]) -> Iterator[list[ServedPredictions]]:
        """Yield the predictions in slices, stepping back between them for the threads that answer requests."""
        rest = iter(predictions)
        while part := list(itertools.islice(rest, SLICE_REQUESTS)):
            yield part
            if not self._closed:
                time.sleep(STEP_BACK_S)
