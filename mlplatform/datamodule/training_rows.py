"""Which rows a model was trained on, in the few bytes that a pair's lineage can afford.

Of a table that is a digest of eight bytes per row. Rows of time series lie side by side, so that a stretch of time per
entity says it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule.identity import MISSING, Digests, RowIdentity, entity_digests
from mlplatform.datamodule.panel import Int64, to_utc_ns
from mlplatform.datamodule.splits import SplitManifest, own_rows, row_identity

if TYPE_CHECKING:
    import pandas as pd

METADATA = b"mlplatform"


@dataclass(frozen=True)
class TrainingRows:
    """The rows of one training part.

    Attributes:
        digests: of a table, ascending digests of its rows, of shape (different rows,); of time series, of its entities,
            or `MISSING` alone if the stretch of time is that of all entities.
        identity: what the digests of a table are of; None for time series.
        first, last: of time series, first and last time of every entity in ns since 1970 UTC, of shape (entities,),
            or of all of them, of shape (1,).
    """

    digests: Digests
    identity: RowIdentity | None = None
    first: Int64 | None = None
    last: Int64 | None = None

    @classmethod
    def of(cls, dataset: DatasetConfig, manifest: SplitManifest, frame: pd.DataFrame) -> TrainingRows:
        """Return what is kept of the rows of a training part."""
        if dataset.kind == "tabular":
            identity = row_identity(dataset, manifest).within(frame.columns)
            return cls(np.unique(identity.digests(frame)), identity)
        rows = own_rows(frame)
        digests, codes = np.unique(entity_digests(rows[ENTITY]), return_inverse=True)
        times = to_utc_ns(rows[TIMESTAMP]).astype(np.int64)
        first, last = np.full(len(digests), np.iinfo(np.int64).max), np.full(len(digests), np.iinfo(np.int64).min)
        np.minimum.at(first, codes, times)
        np.maximum.at(last, codes, times)
        return cls(digests, None, first, last)

    @classmethod
    def between(cls, first: str, last: str) -> TrainingRows:
        """Return all rows of time series from one time to another, ISO 8601."""
        import pandas as pd

        stretch = to_utc_ns(pd.Series([first, last])).astype(np.int64)
        return cls(np.full(1, MISSING, np.uint64), None, stretch[:1], stretch[1:])

    def shared(self, frame: pd.DataFrame) -> int | None:
        """Return how many rows of a part, context not counted, are among these; None if that cannot be told."""
        rows = own_rows(frame)
        if self.first is not None and self.last is not None:
            entities, times = entity_digests(rows[ENTITY]), to_utc_ns(rows[TIMESTAMP]).astype(np.int64)
            if self.digests.tolist() == [MISSING]:
                entities = np.full_like(entities, MISSING)
            positions = np.minimum(np.searchsorted(self.digests, entities), len(self.digests) - 1)
            known = self.digests[positions] == entities
            return int((known & (times >= self.first[positions]) & (times <= self.last[positions])).sum())
        if self.identity is None or self.identity.within(rows.columns) != self.identity:
            return None
        return int(np.isin(self.identity.digests(rows), self.digests).sum())

    def save(self, path: Path) -> None:
        """Write one Parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {"digest": self.digests}
        if self.first is not None:
            columns |= {"first": self.first, "last": self.last}
        said = {"identity": None if self.identity is None else self.identity.to_json()}
        table = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(said).encode()})
        pq.write_table(table, path, use_dictionary=False)

    @classmethod
    def load(cls, path: Path) -> TrainingRows:
        """Read what `save` wrote."""
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        said = json.loads(table.schema.metadata[METADATA])
        columns = {name: table[name].to_numpy() for name in table.column_names}
        identity = None if said["identity"] is None else RowIdentity.from_json(said["identity"])
        return cls(columns["digest"], identity, columns.get("first"), columns.get("last"))
