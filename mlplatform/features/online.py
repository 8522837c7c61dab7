"""Online features: filling the online store, and reading windows and latest rows back from it.

A window of L steps is one array per column, so an entity's whole input is one read. Arrays of 32-bit floats pass
through Feast unchanged, NaN included: what is read equals the tail of the feature table bit for bit.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, DatasetConfig
from mlplatform.datamodule.panel import Panel
from mlplatform.features.definitions import entity_name, features_view_name, windows_view_name
from mlplatform.features.errors import EntityTypeError, FeatureStoreError, UnknownEntityError
from mlplatform.features.store import open_store, registry_lock
from mlplatform.features.table import MISSING_TEXT, WINDOW_END, WINDOW_PREFIX, entity_ranges
from mlplatform.features.time_point import NOW, TimePoint, parse_time_point
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

Entities = Sequence[Any] | npt.NDArray[np.generic]
INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class OnlineReport:
    """What `materialize_online` wrote.

    Attributes:
        entities: number of entities.
        views: names of the materialised feature views.
        window_steps: length of the windows; 0 for tabular data.
        start, end: earliest and latest event time in the feature table, in UTC.
        seconds: how long it took.
    """

    entities: int
    views: tuple[str, ...]
    window_steps: int
    start: pd.Timestamp
    end: pd.Timestamp
    seconds: float


def materialize_online(dataset: DatasetConfig, settings: Settings, *, now: dt.datetime | None = None) -> OnlineReport:
    """Write every entity's latest values and newest window to the online store.

    The views go through Feast's own materialisation (the newest row per entity from the offline store, then the online
    store's batch write), and the interval is recorded, so `feast materialize-incremental` continues from here. It ends
    at the newest event time of the data: an end in the future would make a later incremental run skip rows.

    Parameters:
        now: the present; default: the clock.

    Raises:
        FeatureStoreError: if the data reaches beyond `now`, or the dataset has not been written or applied.
    """
    began = time.perf_counter()
    ranges = entity_ranges(dataset, settings)
    start, end = ranges["start"].min(), ranges["end"].max()
    present = pd.Timestamp(now or dt.datetime.now(dt.UTC))
    if end > present:
        entity = ranges[ENTITY].tolist()[int(ranges["end"].argmax())]
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: entity {entity!r} has a row at {end.isoformat()}, after now "
            f"({present.isoformat()}); correct the time column or its time zone"
        )
    names = [features_view_name(dataset)]
    if dataset.kind == "timeseries":
        names.append(windows_view_name(dataset))
    store = open_store(settings)
    for name in names:
        _materialize(store, _view(store, name), start.to_pydatetime(), end.to_pydatetime(), settings)
    return OnlineReport(
        entities=len(ranges),
        views=tuple(names),
        window_steps=dataset.window_steps if dataset.kind == "timeseries" else 0,
        start=start,
        end=end,
        seconds=time.perf_counter() - began,
    )


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
        FeatureStoreError: if a column is unknown, the stored windows are shorter than `steps`, or `time_point` lies
            before the end of a window (older windows are served offline).
    """
    moment = parse_time_point(time_point)
    check_columns(dataset, columns)
    names = [WINDOW_END, *(f"{WINDOW_PREFIX}{name}" for name in columns)]
    values = _read(dataset, windows_view_name(dataset), names, entities, settings)
    ends = np.array([value.int64_val for value in values[WINDOW_END]], dtype=np.int64)
    _check_moment(dataset, entities, ends, moment)
    arrays = {name: _stack(dataset, name, values[f"{WINDOW_PREFIX}{name}"], steps) for name in columns}
    step = np.timedelta64(dataset.step, "ns").astype(np.int64)
    times = ends[:, None] + np.arange(1 - steps, 1, dtype=np.int64)[None, :] * step
    return Panel(
        columns=arrays,
        timestamps=times.ravel().astype("datetime64[ns]"),
        entity_ids=np.asarray(entities),
        offsets=np.arange(len(entities) + 1, dtype=np.int64) * steps,
    )


