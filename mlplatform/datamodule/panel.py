"""The panel: the one in-memory form of raw and preprocessed data, shared by training and serving.

A panel stacks the rows of several entities, entity after entity, each ordered by time. Training builds one from a split
file, serving builds one from online windows, and everything after that (transforms, windows, models) is the same code
on the same type. That is what makes offline and online results equal bit for bit. A tabular data set is a panel whose
entities have one row each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlplatform.config import ENTITY, TIMESTAMP

if TYPE_CHECKING:
    import pandas as pd

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Panel:
    """Columns of several entities, stacked.

    Attributes:
        columns: each of shape (rows,); float32, or object for categorical columns (`None` is missing).
        timestamps: of shape (rows,), datetime64[ns] in UTC.
        entity_ids: of shape (entities,).
        offsets: of shape (entities + 1,); entity `e` has the rows `offsets[e]:offsets[e + 1]`.
    """

    columns: Mapping[str, npt.NDArray[np.generic]]
    timestamps: npt.NDArray[np.datetime64]
    entity_ids: npt.NDArray[np.generic]
    offsets: Int64

    @property
    def rows(self) -> int:
        """Number of rows over all entities."""
        return len(self.timestamps)

    @property
    def row_entities(self) -> npt.NDArray[np.generic]:
        """Entity id of every row, of shape (rows,)."""
        return np.repeat(self.entity_ids, np.diff(self.offsets))

    @property
    def history(self) -> Int64:
        """Rows of the same entity up to and with every row, of shape (rows,)."""
        starts = np.repeat(self.offsets[:-1], np.diff(self.offsets))
        return np.arange(1, self.rows + 1, dtype=np.int64) - starts

    def matrix(self, names: Sequence[str]) -> Float32:
        """Return the named columns as a C-contiguous array of shape (rows, len(names))."""
        out = np.empty((self.rows, len(names)), dtype=np.float32)
        for position, name in enumerate(names):
            out[:, position] = self.columns[name]
        return out

    def with_columns(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> Panel:
        """Return the same rows with other columns."""
        return replace(self, columns=dict(columns))

    def take(self, rows: npt.NDArray[np.bool_]) -> Panel:
        """Return the rows where the mask, of shape (rows,), is true. Entities left without rows are dropped."""
        lengths = np.add.reduceat(rows.astype(np.int64), self.offsets[:-1]) if self.rows else np.zeros(0, np.int64)
        kept = lengths > 0
        return Panel(
            columns={name: values[rows] for name, values in self.columns.items()},
            timestamps=self.timestamps[rows],
            entity_ids=self.entity_ids[kept],
            offsets=np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64),
        )

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, names: Sequence[str]) -> Panel:
        """Build a panel from rows ordered by entity and time.

        Parameters:
            frame: with the columns `entity_id`, `event_timestamp` and `names`.

        Raises:
            ValueError: if an entity's rows are not adjacent or not ordered by time.
        """
        entities = frame[ENTITY].to_numpy()
        timestamps = to_utc_ns(frame[TIMESTAMP])
        starts = entity_starts(entities)
        entity_ids = entities[starts]
        if len(set(entity_ids.tolist())) != len(entity_ids):
            raise ValueError("the rows of an entity are not adjacent; sort by entity_id and event_timestamp first")
        inside = np.ones(len(frame), dtype=bool)
        inside[starts] = False
        if (np.diff(timestamps)[inside[1:]] <= np.timedelta64(0, "ns")).any():
            raise ValueError("the rows of an entity are not in strictly increasing time order")
        return cls(
            columns={name: column_array(frame[name]) for name in names},
            timestamps=timestamps,
            entity_ids=entity_ids,
            offsets=np.append(starts, len(frame)).astype(np.int64),
        )


def entity_starts(entities: npt.NDArray[np.generic]) -> Int64:
    """Return the first row of every entity, of shape (entities,), from the entity of every row."""
    if not len(entities):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.concatenate([[True], entities[1:] != entities[:-1]])).astype(np.int64)


def entity_array(entities: Sequence[Any] | npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return ids as a panel holds them: whole numbers as they are, text as objects.

    NumPy's own text type would drop NUL characters from the end of an id, and so make it another one.
    """
    if isinstance(entities, np.ndarray) and entities.dtype == object:
        return entities
    array = np.asarray(entities)
    return np.array(list(entities), dtype=object) if array.dtype.kind == "U" else array


def to_utc_ns(timestamps: pd.Series) -> npt.NDArray[np.datetime64]:
    """Return time stamps as datetime64[ns] in UTC; naive ones are taken as UTC."""
    import pandas as pd

    return pd.to_datetime(timestamps, utc=True).dt.tz_localize(None).to_numpy(dtype="datetime64[ns]")


def column_array(values: pd.Series) -> npt.NDArray[np.generic]:
    """Return numbers as float32 and anything else as objects with `None` for missing."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return values.to_numpy(dtype=np.float32, na_value=np.nan)
    objects = values.astype(object)
    return objects.where(objects.notna(), None).to_numpy(dtype=object)
