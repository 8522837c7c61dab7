"""The files of the table: one per day of served predictions, and one per origin of forecasts in batch.

    <home>/forecast_errors/<experiment>/served/2026-11-27.parquet
                                       /batch/origin=20240301T000000Z.parquet

A piece is made from its predictions and from what is known of them, as a whole, and takes its place with one rename. It
says in its footer what it was made from. So nothing can count twice, there is no cursor to lose, and a killed run
leaves the piece of before or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from mlplatform.settings import Settings
from mlplatform.state_files import parsed

Source = Literal["served", "batch"]
SERVED: Source = "served"
BATCH: Source = "batch"
FORMAT = 1
_KEY = "made_from"


@dataclass(frozen=True)
class MadeFrom:
    """What a piece was made from.

    Attributes:
        predictions: a text that changes whenever the predictions do.
        truth: the same for what is known of the moments that they predict.
        labels: the same for the labels that belong to them.
        first_ns, last_ns: the moments that are predicted, in nanoseconds since 1970 UTC; `None` without any.
        rules: what of the configuration decides how predictions and truth come together.
    """

    predictions: str
    truth: str
    labels: str
    first_ns: int | None
    last_ns: int | None
    rules: dict[str, Any]
    format: int = FORMAT

    def to_text(self) -> str:
        """Return what the footer says."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what a piece says, `None` of what is no piece, is damaged or is one of another format."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            found = (pq.read_metadata(path).metadata or {}).get(_KEY.encode())
        except (pa.ArrowException, OSError):
            return None
        try:
            made_from = parsed(found or b"", cls)
        except ValueError:
            return None
        return made_from if made_from.format == FORMAT else None


def footer(made_from: MadeFrom) -> str:
    """Return the option of a COPY of DuckDB that writes the footer."""
    return "KV_METADATA {" + f"{_KEY}: {text(made_from.to_text())}" + "}"


def text(value: str) -> str:
    """Return a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def errors_folder(settings: Settings, experiment: str) -> Path:
    """Return the folder of an experiment's table."""
    return settings.forecast_errors_dir / experiment


def piece_path(settings: Settings, experiment: str, source: Source, name: str) -> Path:
    """Return the file of a piece: of a day, ISO 8601, or of an origin."""
    return errors_folder(settings, experiment) / source / f"{name}.parquet"


def pieces(settings: Settings, experiment: str) -> Iterator[tuple[Path, MadeFrom]]:
    """Yield the pieces of a table and what they were made from, those of days first, oldest first."""
    for source in (SERVED, BATCH):
        for path in sorted((errors_folder(settings, experiment) / source).glob("*.parquet")):
            made_from = MadeFrom.read(path)
            if made_from is not None:
                yield path, made_from