def read_rows(dataset: DatasetConfig, entities: Entities, columns: Sequence[str], settings: Settings) -> Panel:
    """Return the latest row of every entity, from the online store in one read.

    The panel's time stamps are event times in whole seconds, which is what online stores keep.

    Raises:
        UnknownEntityError: if the online store does not hold an entity.
        EntityTypeError: if an id has another type than the stored ones.
        FeatureStoreError: if a column is unknown.
    """
    check_columns(dataset, columns)
    values = _read(dataset, features_view_name(dataset), list(columns), entities, settings)
    times = values.pop(_EVENT_TIMES)
    return Panel(
        columns={name: _scalars(dataset, name, values[name]) for name in columns},
        timestamps=np.array(times, dtype=np.int64).astype("datetime64[s]").astype("datetime64[ns]"),
        entity_ids=np.asarray(entities),
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


_EVENT_TIMES = "__event_times"


def _materialize(
    store: FeatureStore, view: FeatureView, start: dt.datetime, end: dt.datetime, settings: Settings
) -> None:
    # `FeatureStore.materialize` is this call and the record below, plus progress printed on standard output.
    store.provider.materialize_single_feature_view(
        config=store.config,
        feature_view=view,
        start_date=start,
        end_date=end,
        registry=store.registry,
        project=store.project,
        tqdm_builder=lambda _length: None,
    )
    with registry_lock(settings):
        store.registry.refresh(store.project)
        store.registry.apply_materialization(view, store.project, start, end)


def _view(store: FeatureStore, name: str) -> FeatureView:
    from feast.errors import FeatureViewNotFoundException

    try:
        return store.registry.get_feature_view(name, store.project, allow_cache=True)
    except FeatureViewNotFoundException as error:
        raise FeatureStoreError(f"feature view {name!r} is not registered; run apply_dataset first") from error


def _stores_text(store: FeatureStore, dataset: DatasetConfig) -> bool:
    # The registry returns the entity ten times faster than a view, and this is paid at every read.
    from feast import ValueType
    from feast.errors import EntityNotFoundException

    try:
        entity = store.registry.get_entity(entity_name(dataset), store.project, allow_cache=True)
    except EntityNotFoundException as error:
        raise FeatureStoreError(f"dataset {dataset.name!r} is not registered; run apply_dataset first") from error
    return bool(entity.value_type == ValueType.STRING)


def _read(
    dataset: DatasetConfig, view_name: str, names: Sequence[str], entities: Entities, settings: Settings
) -> dict[str, Sequence[Any]]:
    """Return Feast's protobuf values by feature, in the order of `entities`; and event times in seconds."""
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    store = open_store(settings)
    check_entity_types(dataset, entities, _stores_text(store, dataset))
    ids = np.asarray(entities).tolist()
    if not ids:
        raise FeatureStoreError(f"dataset {dataset.name!r}: no entities were asked for")
    response = store.get_online_features(
        features=[f"{view_name}:{name}" for name in names], entity_rows={ENTITY: ids}
    ).proto
    results = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
    statuses = results[names[0]].statuses
    unknown = [entity for entity, status in zip(ids, statuses, strict=True) if status == FieldStatus.NOT_FOUND]
    if unknown:
        raise UnknownEntityError(dataset.name, list(dict.fromkeys(unknown)))
    values: dict[str, Sequence[Any]] = {name: results[name].values for name in names}
    values[_EVENT_TIMES] = [moment.seconds for moment in results[names[0]].event_timestamps]
    return values


def _check_moment(
    dataset: DatasetConfig, entities: Entities, ends: npt.NDArray[np.int64], moment: pd.Timestamp | None
) -> None:
    if moment is None:
        return
    later = np.flatnonzero(ends > moment.value)
    if len(later):
        entity = np.asarray(entities).tolist()[later[0]]
        end = pd.Timestamp(int(ends[later[0]]), tz="UTC")
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: time_point {moment.isoformat()} lies before the stored window of entity "
            f"{entity!r}, which ends at {end.isoformat()}; read the past with the offline strategies"
        )


def _stack(dataset: DatasetConfig, name: str, values: Sequence[Any], steps: int) -> npt.NDArray[np.generic]:
    """Return the last `steps` values of every entity's window, one entity after another."""
    is_number = dataset.columns[name].type == "float"
    lists = [value.float_list_val.val if is_number else value.string_list_val.val for value in values]
    shortest = min(map(len, lists))
    if not 1 <= steps <= shortest:
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: {steps} steps were asked for, but the stored windows of {name!r} have "
            f"{shortest}; ask for 1 to {shortest}, or raise window_steps and materialize again"
        )
    if is_number:
        return np.concatenate([np.array(window[-steps:], dtype=np.float32) for window in lists])
    return np.array([text or None for window in lists for text in window[-steps:]], dtype=object)


def _scalars(dataset: DatasetConfig, name: str, values: Sequence[Any]) -> npt.NDArray[np.generic]:
    if dataset.columns[name].type == "float":
        numbers = [value.float_val if value.HasField("float_val") else np.nan for value in values]
        return np.array(numbers, dtype=np.float32)
    texts = [value.string_val if value.HasField("string_val") else MISSING_TEXT for value in values]
    return np.array([text or None for text in texts], dtype=object)
