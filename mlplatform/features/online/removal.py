"""Entities that are not in the feature table any more: taken out of the online store, so that nothing answers for them.

Here: which entities a dataset had when it was last materialised, and marking those that are gone. Not here: writing
those that are there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.config import ENTITY
from mlplatform.features.feast import Lease, Registered
from mlplatform.features.online.rows import CHUNK, write_gone
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

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
        earlier = self._read()
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

    def _read(self) -> Ids | None:
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


def remove_entities(
    registered: Registered,
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
            write_gone(registered, ids[first : first + CHUNK], settings, lease)
