"""Entities that are gone: taken out of the online store, so that nothing answers for them.

Here: which entities a dataset had when it was last materialised, taking out those that left the feature table or that
their source has removed, and keeping Feast from writing these back. Not here: writing those that are there, and what is
known of removals (`data`).
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, DatasetConfig
from mlplatform.data import SINCE, gone_at, read_removals
from mlplatform.datamodule import to_utc_ns
from mlplatform.features.feast import Lease, Registered, online_server, registered
from mlplatform.features.online.rows import CHUNK, StoredRows, read_stored, write_gone
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

OnlineRow = TypeVar("OnlineRow", bound=tuple[Any, ...])
Ids = npt.NDArray[Any]


@dataclass(frozen=True)
class MaterializedEntities:
    """The entities that were written to an online store, in a file.

    Parameters:
        path: of the file.
        online: what tells the online store from another one, whose entities are not this one's.
    """

    path: Path
    online: str

    def begin(self, ids: Ids) -> Ids:
        """Note entities that will be written, and return those that were written before and are not among them.

        Until `finish` both are noted: whoever is killed in between leaves nothing that nobody knows of.
        """
        earlier = self.read()
        if earlier is None:
            self._write(ids)
            return ids[:0]
        if len(ids) and len(earlier) and isinstance(ids[0], str) != isinstance(earlier[0], str):
            # The table has ids of another type now; the store cannot be asked for the old ones any more.
            self._write(ids)
            return ids[:0]
        self._write(np.union1d(earlier, ids))
        return np.setdiff1d(earlier, ids)

    def finish(self, ids: Ids) -> None:
        """Note that these are all."""
        self._write(ids)

    def read(self) -> Ids | None:
        """Return the entities, sorted or as they were in the table; `None` if this store's are not known."""
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(self.path)
        except FileNotFoundError:
            return None
        if (table.schema.metadata or {}).get(b"online") != self.online.encode():
            return None
        ids: Ids = table.column(ENTITY).to_numpy()
        return ids

    def _write(self, ids: Ids) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({ENTITY: pa.array(ids)}).replace_schema_metadata({"online": self.online})
        with atomic_file(self.path) as temporary:
            pq.write_table(table, temporary)


def remove_online(dataset: DatasetConfig, ids: Ids, settings: Settings) -> int:
    """Take entities out of the online store now, as their source has removed them; return how many were there.

    Ids of another type than the dataset's are nobody's.

    Raises:
        FeatureStoreError: if the dataset has not been applied.
        StoreUnavailableError: if the online store does not answer.
    """
    known = registered(dataset, settings)
    if not len(ids) or isinstance(ids[0], str) != known.has_text_ids:
        return 0
    there: Ids = ids[_read(known, ids, settings).known]
    server = online_server(settings)
    remove_entities(known, there, settings, lambda: server.lock(f"{dataset.name}.write"), Lease())
    return len(there)


def pushed_before(known: Registered, removals: pd.DataFrame, settings: Settings) -> Ids:
    """Return the removed entities that are in the online store with rows of before, as those that were only pushed are.

    Parameters:
        removals: as `data.read_removals` gives them.
    """
    ids = removals[ENTITY].to_numpy()
    if not len(ids):
        return ids
    stored = _read(known, ids, settings)
    since = to_utc_ns(removals[SINCE]).astype("datetime64[s]").astype(np.int64)
    pushed: Ids = ids[stored.known & (stored.seconds <= since)]
    return pushed


def _read(known: Registered, ids: Ids, settings: Settings) -> StoredRows:
    names = [field.name for field in known.features.features]
    return read_stored(known, known.features, names, ids.tolist(), settings)


def remove_entities(
    known: Registered,
    ids: Ids,
    settings: Settings,
    lock: Callable[[], AbstractContextManager[Lease]],
    outer: Lease,
) -> None:
    """Take entities out of the online store, in blocks; the lock against pushers is held for one block at a time.

    Parameters:
        lock: takes the lock against pushers.
        outer: the lock that the caller holds.

    Raises:
        FeatureStoreError: if a lock lapsed.
        StoreUnavailableError: if the online store does not answer.
    """
    for first in range(0, len(ids), CHUNK):
        with lock() as inner:
            lease = inner.within(outer)
            lease.confirm()
            write_gone(known, ids[first : first + CHUNK], settings, lease)


def without_removed(view: FeatureView, rows: Sequence[OnlineRow]) -> list[OnlineRow]:
    """Return what Feast may write of a view: rows that are no older than the removal of their entity by its source.

    The feature table keeps the history of removed entities, and Feast, which materialises the newest row of every
    entity, knows nothing of removals. A newer row, as one that is pushed, brings an entity back.

    Parameters:
        view: any view; of one that is not over a feature table, all rows are returned.
        rows: of Feast's interface for online stores: entity key, values, event time and time of creation.
    """
    since = _removed_since(view)
    return [row for row in rows if _id_of(row[0]) not in since or _seconds(row[2]) > since[_id_of(row[0])]]


def _removed_since(view: FeatureView) -> Mapping[Any, int]:
    """Return entity -> when it was removed, in seconds since 1970 UTC, as the raw table knows it, else the table."""
    path = getattr(view.batch_source, "path", None)
    if not path:
        return {}
    # The table is <data>/features/<dataset>/table, and the raw table <data>/raw/<dataset>; a view that is not over a
    # table has neither.
    table = Path(path).parent
    raw = table.parents[1].with_name("raw") / table.parent.name if len(table.parents) > 1 else table
    return _gone(str((raw if raw.exists() else table).resolve()))


@functools.lru_cache(maxsize=64)
def _gone(snapshot: str) -> Mapping[Any, int]:
    """Return the removals of a snapshot that hold; a snapshot never changes."""
    removals = gone_at(read_removals(Path(snapshot)))
    since = to_utc_ns(removals[SINCE]).astype("datetime64[s]").astype(np.int64)
    return dict(zip(removals[ENTITY].tolist(), since.tolist(), strict=True))


def _id_of(key: EntityKey) -> Any:
    value = key.entity_values[0]
    return getattr(value, value.WhichOneof("val"))


def _seconds(moment: dt.datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
