"""Retrieval: what training, batch scoring and serving ask of the feature store.

Three strategies answer the same question, "the features of these entities at this time", in different places:
`timeseries` reads stretches of history offline, `tabular` joins one row per entity offline, and `online` reads the
online store. All offline reads are Feast's point-in-time join, so none of them can see a later row. All three return
panels, the form that preprocessing and models take.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule.panel import Int64, Panel, column_array, to_utc_ns
from mlplatform.features.definitions import features_view_name
from mlplatform.features.errors import FeatureStoreError, UnknownEntityError
from mlplatform.features.online import Entities, check_columns, check_entity_types, read_rows, read_windows
from mlplatform.features.store import open_store
from mlplatform.features.table import entity_ranges, features_path, require_table
from mlplatform.features.time_point import NOW, TimePoint, parse_time_point
from mlplatform.settings import Settings


@dataclass(frozen=True)
class Request:
    """What is asked of a strategy.

    Attributes:
        time_point: the present of the answer; nothing later is read. "now" is the newest data.
        entities: ids, or `None` for all.
        columns: dataset columns.
        steps: rows per entity, counted back from the time point; `None` for all there are.
        start: earliest time; excludes `steps`.
    """

    time_point: TimePoint
    entities: Entities | None
    columns: tuple[str, ...]
    steps: int | None
    start: TimePoint | None


class RetrievalStrategy(Protocol):
    """A way to answer a request."""

    def load(self, dataset: DatasetConfig, request: Request, settings: Settings) -> Panel:
        """Return the requested features."""


class TimeSeriesRetrieval:
    """History of entities over a range of grid times, through the offline store."""

    def load(self, dataset: DatasetConfig, request: Request, settings: Settings) -> Panel:
        """Return all rows from `start` to the time point, or the last `steps` rows up to it."""
        if request.steps is None:
            return self._range(dataset, request, settings)
        entities = _chosen(dataset, request.entities, settings)[ENTITY].to_numpy()
        return offline_windows(dataset, entities, [request.time_point], request.columns, request.steps, settings)[0]

    @staticmethod
    def _range(dataset: DatasetConfig, request: Request, settings: Settings) -> Panel:
        chosen = _chosen(dataset, request.entities, settings)
        keys = _keys(dataset, settings, request.start, request.time_point)
        groups = keys[keys[ENTITY].isin(chosen[ENTITY])].groupby(ENTITY, sort=False)
        present = [entity for entity in chosen[ENTITY] if entity in groups.groups]
        if not present:
            raise FeatureStoreError(f"dataset {dataset.name!r} has no rows in the requested range")
        wanted = pd.concat([groups.get_group(entity) for entity in present], ignore_index=True)
        return Panel.from_frame(_join(dataset, wanted, request.columns, settings), request.columns)


class TabularRetrieval:
    """One row per entity as of the time point, through the offline store."""

    def load(self, dataset: DatasetConfig, request: Request, settings: Settings) -> Panel:
        """Return the newest row of every entity at or before the time point."""
        _no_range(request, "tabular")
        moment = parse_time_point(request.time_point) or pd.Timestamp(dt.datetime.now(dt.UTC))
        chosen = _chosen(dataset, request.entities, settings)
        unborn = chosen.loc[chosen["start"] > moment, ENTITY].tolist()
        if unborn:
            raise UnknownEntityError(dataset.name, unborn)
        wanted = pd.DataFrame({ENTITY: chosen[ENTITY].to_numpy(), TIMESTAMP: moment})
        return Panel.from_frame(_join(dataset, wanted, request.columns, settings), request.columns)


class OnlineRetrieval:
    """The newest window (time series) or row (tabular) of entities, through the online store."""

    def load(self, dataset: DatasetConfig, request: Request, settings: Settings) -> Panel:
        """Return the last `steps` rows, default the whole stored window; tabular: the latest row."""
        if request.start is not None:
            raise FeatureStoreError("the strategy 'online' takes no start; it reads the newest window")
        entities = request.entities
        if entities is None:
            entities = entity_ranges(dataset, settings)[ENTITY].to_numpy()
        if dataset.kind == "tabular":
            _no_range(request, "online")
            return read_rows(dataset, entities, request.columns, settings)
        steps = dataset.window_steps if request.steps is None else request.steps
        return read_windows(dataset, entities, request.columns, steps, settings, request.time_point)


STRATEGIES: dict[str, type[RetrievalStrategy]] = {
    "timeseries": TimeSeriesRetrieval,
    "tabular": TabularRetrieval,
    "online": OnlineRetrieval,
}


class FeatureStoreFacade:
    """The features of a dataset, in one way of reading them.

    Parameters:
        dataset: the dataset.
        mode: `timeseries`, `tabular` or `online`.
        settings: of the installation.

    Raises:
        FeatureStoreError: if the mode is unknown or does not fit the kind of the dataset.
    """

    def __init__(self, dataset: DatasetConfig, mode: str, settings: Settings) -> None:
        if mode not in STRATEGIES:
            raise FeatureStoreError(f"unknown retrieval mode {mode!r}; known: {', '.join(STRATEGIES)}")
        if mode != "online" and mode != dataset.kind:
            raise FeatureStoreError(f"mode {mode!r} does not fit dataset {dataset.name!r} of kind {dataset.kind}")
        self.dataset = dataset
        self.settings = settings
        self._strategy = STRATEGIES[mode]()

    def load_features(
        self,
        time_point: TimePoint = NOW,
        entities: Entities | None = None,
        columns: Sequence[str] | None = None,
        *,
        steps: int | None = None,
        start: TimePoint | None = None,
    ) -> Panel:
        """Return the features of `entities` (default: all) as they were known at `time_point`.

        Parameters:
            columns: dataset columns; default: all.
            steps: rows per entity (time series); default: all there are, online the stored window.
            start: earliest time (mode `timeseries`); instead of `steps`.

        Raises:
            UnknownEntityError: if an entity is unknown.
            FeatureStoreError: if the request cannot be answered in this mode.
        """
        if steps is not None and start is not None:
            raise FeatureStoreError("give steps or start, not both")
        chosen = tuple(self.dataset.columns) if columns is None else tuple(columns)
        check_columns(self.dataset, chosen)
        return self._strategy.load(self.dataset, Request(time_point, entities, chosen, steps, start), self.settings)


def load_history(
    dataset: DatasetConfig,
    columns: Sequence[str],
    settings: Settings,
    start: TimePoint | None = None,
    end: TimePoint | None = None,
) -> pd.DataFrame:
    """Return the whole history of a dataset, or its part from `start` to `end` (both included).

    Returns:
        Rows sorted by entity and time with `entity_id`, `event_timestamp` (UTC) and `columns`: float32, or text with
        `None` for missing. Grid gaps are rows of missing values.

    Raises:
        FeatureStoreError: if a column is unknown or the dataset has not been written and applied.
    """
    check_columns(dataset, columns)
    return _join(dataset, _keys(dataset, settings, start, end), columns, settings)


def offline_windows(
    dataset: DatasetConfig,
    entities: Entities,
    cutoffs: Sequence[TimePoint],
    columns: Sequence[str],
    steps: int,
    settings: Settings,
) -> tuple[Panel, ...]:
    """Return, for every cut-off, the window of every entity that ends there, by the point-in-time join.

    A window ends at the entity's last grid time at or before the cut-off, and at its last row if that is earlier;
    steps before its first row are missing. With the cut-off "now" a panel equals `read_windows` bit for bit, as long as
    the online store is up to date.

    Returns:
        One panel per cut-off, each with exactly `steps` rows per entity, in the order of `entities`.

    Raises:
        UnknownEntityError: if an entity is unknown or has no row yet at a cut-off.
        FeatureStoreError: if a column is unknown or `steps` is not positive.
    """
    check_columns(dataset, columns)
    if steps < 1:
        raise FeatureStoreError(f"steps must be at least 1, but is {steps}")
    ranges = _chosen(dataset, entities, settings)
    times = np.concatenate([_window_times(dataset, ranges, cutoff, steps) for cutoff in cutoffs])
    ids = ranges[ENTITY].to_numpy()
    wanted = pd.DataFrame(
        {ENTITY: np.tile(np.repeat(ids, steps), len(cutoffs)), TIMESTAMP: pd.to_datetime(times, utc=True)}
    )
    joined = _join(dataset, wanted, columns, settings)
    arrays = {name: column_array(joined[name]) for name in columns}
    size = len(ids) * steps
    return tuple(
        Panel(
            columns={name: values[first : first + size] for name, values in arrays.items()},
            timestamps=times[first : first + size],
            entity_ids=np.asarray(entities),
            offsets=np.arange(len(ids) + 1, dtype=np.int64) * steps,
        )
        for first in range(0, size * len(cutoffs), size)
    )


def _window_times(
    dataset: DatasetConfig, ranges: pd.DataFrame, cutoff: TimePoint, steps: int
) -> npt.NDArray[np.datetime64]:
    """Return the grid times of every entity's window at a cut-off, one entity after another."""
    first, last = (to_utc_ns(ranges[name]).astype(np.int64) for name in ("start", "end"))
    moment = parse_time_point(cutoff)
    step = int(np.timedelta64(dataset.step, "ns").astype(np.int64))
    ends: Int64 = last
    if moment is not None:
        unborn = ranges.loc[first > moment.value, ENTITY].tolist()
        if unborn:
            raise UnknownEntityError(dataset.name, unborn)
        ends = np.minimum(last, first + (moment.value - first) // step * step)
    times = ends[:, None] + np.arange(1 - steps, 1, dtype=np.int64)[None, :] * step
    return times.ravel().astype("datetime64[ns]")


def _chosen(dataset: DatasetConfig, entities: Entities | None, settings: Settings) -> pd.DataFrame:
    """Return the ranges of the chosen entities, in their order."""
    ranges = entity_ranges(dataset, settings)
    if entities is None:
        return ranges
    check_entity_types(dataset, entities, stores_text=not pd.api.types.is_integer_dtype(ranges[ENTITY]))
    wanted = np.asarray(entities)
    unknown = wanted[~np.isin(wanted, ranges[ENTITY].to_numpy())].tolist()
    if unknown:
        raise UnknownEntityError(dataset.name, list(dict.fromkeys(unknown)))
    return ranges.set_index(ENTITY).loc[wanted].reset_index()


def _keys(dataset: DatasetConfig, settings: Settings, start: TimePoint | None, end: TimePoint | None) -> pd.DataFrame:
    """Return entity and time of the rows of the feature table in a range."""
    import pyarrow.parquet as pq

    path = require_table(features_path(dataset, settings), dataset, "write_feature_table")
    filters = []
    for operator, bound in ((">=", start), ("<=", end)):
        moment = None if bound is None else parse_time_point(bound)
        if moment is not None:
            filters.append((TIMESTAMP, operator, moment.to_pydatetime()))
    keys: pd.DataFrame = pq.read_table(path, columns=[ENTITY, TIMESTAMP], filters=filters or None).to_pandas()
    return keys


def _join(dataset: DatasetConfig, wanted: pd.DataFrame, columns: Sequence[str], settings: Settings) -> pd.DataFrame:
    """Return `wanted` (entity and time) with the columns, by Feast's point-in-time join, in canonical types."""
    from feast.errors import FeatureViewNotFoundException

    view = features_view_name(dataset)
    try:
        job = open_store(settings).get_historical_features(
            entity_df=wanted, features=[f"{view}:{name}" for name in columns]
        )
    except FeatureViewNotFoundException as error:
        raise FeatureStoreError(f"feature view {view!r} is not registered; run apply_dataset first") from error
    joined = job.to_df()
    frame = {ENTITY: joined[ENTITY], TIMESTAMP: joined[TIMESTAMP].dt.as_unit("ns")}
    return pd.DataFrame({**frame, **{name: column_array(joined[name]) for name in columns}})


def _no_range(request: Request, mode: str) -> None:
    if request.steps is not None or request.start is not None:
        raise FeatureStoreError(f"tabular data has one row per entity; the strategy {mode!r} takes no steps or start")
