"""The files of a feature table, for engines that read Parquet by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlplatform.config import DatasetConfig
from mlplatform.features.tables.feature_table import TableState, require_table, table_link
from mlplatform.features.tables.journal import ROWS
from mlplatform.settings import Settings
from mlplatform.snapshots import open_snapshot, period_bounds


@dataclass(frozen=True)
class TableFiles:
    """Files of one snapshot, which stay for ten minutes after the next one.

    Attributes:
        rows: period -> file of the rows with times in it.
        digests: period -> digest of the measured rows in it; a period of nothing but gaps has none.
        replaced: files of rows that stood otherwise before: the columns of the rows, `until` when (UTC) they stood, and
            `was_there`, whether there was a row at all.
    """

    rows: dict[str, Path]
    digests: dict[str, str]
    replaced: tuple[Path, ...]

    def between(self, first_ns: int, last_ns: int) -> list[str]:
        """Return the periods that a stretch of time touches, given in nanoseconds since 1970 UTC, both included."""
        return [name for name in self.rows if _touches(period_bounds(name), first_ns, last_ns)]


def table_files(dataset: DatasetConfig, settings: Settings) -> TableFiles:
    """Return the files of the feature table of a dataset.

    Raises:
        FeatureStoreError: if there is no table.
    """
    snapshot = open_snapshot(require_table(table_link(dataset, settings), dataset))
    assert snapshot is not None, "a table is written together with its state"
    state = TableState.model_validate(snapshot.state)
    return TableFiles(
        rows={name: snapshot.path(name) for name in snapshot.periods},
        digests=dict(state.raw),
        replaced=tuple(sorted((snapshot.folder / ROWS).glob("*.parquet"))),
    )


def _touches(bounds: tuple[int, int], first: int, last: int) -> bool:
    return bounds[0] <= last and first < bounds[1]
