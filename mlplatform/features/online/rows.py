"""Rows of the online store: reading many entities at once, and writing windows with the latest rows they end in.

Both go to Feast's online store itself. `FeatureStore.get_online_features` spends its time on building a response of
single values, and `FeatureStore.push` on making a Python object of every number: for 1,000 windows of 720 steps and 7
columns that is some 5 million, so it is many times slower than the same bytes passed on as they are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlplatform.config import ENTITY, DatasetConfig
from mlplatform.datamodule import Int64
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.feast import Lease, Registered, StoredArrays, array_values, key_values, scalar_values
from mlplatform.features.retry import ONLINE_WRITES, call_store, online_access
from mlplatform.features.tables import WINDOW_END, WINDOW_PREFIX, Windows, no_windows
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

# Entities per read or write: bounds memory, the size of a transaction and how long others wait for it. Windows of 250
# entities stay in the processor's caches; with 1,000 every step takes half as long again.
CHUNK = 250

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class StoredRows:
    """What the online store answered, in the order of the ids.

    Attributes:
        known: of shape (ids,); whether the store holds the entity.
        seconds: of shape (ids,); event time in seconds since 1970 UTC, 0 where unknown.
        values: Feast's values by feature, one per id; without content where unknown.
    """

    known: Mask
    seconds: Int64
    values: dict[str, list[Value]]


def read_stored(
    registered: Registered, view: FeatureView, names: Sequence[str], ids: Sequence[Any], settings: Settings
) -> StoredRows:
    """Read features of a view for many entities; an id may stand there twice.

    Raises:
        StoreUnavailableError: if the online store does not answer.
    """
    from feast.protos.feast.types.Value_pb2 import Value

    store, online = registered.store, _online_store(registered.store)
    rows: list[tuple[dt.datetime | None, dict[str, Value] | None]] = []
    for start in range(0, len(ids), CHUNK):
        keys = _keys(ids[start : start + CHUNK])
        rows += call_store(
            # A list of its own for every call: Feast's Redis store appends to it.
            lambda keys=keys: online.online_read(store.config, view, keys, list(names)),  # type: ignore[misc]
            online_access(settings),
        )
    nothing = Value()
    found = [values or {} for _, values in rows]
    # Redis answers an unknown entity with values without content at the time 0.
    seconds = [0 if moment is None else int(moment.timestamp()) for moment, _ in rows]
    known = [
        bool(second) or any(value.WhichOneof("val") for value in values.values())
        for second, values in zip(seconds, found, strict=True)
    ]
    return StoredRows(
        known=np.array(known, dtype=bool),
        seconds=np.array(seconds, dtype=np.int64),
        values={name: [values.get(name, nothing) for values in found] for name in names},
    )


def read_stored_windows(
    registered: Registered, dataset: DatasetConfig, ids: npt.NDArray[np.generic], settings: Settings
) -> Windows:
    """Return the stored windows of those of `ids` (ascending, unique) that the online store holds.

    Raises:
        FeatureStoreError: if the stored windows have another length than the dataset asks for.
        StoreUnavailableError: if the online store does not answer.
    """
    assert registered.windows is not None
    names = [WINDOW_END, *(f"{WINDOW_PREFIX}{name}" for name in dataset.columns)]
    stored = read_stored(registered, registered.windows, names, ids.tolist(), settings)
    known = np.flatnonzero(stored.known)
    if not len(known):
        return no_windows(ids, dataset)
    columns = {}
    for name, column in dataset.columns.items():
        values = stored.values[f"{WINDOW_PREFIX}{name}"]
        arrays = StoredArrays([values[row] for row in known], is_number=column.type == "float")
        if arrays.lengths != {dataset.window_steps}:
            raise FeatureStoreError(
                f"dataset {dataset.name!r}: the online store holds windows of {name!r} with {sorted(arrays.lengths)} "
                f"steps, but window_steps is {dataset.window_steps}; materialise online_features in full"
            )
        columns[name] = arrays.last(dataset.window_steps)
    ends = [stored.values[WINDOW_END][row].int64_val for row in known]
    return Windows(ids[known], np.array(ends, dtype=np.int64), columns)


def write_windows(registered: Registered, windows: Windows, settings: Settings, lease: Lease) -> None:
    """Write windows, and the last step of each as the entity's latest row.

    The rows go first: a writer that is killed in between leaves windows that are behind, and whoever repeats the write
    sees that and writes both. Every write of a view is one transaction where the store has them.

    Parameters:
        lease: the lock that the caller holds and has confirmed.

    Raises:
        FeatureStoreError: if another one has held the lock since.
        StoreUnavailableError: if the online store does not answer.
    """
    assert registered.windows is not None
    latest = {name: values[:, -1] for name, values in windows.columns.items()}
    write_latest(registered, windows.entity_ids, windows.ends, latest, settings, lease)
    features: dict[str, list[Value]] = {
        f"{WINDOW_PREFIX}{name}": array_values(values) for name, values in windows.columns.items()
    }
    features[WINDOW_END] = key_values(windows.ends.tolist())
    _write(registered, registered.windows, windows.entity_ids, windows.ends, features, settings, lease)


def write_latest(
    registered: Registered,
    ids: npt.NDArray[np.generic],
    times: Int64,
    columns: dict[str, npt.NDArray[np.generic]],
    settings: Settings,
    lease: Lease,
) -> None:
    """Write the latest row of entities.

    Parameters:
        times: of shape (ids,); event times in nanoseconds since 1970 UTC.
        columns: by name, each of shape (ids,).
        lease: the lock that the caller holds and has confirmed.

    Raises:
        FeatureStoreError: if another one has held the lock since.
        StoreUnavailableError: if the online store does not answer.
    """
    features = {name: scalar_values(values) for name, values in columns.items()}
    _write(registered, registered.features, ids, times, features, settings, lease)


def write_gone(registered: Registered, ids: npt.NDArray[np.generic], settings: Settings, lease: Lease) -> None:
    """Make entities unknown: Feast's interface deletes no rows, but one without content at the time 0 counts as none.

    Parameters:
        lease: the lock that the caller holds and has confirmed.

    Raises:
        FeatureStoreError: if another one has held the lock since.
        StoreUnavailableError: if the online store does not answer.
    """
    from feast.protos.feast.types.Value_pb2 import Value

    never = np.zeros(len(ids), dtype=np.int64)
    # Windows go first: what is served is gone before what only says how new it was.
    for view in (registered.windows, registered.features):
        if view is not None:
            nothing = {field.name: [Value()] * len(ids) for field in view.features}
            _write(registered, view, ids, never, nothing, settings, lease)


def _write(
    registered: Registered,
    view: FeatureView,
    ids: npt.NDArray[np.generic],
    times: Int64,
    features: dict[str, list[Value]],
    settings: Settings,
    lease: Lease,
) -> None:
    store, online = registered.store, _online_store(registered.store)
    moments = [
        moment.replace(tzinfo=dt.UTC) for moment in times.astype("datetime64[ns]").astype("datetime64[us]").tolist()
    ]
    names = list(features)
    rows = [
        (key, dict(zip(names, values, strict=True)), moment, None)
        for key, moment, *values in zip(_keys(ids.tolist()), moments, *features.values(), strict=True)
    ]
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        call_store(
            lambda chunk=chunk: online.overwrite(store.config, view, chunk, lease.fences),  # type: ignore[misc]
            online_access(settings, ONLINE_WRITES),
        )


def _online_store(store: Any) -> Any:
    return store.provider.online_store


def _keys(ids: Sequence[Any]) -> list[EntityKey]:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    return [EntityKey(join_keys=[ENTITY], entity_values=[value]) for value in key_values(ids)]
