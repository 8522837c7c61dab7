"""Bringing the table up to date: the pieces whose predictions, truth or labels have changed are made again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.config import ExperimentConfig
from mlplatform.forecasts import stored_runs
from mlplatform.locks import FileLock
from mlplatform.monitoring.feedback import labels_text
from mlplatform.monitoring.forecast_errors.join import labels_of_piece, rules_of, write_piece
from mlplatform.monitoring.forecast_errors.pieces import BATCH, SERVED, MadeFrom, errors_folder, piece_path, pieces
from mlplatform.monitoring.forecast_errors.predictions import DamagedPredictionsError, of_piece, of_run, served_on
from mlplatform.monitoring.forecast_errors.truth import Truth
from mlplatform.monitoring.prediction_log import prediction_days
from mlplatform.settings import Settings
from mlplatform.state_files import parsed, read_state, warn_of
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

LABELS_SEEN = "labels_seen.json"


@dataclass(frozen=True)
class ErrorsUpdate:
    """What an update did.

    Attributes:
        written: pieces that were made again.
        pieces: pieces of the table.
        rows: rows of the table.
        waiting: rows whose truth is not known yet.
    """

    written: int
    pieces: int
    rows: int
    waiting: int


@dataclass(frozen=True)
class _Source:
    """Where the predictions of a piece come from.

    Attributes:
        text: changes whenever they do.
        grows: whether they are added to, as a log is; a run in batch takes the place of that of before.
    """

    text: str
    read: Callable[[], Iterator[pa.RecordBatch]]
    grows: bool = True


def update_errors(config: ExperimentConfig, settings: Settings) -> ErrorsUpdate:
    """Make the pieces again whose predictions, truth or labels are others than those they were made from.

    Late truth and corrections are found by the digests of the feature table's periods, so that only pieces whose
    moments lie in a changed period are looked at. Memory does not depend on the length of the logs: one piece is made
    at a time, and its join spills to the disk. May be killed at any moment, and run beside itself.

    Predictions that are damaged, such as a cut off file of a batch, are left out with a warning that names them. Their
    piece stays as it was, and the others are made.

    Raises:
        FeatureStoreError: if there is no feature table.
        OSError: if the disk refuses; the pieces made by then count.
    """
    folder = errors_folder(settings, config.name)
    with FileLock(folder / ".lock"):
        sources = _sources(config, settings)
        made = dict(pieces(settings, config.name))
        labels_now = labels_text(settings, config.name) if config.task != "forecast" else ""
        has_new_labels = labels_now != _labels_seen(folder)
        written, damaged = 0, set[Path]()
        for path in sorted({*sources, *made}):
            # Where the log is gone, the piece has what it said.
            source = sources.get(path) or _Source(made[path].predictions, partial(of_piece, path))
            truth = Truth.now(config, settings)
            if _is_current(path, made.get(path), source, config, truth, has_new_labels):
                continue
            kept = path if source.grows and path in made else None
            reading = _Reading(source)
            try:
                write_piece(path, reading.batches(), source.text, config, truth, kept)
            except Exception:
                # DuckDB tells of what reading raised in an error of its own, as it does of a disk that is full.
                if reading.damage is None:
                    raise
                warn_of(reading.damage.path, f"{reading.damage}; {path.name} stays as it was; restore the file")
                damaged.add(path)
                continue
            written += 1
        if has_new_labels and not damaged:
            _note_labels(folder, labels_now)
        return ErrorsUpdate(written, *_counts(sorted({*sources, *made} - (damaged - set(made)))))


class _Reading:
    """Reading the predictions of a source; `damage` is what ended it."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self.damage: DamagedPredictionsError | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._source.read()
        except DamagedPredictionsError as error:
            self.damage = error
            raise


def _sources(config: ExperimentConfig, settings: Settings) -> dict[Path, _Source]:
    """Return the predictions that are there, by the piece they make."""

    read = partial(served_on, settings, config.name, has_rows=config.task != "forecast")
    found = {
        piece_path(settings, config.name, SERVED, day.isoformat()): _Source(log_text, partial(read, day))
        for day, log_text in prediction_days(settings, config.name).items()
    }
    for run in stored_runs(settings, config.name):
        found[piece_path(settings, config.name, BATCH, run.name)] = _Source(run.text, partial(of_run, run), grows=False)
    return found


def _is_current(
    path: Path,
    made: MadeFrom | None,
    source: _Source,
    config: ExperimentConfig,
    truth: Truth,
    has_new_labels: bool,
) -> bool:
    if made is None or made.predictions != source.text or made.rules != rules_of(config):
        return False
    if made.truth != truth.text(made.first_ns, made.last_ns):
        return False
    if not has_new_labels:
        return True
    import duckdb

    try:
        return made.labels == labels_of_piece(path, config, truth.settings)
    except duckdb.Error:  # it is damaged behind its footer
        return False


def _counts(paths: Sequence[Path]) -> tuple[int, int, int]:
    """Return how many pieces and rows there are, and how many of these have no truth, from the files' footers."""
    import pyarrow.parquet as pq

    rows = waiting = 0
    for path in paths:
        metadata = pq.read_metadata(path)
        # Counted as the file counts columns, in which a list of intervals is several.
        place = metadata.schema.names.index("absolute_error")
        rows += metadata.num_rows
        groups = [metadata.row_group(number).column(place) for number in range(metadata.num_row_groups)]
        waiting += sum(group.statistics.null_count for group in groups if group.statistics is not None)
    return len(paths), rows, waiting


def _labels_seen(folder: Path) -> str:
    """Return which labels every piece has been compared with; it only saves work."""
    otherwise = "every piece is compared with its labels once more; nothing needs to be done"
    return read_state(folder / LABELS_SEEN, partial(parsed, kind=str), otherwise) or ""


def _note_labels(folder: Path, labels: str) -> None:
    with atomic_file(folder / LABELS_SEEN) as temporary:
        temporary.write_text(json.dumps(labels))
