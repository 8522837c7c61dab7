"""Batches on their way into the raw table: validated and sorted into periods, in memory or past a limit on disk."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data.faults import Faults
from mlplatform.data.places import Places
from mlplatform.data.raw_table import raw_schema
from mlplatform.data.validation import (
    Basis,
    Tally,
    Validated,
    conflicts,
    displaced_rows,
    quarantined_rows,
    validate,
)
from mlplatform.snapshots import split_periods

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY_ROWS = 2_000_000
# What the number of a row in the source is called here; the dataset may have a column of any likelier name.
NUMBER = "__source_row__"
# The number of a row that an earlier ingest stored.
STORED = -1


class Intake:
    """Rows of one ingest, by period.

    Parameters:
        folder: an empty folder for what does not stay in memory.
        basis: what rows stored earlier have settled.
        gone: entities that are noted as removed.
        newest_wins: whether a row that repeats an entity and time replaces the earlier one instead of being bad.
    """

    def __init__(
        self, dataset: DatasetConfig, folder: Path, basis: Basis, gone: Collection[Any] = (), *, newest_wins: bool
    ) -> None:
        self.dataset = dataset
        self.basis = basis
        self.newest_wins = newest_wins
        self.tally = Tally()
        self.quarantine: list[pd.DataFrame] = []
        # By entity whether it is gone, for those that were marked as removed at any time.
        self.is_gone: dict[Any, bool] = {}
        # Times of rows, stored ones as well, that later ones have displaced.
        self.displaced: set[int] = set()
        self._places = Places()
        self._folder = folder
        self._watched = set(gone)
        self._tables: dict[str, list[pa.Table]] = defaultdict(list)
        self._files: dict[str, list[Path]] = defaultdict(list)
        self._batches: Counter[str] = Counter()
        self._rows_in_memory = 0

    def add(self, frame: pd.DataFrame) -> Validated:
        """Take a batch in the source's own columns and return it validated."""
        self._places.add(frame, self.tally.rows_read)
        batch = validate(frame, self.dataset, self.basis, first_row=self.tally.rows_read, newest_wins=self.newest_wins)
        self.basis = batch.basis
        self.displaced |= batch.displaced_ns
        self.tally.add(batch)
        if len(batch.quarantine):
            self.quarantine.append(batch.quarantine)
        self._note_removals(batch)
        self._sort_in(batch.rows, batch.numbers)
        return batch

    @property
    def displaced_periods(self) -> tuple[str, ...]:
        """Names of the periods that displaced rows are in."""
        times = np.array(sorted(self.displaced), dtype=np.int64).astype("datetime64[ns]")
        return tuple(name for name, _ in split_periods(times, self.dataset.period))

    @property
    def periods(self) -> tuple[str, ...]:
        """Names of the periods that have rows, in time order."""
        return tuple(sorted({*self._tables, *self._files}))

    def take(self, period: str) -> pd.DataFrame:
        """Return the rows of a period, ordered by entity and time and unique on them; it can be asked for once.

        Rows that repeat the entity and time of a row of an earlier batch go to quarantine, or replace it; those that
        later ones have displaced go there as well.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        pieces = [*map(pq.read_table, self._files.pop(period, [])), *self._tables.pop(period, [])]
        rows: pd.DataFrame = pa.concat_tables(pieces).to_pandas()
        if self._batches[period] > 1:
            # Rows are in the order of their batches, so among equal keys a stable sort keeps the order of arrival.
            rows = rows.sort_values([ENTITY, TIMESTAMP], kind="stable", ignore_index=True)
            rows = self._settle_repeats(rows)
        rows = self.without_displaced(rows)
        return rows.drop(columns=NUMBER)

    def without_displaced(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return canonical rows without those that later ones have displaced, which go to quarantine.

        Parameters:
            rows: of this intake with their numbers, or stored ones.
        """
        if not self.displaced:
            return rows
        return self._without_bad(rows, displaced_rows(rows, self.displaced, self.basis, self.dataset))

    def _note_removals(self, batch: Validated) -> None:
        if self._watched and len(batch.rows):
            self.is_gone |= dict.fromkeys(self._watched.intersection(batch.rows[ENTITY].unique().tolist()), False)
        removed = batch.removed.tolist()
        self.is_gone |= dict.fromkeys(removed, True)
        self._watched.update(removed)

    def _settle_repeats(self, rows: pd.DataFrame) -> pd.DataFrame:
        if self.newest_wins:
            return rows.drop_duplicates([ENTITY, TIMESTAMP], keep="last", ignore_index=True)
        return self._without_bad(rows, conflicts(rows, rows[NUMBER].to_numpy(), self.dataset))

    def _without_bad(self, rows: pd.DataFrame, faults: Faults) -> pd.DataFrame:
        if not faults.is_bad.any():
            return rows
        if NUMBER in rows:
            numbers = rows[NUMBER].to_numpy()
            named = self._places.named(rows.drop(columns=NUMBER), numbers)
        else:
            numbers, named = np.full(len(rows), STORED, dtype=np.int64), rows
        bad = quarantined_rows(named, numbers, faults, self.dataset)
        self.quarantine.append(bad)
        self.tally.quarantined += len(bad)
        self.tally.reasons.update(faults.counts())
        return rows[~faults.is_bad].reset_index(drop=True)

    def _sort_in(self, rows: pd.DataFrame, numbers: npt.NDArray[np.int64]) -> None:
        import pyarrow as pa

        if rows.empty:
            return
        schema = raw_schema(self.dataset, self.basis).append(pa.field(NUMBER, pa.int64()))
        table = pa.Table.from_pandas(rows.assign(**{NUMBER: numbers}), schema=schema, preserve_index=False)
        times = rows[TIMESTAMP].to_numpy(dtype="datetime64[ns]")
        for period, positions in split_periods(times, self.dataset.period):
            self._tables[period].append(table.take(pa.array(positions)))
            self._batches[period] += 1
        self._rows_in_memory += table.num_rows
        if self._rows_in_memory > MEMORY_ROWS:
            self._spill()

    def _spill(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for period, tables in self._tables.items():
            path = self._folder / f"{period}.{len(self._files[period])}.parquet"
            pq.write_table(pa.concat_tables(tables), path, compression="none")
            self._files[period].append(path)
        self._tables.clear()
        self._rows_in_memory = 0
