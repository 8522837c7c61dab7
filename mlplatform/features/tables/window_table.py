"""The window table of a dataset, moved on together with its feature table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data import FIRST, LAST
from mlplatform.datamodule import Int64
from mlplatform.features.tables.windows import Windows, choose, merge_rows, windows_from_table, windows_to_table
from mlplatform.snapshots import Update, periods_between

WINDOWS_FILE = "windows.parquet"
# Keys of the file's schema metadata, by which a reader knows which state of which table it has before it.
TABLE_ID, TABLE_REVISION = b"table_id", b"revision"


def update_windows(
    update: Update,
    previous: Path | None,
    changed: Sequence[str],
    spans: pd.DataFrame,
    spans_before: pd.DataFrame,
    dataset: DatasetConfig,
    table_id: str,
    revision: int,
) -> int:
    """Write the window table of a new snapshot and return how many windows changed.

    Windows move on by the rows of the changed periods. An entity that is new, has come back, or whose history became
    shorter, gets its window from the table anew; one that is gone loses it.

    Parameters:
        update: the snapshot, with the rows already written.
        previous: the window table of the snapshot before, if there is one.
        changed: periods that this snapshot changes.
        spans, spans_before: `entity_id`, `first` and `last` of every entity that is there, ordered by entity.
        revision: of the new snapshot; noted for every window that changed.
    """
    windows, revisions = _previous(previous, dataset)
    anew = _entities_anew(spans, spans_before, windows)
    is_gone = np.zeros(0, dtype=bool)
    if windows is not None:
        stays = ~np.isin(windows.entity_ids, anew) & np.isin(windows.entity_ids, spans[ENTITY].to_numpy())
        is_gone = ~stays
        windows, revisions = choose(windows, stays), revisions[stays]
    for rows in _window_rows(update, changed, spans, anew, dataset):
        merged = merge_rows(windows, rows, dataset)
        carried = np.full(len(merged.windows.entity_ids), revision, dtype=np.int64)
        if windows is not None:
            carried[np.searchsorted(merged.windows.entity_ids, windows.entity_ids)] = revisions
        carried[merged.changed] = revision
        windows, revisions = merged.windows, carried
    assert windows is not None
    count = int((revisions == revision).sum())
    if count or is_gone.any():
        table = windows_to_table(windows, dataset, revisions)
        metadata = {TABLE_ID: table_id.encode(), TABLE_REVISION: str(revision).encode()}
        update.write_file(WINDOWS_FILE, table.replace_schema_metadata(metadata))
    return count


def _previous(path: Path | None, dataset: DatasetConfig) -> tuple[Windows | None, Int64]:
    import pyarrow.parquet as pq

    if path is None:
        return None, np.zeros(0, dtype=np.int64)
    return windows_from_table(pq.read_table(path), dataset)


def _entities_anew(spans: pd.DataFrame, before: pd.DataFrame, windows: Windows | None) -> npt.NDArray[np.generic]:
    """Return the entities whose window cannot be had by merging rows into the one before."""
    if windows is None:
        return spans[ENTITY].to_numpy()
    both = spans.merge(before, on=ENTITY, how="left", suffixes=("", "_before"))
    is_shorter = (both[LAST] < both[f"{LAST}_before"]) | (both[FIRST] > both[f"{FIRST}_before"])
    return both.loc[is_shorter | both[f"{LAST}_before"].isna(), ENTITY].to_numpy()


def _window_rows(
    update: Update,
    changed: Sequence[str],
    spans: pd.DataFrame,
    anew: npt.NDArray[np.generic],
    dataset: DatasetConfig,
) -> Iterator[pd.DataFrame]:
    """Yield, period by period, the rows that windows are to be merged with."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids, last = spans[ENTITY].to_numpy(), spans[LAST].to_numpy()
    if not len(ids):
        return
    starts = dataset.calendar.shift(last, 1 - dataset.window_steps)
    is_anew = np.isin(ids, anew)
    needed = set(changed)
    if len(anew):
        needed.update(periods_between(int(starts[is_anew].min()), int(last[is_anew].max()), dataset.period))
    for period in sorted(needed):
        path = update.path(period)
        if not path.exists():
            continue
        keys = pq.read_table(path, columns=[ENTITY, TIMESTAMP])
        found = keys.column(ENTITY).to_numpy()
        codes = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
        times = keys.column(TIMESTAMP).cast(pa.int64()).to_numpy() * 1_000
        # The table has rows of entities that are gone as well.
        wanted = (ids[codes] == found) & (times >= starts[codes])
        if period not in changed:
            wanted &= is_anew[codes]
        if wanted.any():
            yield pq.read_table(path).filter(pa.array(wanted)).to_pandas()
