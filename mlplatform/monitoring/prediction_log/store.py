"""Where a log is kept: part files, or a database where `MLPLATFORM_PREDICTION_LOG_URL` names one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlplatform.monitoring.prediction_log.compaction import Upkeep, compact_parts
from mlplatform.monitoring.prediction_log.database import Database
from mlplatform.monitoring.prediction_log.parts import part_batches, part_days, write_part
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa


class LogStore(Protocol):
    """The log of one experiment; as text, where it is."""

    def write(self, flush_id: str, rows: pa.Table) -> int:
        """Add rows that were served on one day, once however often it is tried; return how many there are."""

    def batches(
        self, since: dt.datetime | None, until: dt.datetime | None, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows, day after day; those of one request together."""

    def days(self) -> dict[dt.date, str]:
        """Return the days in UTC that have rows, oldest first, each with a text that changes whenever its rows do."""

    def maintain(self, today: dt.date, retention_days: int | None) -> Upkeep:
        """Tidy up, and delete what is older than `retention_days` before `today`."""


class PartFiles:
    """The log in part files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def write(self, flush_id: str, rows: pa.Table) -> int:
        """Write a part file named by the id; see `LogStore.write`."""
        if rows.num_rows:
            write_part(self.folder, flush_id, rows)
        written: int = rows.num_rows
        return written

    def batches(
        self, since: dt.datetime | None, until: dt.datetime | None, columns: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """Read part after part; see `LogStore.batches`."""
        return part_batches(self.folder, since, until, columns)

    def days(self) -> dict[dt.date, str]:
        """Return the names and sizes of each day's parts; see `LogStore.days`."""
        return part_days(self.folder)

    def maintain(self, today: dt.date, retention_days: int | None) -> Upkeep:
        """Join the parts of past days; see `LogStore.maintain`."""
        return compact_parts(self.folder, today, retention_days)


def log_store(settings: Settings, experiment: str) -> LogStore:
    """Return the log of an experiment.

    Raises:
        ValueError: if `MLPLATFORM_PREDICTION_LOG_URL` is not the address of a PostgreSQL database.
    """
    if settings.prediction_log_url is not None:
        return Database(settings.prediction_log_url, experiment)
    return PartFiles(settings.predictions_dir / experiment)
