"""Online features: reading windows and latest rows back from the online store.

A window of L steps is one array per column, so an entity's whole input is one read. Arrays of 32-bit floats pass
through Feast unchanged, NaN included: what is read equals the tail of the feature table bit for bit. `materialize` and
`push` fill the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import DatasetConfig
from mlplatform.datamodule import Int64, Panel, entity_array
from mlplatform.features.errors import EntityTypeError, FeatureStoreError, UnknownEntityError
from mlplatform.features.feast import Registered, StoredArrays, registered, stack_scalars
from mlplatform.features.online.rows import StoredRows, read_stored
from mlplatform.features.tables import WINDOW_END, WINDOW_PREFIX
from mlplatform.features.time_point import NOW, TimePoint, parse_time_point
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.protos.feast.types.Value_pb2 import Value

Entities = Sequence[Any] | npt.NDArray[np.generic]
INT64 = np.iinfo(np.int64)


def read_windows(
    dataset: DatasetConfig,
    entities: Entities,
    columns: Sequence[str],
    steps: int,
    settings: Settings,
    time_point: TimePoint = NOW,
) -> Panel:
    """Return the newest `steps` rows of every entity, from the online store in one read.

    Parameters:
        entities: ids, of the type that is stored; the panel keeps their order.
        columns: dataset columns.
        steps: at most the dataset's `window_steps`. Steps before an entity's first row are missing values.
        time_point: "now", or a moment not before the stored windows end.

    Raises:
        UnknownEntityError: if the online store does not hold an entity.
        EntityTypeError: if an id has another type than the stored ones.
        StoreUnavailableError: if the online store does not answer.
        FeatureStoreError: if a column is unknown, the stored windows are shorter than `steps`, or `time_point` lies
            before the end of a window (older windows are served offline).
    """
    moment = parse_time_point(time_point)
    check_columns(dataset, columns)
    known = registered(dataset, settings)
    if known.windows is None:
        raise FeatureStoreError(f"dataset {dataset.name!r} is {dataset.kind}; only time series have windows")
    names = [WINDOW_END, *(f"{WINDOW_PREFIX}{name}" for name in columns)]
    stored = _read(dataset, known, known.windows, names, entities, settings)
    ends = np.array([value.int64_val for value in stored.values[WINDOW_END]], dtype=np.int64)
    _check_moment(dataset, entities, ends, moment)
    arrays = {name: _stack(dataset, name, stored.values[f"{WINDOW_PREFIX}{name}"], steps) for name in columns}
    times = dataset.calendar.window(ends, steps)
    return Panel(
        columns=arrays,
        timestamps=times.ravel().astype("datetime64[ns]"),
        entity_ids=entity_array(entities),
        offsets=np.arange(len(entities) + 1, dtype=np.int64) * steps,
    )


def read_rows(dataset: DatasetConfig, entities: Entities, columns: Sequence[str], settings: Settings) -> Panel:
    """Return the latest row of every entity, from the online store in one read.

    The panel's time stamps are event times in whole seconds, which is what online stores keep.

    Raises:
        UnknownEntityError: if the online store does not hold an entity.
        EntityTypeError: if an id has another type than the stored ones.
        StoreUnavailableError: if the online store does not answer.
        FeatureStoreError: if a column is unknown.
    """
    check_columns(dataset, columns)
    known = registered(dataset, settings)
    stored = _read(dataset, known, known.features, columns, entities, settings)
    return Panel(
        columns={
            name: stack_scalars(stored.values[name], is_number=dataset.columns[name].type == "float")
            for name in columns
        },
        timestamps=stored.seconds.astype("datetime64[s]").astype("datetime64[ns]"),
        entity_ids=entity_array(entities),
        offsets=np.arange(len(entities) + 1, dtype=np.int64),
    )


def check_columns(dataset: DatasetConfig, columns: Sequence[str]) -> None:
    """Raise `FeatureStoreError` if a name is not a column of the dataset, or there is none."""
    unknown = [name for name in columns if name not in dataset.columns]
    if unknown or not columns:
        raise FeatureStoreError(
            f"dataset {dataset.name!r} has no columns {unknown}; ask for any of {', '.join(dataset.columns)}"
        )


def check_entity_types(dataset: DatasetConfig, entities: Entities, stores_text: bool) -> None:
    """Raise `EntityTypeError` for an id of the wrong type, `UnknownEntityError` for numbers too large to be stored."""
    wanted: tuple[type, ...] = (str,) if stores_text else (int, np.integer)
    for entity in entities:
        if not isinstance(entity, wanted) or isinstance(entity, bool | np.bool_):
            raise EntityTypeError(
                f"dataset {dataset.name!r}: entity ids are {'text' if stores_text else 'whole numbers'}, "
                f"but got {entity!r} of type {type(entity).__name__}"
            )
    if not stores_text:
        too_large = [entity for entity in entities if not INT64.min <= int(entity) <= INT64.max]
        if too_large:
            raise UnknownEntityError(dataset.name, too_large)


def _read(
    dataset: DatasetConfig,
    known: Registered,
    view: FeatureView,
    names: Sequence[str],
    entities: Entities,
    settings: Settings,
) -> StoredRows:
    """Return the stored rows of entities, in their order, once it is clear that all are there."""
    check_entity_types(dataset, entities, known.has_text_ids)
    ids = entity_array(entities).tolist()
    if not ids:
        raise FeatureStoreError(f"dataset {dataset.name!r}: no entities were asked for")
    stored = read_stored(known, view, names, ids, settings)
    if not stored.known.all():
        unknown = [entity for entity, is_known in zip(ids, stored.known, strict=True) if not is_known]
        raise UnknownEntityError(dataset.name, list(dict.fromkeys(unknown)))
    return stored


def _check_moment(dataset: DatasetConfig, entities: Entities, ends: Int64, moment: pd.Timestamp | None) -> None:
    if moment is None:
        return
    later = np.flatnonzero(ends > moment.value)
    if len(later):
        entity = entity_array(entities).tolist()[later[0]]
        end = pd.Timestamp(int(ends[later[0]]), tz="UTC")
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: time_point {moment.isoformat()} lies before the stored window of entity "
            f"{entity!r}, which ends at {end.isoformat()}; read the past with the offline strategies"
        )


def _stack(dataset: DatasetConfig, name: str, values: Sequence[Value], steps: int) -> npt.NDArray[np.generic]:
    """Return the last `steps` values of every entity's window, one entity after another."""
    arrays = StoredArrays(values, is_number=dataset.columns[name].type == "float")
    shortest = min(arrays.lengths)
    if not 1 <= steps <= shortest:
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: {steps} steps were asked for, but the stored windows of {name!r} have "
            f"{shortest}; ask for 1 to {shortest}, or raise window_steps and materialize again"
        )
    return arrays.last(steps).ravel()
