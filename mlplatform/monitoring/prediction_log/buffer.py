"""The buffer between requests and the log: appending costs a request microseconds, whatever the disk does.

A server appends one `ServedPredictions` per request; a background thread turns what has gathered into one table and
writes it. Appending never blocks on the disk and never fails a request: when the disk cannot keep up, the oldest
predictions are dropped and counted.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlplatform.monitoring.prediction_log.parts import write_part
from mlplatform.monitoring.prediction_log.rows import ServedPredictions, log_table
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

_Piece = tuple[dt.date, list[ServedPredictions]]


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
        # Loaded now: the first write would do it while requests are answered.
        import pyarrow.parquet  # noqa: F401

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
                taken, self._buffer, self._buffered_rows = self._buffer, deque(), 0
            pieces = deque(self._pieces(taken))
            try:
                while pieces:
                    self._write(*pieces[0])
                    pieces.popleft()
            finally:
                self._put_back([predictions for _, piece in pieces for predictions in piece])

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
            except Exception as error:
                # Whatever it was: without this thread nothing would be written until the next restart.
                logger.warning("cannot write the prediction log %s, will try again: %r", self.folder, error)
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

    def _pieces(self, taken: Sequence[ServedPredictions]) -> list[_Piece]:
        """Return what each part file gets: predictions of one day, as many as make `PART_ROWS` rows."""
        pieces: list[_Piece] = []
        open_pieces: dict[dt.date, tuple[list[ServedPredictions], int]] = {}
        for part in self._slices(list(taken)):
            for predictions in part:
                piece, rows = open_pieces.get(predictions.date, ([], 0))
                if not piece or rows + predictions.rows > PART_ROWS:
                    piece, rows = [], 0
                    pieces.append((predictions.date, piece))
                piece.append(predictions)
                open_pieces[predictions.date] = piece, rows + predictions.rows
        return pieces

    def _write(self, date: dt.date, piece: Sequence[ServedPredictions]) -> None:
        import pyarrow as pa

        tables = [self._table(part) for part in self._slices(piece)]
        rows = pa.concat_tables(tables)
        if rows.num_rows:
            write_part(self.folder, date, rows)
        self.written_rows += rows.num_rows
        self.dropped_rows += sum(predictions.rows for predictions in piece) - rows.num_rows

    def _table(self, part: Sequence[ServedPredictions]) -> pa.Table:
        """Return the rows of some requests, without those that make none: these would fail at every attempt."""
        import pyarrow as pa

        try:
            return log_table(self.experiment, part)
        except (ValueError, TypeError) as error:
            if len(part) > 1:
                return pa.concat_tables([self._table([predictions]) for predictions in part])
            logger.error("dropped predictions that the prediction log %s cannot hold: %s", self.folder, error)
            return log_table(self.experiment, [])

    def _slices(self, taken: Sequence[ServedPredictions]) -> Iterator[Sequence[ServedPredictions]]:
        """Yield the predictions in slices, stepping back between them for the threads that answer requests."""
        for start in range(0, len(taken), SLICE_REQUESTS):
            if start and not self._closed:
                time.sleep(STEP_BACK_S)
            yield taken[start : start + SLICE_REQUESTS]
