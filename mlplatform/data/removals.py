"""Entities that a source has removed: since when, and until when, where they came back.

Here: the record of removals, which lies beside rows that stay. Not here: how a source says it (`parsing`, `sources`),
and taking entities out of the online store (`features.online`).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from mlplatform.config import ENTITY
from mlplatform.snapshots import Update

REMOVALS_FILE = "removed.parquet"
SINCE, UNTIL = "since", "until"


def read_removals(folder: Path) -> pd.DataFrame:
    """Return the removals noted in a snapshot: `entity_id`, `since` and `until` (UTC; NaT: gone to this day)."""
    path = folder / REMOVALS_FILE
    return pd.read_parquet(path) if path.exists() else pd.DataFrame({ENTITY: [], SINCE: [], UNTIL: []})


def gone_at(removals: pd.DataFrame, moment: pd.Timestamp | None = None) -> pd.DataFrame:
    """Return the removals that held at a moment; `None`: that hold now."""
    if moment is None:
        return removals[removals[UNTIL].isna()]
    since, until = (pd.to_datetime(removals[name], utc=True) for name in (SINCE, UNTIL))
    return removals[(since <= moment) & ~(until <= moment)]


def noted(removals: pd.DataFrame, is_gone: dict[Any, bool], now: pd.Timestamp) -> pd.DataFrame:
    """Return removals after an ingest: whoever is gone and was not has left now, whoever is not and was has come back.

    Parameters:
        is_gone: by entity, for those of which the source has said something.
    """
    stays_open = removals[UNTIL].isna()
    returned = stays_open & removals[ENTITY].map(lambda entity: is_gone.get(entity) is False).astype(bool)
    closed = removals.assign(**{UNTIL: removals[UNTIL].mask(returned, now)})
    known: Collection[Any] = set(removals.loc[stays_open, ENTITY])
    left = [entity for entity, gone in is_gone.items() if gone and entity not in known]
    if not left:
        return closed
    added = pd.DataFrame({ENTITY: left, SINCE: now, UNTIL: pd.NaT})
    return added if closed.empty else pd.concat([closed, added], ignore_index=True)


def write_removals(update: Update, removals: pd.DataFrame, *, text_ids: bool) -> None:
    """Write removals to a snapshot; without any there is no file."""
    import pyarrow as pa

    if removals.empty:
        update.remove_file(REMOVALS_FILE)
        return
    moment = pa.timestamp("us", tz="UTC")
    schema = pa.schema([(ENTITY, pa.string() if text_ids else pa.int64()), (SINCE, moment), (UNTIL, moment)])
    update.write_file(REMOVALS_FILE, pa.Table.from_pandas(removals, schema=schema, preserve_index=False))
