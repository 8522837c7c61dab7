"""Reads from the offline store: whole history, ranges, windows at cut-offs, and rows as of a moment.

Two of Feast's operations answer everything. Rows at known times (history, ranges, windows) are a read between two
moments, so only the files and row groups of that stretch are touched. Rows as of a moment are the point-in-time join.
Neither can bring in a row later than what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule import Int64, Panel, column_array, entity_array, to_utc_ns
from mlplatform.features.errors import FeatureStoreError, UnknownEntityError
from mlplatform.features.feast import features_view_name, registered
from mlplatform.features.online import Entities, check_columns, check_entity_types
from mlplatform.features.retry import call_store, offline_access
from mlplatform.features.tables import current_removals, entity_ranges
from mlplatform.features.time_point import TimePoint, parse_time_point
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

# Rows that one read may bring into memory when only some of their entities are wanted.
ROWS_PER_READ = 2_000_000


@dataclass(frozen=True)
class _Stretch:
    """A stretch of time, both ends included."""

    start: pd.Timestamp
    end: pd.Timestamp


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
        StoreUnavailableError: if the files cannot be read.
    """
    check_columns(dataset, columns)

    def read() -> pd.DataFrame:
        ranges = entity_ranges(dataset, settings)
        stretch = _stretch(ranges, start, end)
        return _frame([_pull(dataset, columns, stretch, settings)], ranges[ENTITY], columns)

    return call_store(read, offline_access(settings))


def read_range(
    dataset: DatasetConfig,
    entities: Entities | None,
    columns: Sequence[str],
    settings: Settings,
    start: TimePoint | None = None,
    end: TimePoint | None = None,
) -> Panel:
    """Return the rows of entities (`None`: all) from `start` to `end` (both included; `None` leaves a side open).

    Entities keep their order, each once; those without a row in the range are left out.

    Raises:
        UnknownEntityError: if an entity is unknown.
        FeatureStoreError: if a column is unknown, or no entity has a row in the range.
        StoreUnavailableError: if the files cannot be read.
    """
    check_columns(dataset, columns)

    def read() -> pd.DataFrame:
        ranges = chosen_ranges(dataset, entities, settings).drop_duplicates(ENTITY)
        stretch = _stretch(ranges, start, end)
        tables = list(_pull_entities(dataset, ranges[ENTITY], columns, stretch, settings))
        if not sum(table.num_rows for table in tables):
            raise FeatureStoreError(
                f"dataset {dataset.name!r} has no rows of these entities in the requested range; theirs reach from "
                f"{ranges['start'].min().isoformat()} to {ranges['end'].max().isoformat()}"
            )
        return _frame(tables, ranges[ENTITY], columns)

    frame = call_store(read, offline_access(settings))
    return Panel.from_frame(frame, columns)


def offline_windows(
    dataset: DatasetConfig,
    entities: Entities,
    cutoffs: Sequence[TimePoint],
    columns: Sequence[str],
    steps: int,
    settings: Settings,
) -> tuple[Panel, ...]:
    """Return, for every cut-off, the window of every entity that ends there.

    A window ends at the entity's last grid time at or before the cut-off, and at its last row if that is earlier;
    steps before its first row are missing. With the cut-off "now" a panel equals `read_windows` bit for bit, as long as
    the online store is up to date. Windows that lie far apart are read apart, so neither the time nor the memory
    depends on how long the history is.

    Returns:
        One panel per cut-off, each with exactly `steps` rows per entity, in the order of `entities`.

    Raises:
        UnknownEntityError: if an entity is unknown or has no row yet at a cut-off.
        FeatureStoreError: if a column is unknown or `steps` is not positive.
        StoreUnavailableError: if the files cannot be read.
    """
    check_columns(dataset, columns)
    if steps < 1:
        raise FeatureStoreError(f"steps must be at least 1, but is {steps}")
    if not len(cutoffs):
        return ()

    def read() -> tuple[Panel, ...]:
        ranges = chosen_ranges(dataset, entities, settings)
        ends = np.stack([_window_ends(dataset, ranges, cutoff, settings) for cutoff in cutoffs])
        arrays = _read_windows(dataset, ranges[ENTITY], ends, columns, steps, settings)
        return tuple(
            _window_panel(dataset, entity_array(entities), own, {name: arrays[name][cutoff] for name in columns}, steps)
            for cutoff, own in enumerate(ends)
        )

    return call_store(read, offline_access(settings))


def rows_as_of(
    dataset: DatasetConfig, entities: Entities | None, columns: Sequence[str], settings: Settings, moment: pd.Timestamp
) -> Panel:
    """Return the newest row of every entity (`None`: all) at or before a moment, by Feast's point-in-time join.

    The panel's time stamps are the event times of the rows.

    Raises:
        UnknownEntityError: if an entity is unknown or has no row yet at the moment.
        FeatureStoreError: if a column is unknown or the dataset has not been written and applied.
        StoreUnavailableError: if the files cannot be read.
    """
    check_columns(dataset, columns)

    def read() -> pd.DataFrame:
        ranges = chosen_ranges(dataset, entities, settings, there_at=moment)
        unborn = ranges.loc[ranges["start"] > moment, ENTITY].tolist()
        if unborn:
            raise UnknownEntityError(dataset.name, unborn)
        wanted = pd.DataFrame({ENTITY: ranges[ENTITY], TIMESTAMP: _newest_times(dataset, ranges, moment, settings)})
        return _join(dataset, wanted, columns, settings)

    return Panel.from_frame(call_store(read, offline_access(settings)), columns)


def read_grid(
    dataset: DatasetConfig, ids: pd.Series, ends: Int64, columns: Sequence[str], steps: int, settings: Settings
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the windows of entities with the given ends, in ns, as arrays of shape (entities, steps)."""
    arrays = _read_windows(dataset, ids, ends[None, :], columns, steps, settings)
    return {name: values.reshape(len(ends), steps) for name, values in arrays.items()}


def read_rows(
    dataset: DatasetConfig,
    ids: pd.Series,
    columns: Sequence[str],
    start: pd.Timestamp,
    end: pd.Timestamp,
    settings: Settings,
) -> pd.DataFrame:
    """Return the rows of entities from `start` to `end` in canonical types, ordered by entity and time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _pull(dataset, columns, _Stretch(start, end), settings)
    wanted = pa.array(ids.tolist()).cast(table.schema.field(ENTITY).type)
    return _frame([table.filter(pc.is_in(table.column(ENTITY), value_set=wanted))], ids, columns)


def chosen_ranges(
    dataset: DatasetConfig,
    entities: Entities | None,
    settings: Settings,
    known_at: pd.Timestamp | None = None,
    *,
    there_at: TimePoint | None = None,
) -> pd.DataFrame:
    """Return `entity_id`, `start` and `end` of the chosen entities (`None`: all), in their order.

    Parameters:
        known_at: a moment; the entities and their ends are then those that the feature table had at it.
        there_at: entities that their source had removed by then are unknown; by default they are history like others.

    Raises:
        EntityTypeError: if an id has another type than the stored ones.
        UnknownEntityError: if an entity is unknown.
    """
    ranges = entity_ranges(dataset, settings, known_at)
    if there_at is not None:
        ranges = ranges[~ranges[ENTITY].isin(current_removals(dataset, settings, parse_time_point(there_at))[ENTITY])]
    if entities is None:
        return ranges
    check_entity_types(dataset, entities, stores_text=not pd.api.types.is_integer_dtype(ranges[ENTITY]))
    wanted = entity_array(entities)
    if not len(wanted):
        raise FeatureStoreError(f"dataset {dataset.name!r}: no entities were asked for")
    unknown = wanted[~np.isin(wanted, ranges[ENTITY].to_numpy())].tolist()
    if unknown:
        raise UnknownEntityError(dataset.name, list(dict.fromkeys(unknown)))
    chosen: pd.DataFrame = ranges.set_index(ENTITY).loc[wanted.tolist()].reset_index()
    return chosen


def _window_ends(dataset: DatasetConfig, ranges: pd.DataFrame, cutoff: TimePoint, settings: Settings) -> Int64:
    """Return the last grid time of every entity's window at a cut-off, in nanoseconds."""
    first, last = (to_utc_ns(ranges[name]).astype(np.int64) for name in ("start", "end"))
    moment = parse_time_point(cutoff)
    gone = ranges.loc[ranges[ENTITY].isin(current_removals(dataset, settings, moment)[ENTITY]), ENTITY].tolist()
    if gone:
        raise UnknownEntityError(dataset.name, list(dict.fromkeys(gone)))
    if moment is None:
        return last
    unborn = ranges.loc[first > moment.value, ENTITY].tolist()
    if unborn:
        raise UnknownEntityError(dataset.name, unborn)
    calendar = dataset.calendar
    return np.minimum(last, calendar.shift(first, calendar.steps(first, moment.value)))


def _read_windows(
    dataset: DatasetConfig, ids: pd.Series, ends: Int64, columns: Sequence[str], steps: int, settings: Settings
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the windows with the given ends, of shape (cut-offs, entities), as arrays (cut-offs, entities x steps)."""
    arrays = {name: _missing(dataset, name, (ends.size, steps)) for name in columns}
    entities = np.tile(ids.to_numpy(), len(ends))
    for group in _neighbours(ends.ravel(), steps * dataset.calendar.nominal_ns):
        found = _read_group(dataset, entities[group], ends.ravel()[group], columns, steps, settings)
        for name in columns:
            arrays[name][group] = found[name]
    return {name: values.reshape(len(ends), -1) for name, values in arrays.items()}


def _neighbours(ends: Int64, span: int) -> Iterator[Int64]:
    """Yield positions of windows in groups: neighbours in a group are at most as far apart as a window is long."""
    order = np.argsort(ends, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(ends[order]) > 2 * span) + 1)


def _read_group(
    dataset: DatasetConfig,
    entities: npt.NDArray[np.generic],
    ends: Int64,
    columns: Sequence[str],
    steps: int,
    settings: Settings,
) -> dict[str, npt.NDArray[np.generic]]:
    """Return windows, given by entity and end, as arrays of shape (windows, steps).

    The rows are laid on the grid of their entities once, and every window is a part of that.
    """
    calendar = dataset.calendar
    codes, unique = pd.factorize(entities)
    starts = calendar.shift(ends, 1 - steps)
    first = np.full(len(unique), np.iinfo(np.int64).max)
    np.minimum.at(first, codes, starts)
    begin = calendar.steps(first[codes], starts)
    length = int(begin.max()) + steps
    grid = {name: _missing(dataset, name, (len(unique), length)) for name in columns}
    stretch = _Stretch(pd.Timestamp(int(starts.min()), tz="UTC"), pd.Timestamp(int(ends.max()), tz="UTC"))
    index = pd.Index(unique)
    for table in _pull_entities(dataset, pd.Series(unique), columns, stretch, settings):
        owners = index.get_indexer(pd.Index(table.column(ENTITY).to_pandas()))
        places, is_on = calendar.between(first[owners], _nanoseconds(table))
        # Where all entities of the table are read, there may be others than those that were wanted.
        inside = (owners >= 0) & is_on & (places >= 0) & (places < length)
        for name in columns:
            grid[name][owners[inside], places[inside]] = column_array(table.column(name).to_pandas())[inside]
    windows = begin[:, None] + np.arange(steps)[None, :]
    return {name: grid[name][codes[:, None], windows] for name in columns}


def _window_panel(
    dataset: DatasetConfig,
    entities: npt.NDArray[np.generic],
    ends: Int64,
    columns: dict[str, npt.NDArray[np.generic]],
    steps: int,
) -> Panel:
    times = dataset.calendar.window(ends, steps)
    return Panel(
        columns=columns,
        timestamps=times.ravel().astype("datetime64[ns]"),
        entity_ids=entities,
        offsets=np.arange(len(entities) + 1, dtype=np.int64) * steps,
    )


def _missing(dataset: DatasetConfig, name: str, shape: tuple[int, int]) -> npt.NDArray[np.generic]:
    if dataset.columns[name].type == "float":
        return np.full(shape, np.nan, dtype=np.float32)
    return np.full(shape, None, dtype=object)


def _newest_times(dataset: DatasetConfig, ranges: pd.DataFrame, moment: pd.Timestamp, settings: Settings) -> pd.Series:
    """Return the time of every entity's newest row at or before a moment, in the order of `ranges`."""
    ends: pd.Series = ranges["end"]
    if (ends <= moment).all():
        return ends
    keys = _pull(dataset, (), _Stretch(ranges["start"].min(), moment), settings).select([ENTITY, TIMESTAMP])
    newest = keys.group_by(ENTITY).aggregate([(TIMESTAMP, "max")]).to_pandas().set_index(ENTITY)[f"{TIMESTAMP}_max"]
    times: pd.Series = newest.loc[ranges[ENTITY]].reset_index(drop=True)
    return times


def _stretch(ranges: pd.DataFrame, start: TimePoint | None, end: TimePoint | None) -> _Stretch:
    """Return the part of the history of the given entities between two optional bounds."""
    first, last = ranges["start"].min(), ranges["end"].max()
    after, before = (None if bound is None else parse_time_point(bound) for bound in (start, end))
    return _Stretch(first if after is None else max(first, after), last if before is None else min(last, before))


def _pull_entities(
    dataset: DatasetConfig, ids: pd.Series, columns: Sequence[str], stretch: _Stretch, settings: Settings
) -> Iterator[pa.Table]:
    """Yield the rows of some entities in a stretch, in parts, each read with at most `ROWS_PER_READ` rows.

    Feast reads between two moments for all entities; where all are wanted, there is one part.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    known = len(entity_ranges(dataset, settings))
    if len(ids) == known:
        yield _pull(dataset, columns, stretch, settings)
        return
    step = pd.Timedelta(dataset.nominal_step)
    # As many steps as there are at most: so many rows of months would last longer than time stamps can tell.
    length = min(max(1, ROWS_PER_READ // known), (stretch.end - stretch.start) // step + 1) * step
    start = stretch.start
    wanted = pa.array(ids.to_numpy())
    while start <= stretch.end:
        end = min(stretch.end, start + length)
        table = _pull(dataset, columns, _Stretch(start, end), settings)
        yield table.filter(pc.is_in(table.column(ENTITY), value_set=wanted.cast(table.schema.field(ENTITY).type)))
        start = end + pd.Timedelta(1, "us")


def _pull(dataset: DatasetConfig, columns: Sequence[str], stretch: _Stretch, settings: Settings) -> pa.Table:
    """Return key, time and columns of all rows in a stretch, through Feast's offline store."""
    known = registered(dataset, settings)
    store, source = known.store, known.features.batch_source
    assert source is not None, "every view of a dataset is built with a file source"
    job = store.provider.offline_store.pull_all_from_table_or_query(
        config=store.config,
        data_source=source,
        join_key_columns=[ENTITY],
        feature_name_columns=list(columns),
        timestamp_field=TIMESTAMP,
        created_timestamp_column=source.created_timestamp_column or None,
        start_date=stretch.start.to_pydatetime(),
        end_date=stretch.end.to_pydatetime(),
    )
    return job.to_arrow()


def _join(dataset: DatasetConfig, wanted: pd.DataFrame, columns: Sequence[str], settings: Settings) -> pd.DataFrame:
    """Return `wanted` (entity and time) with the columns, by Feast's point-in-time join, in canonical types."""
    view = features_view_name(dataset)
    job = registered(dataset, settings).store.get_historical_features(
        entity_df=wanted, features=[f"{view}:{name}" for name in columns]
    )
    joined = job.to_df()
    frame = {ENTITY: joined[ENTITY], TIMESTAMP: joined[TIMESTAMP].dt.as_unit("ns")}
    return pd.DataFrame({**frame, **{name: column_array(joined[name]) for name in columns}})


def _frame(tables: Sequence[pa.Table], ids: pd.Series, columns: Sequence[str]) -> pd.DataFrame:
    """Return rows in canonical types, ordered by entity (in the order of `ids`) and time."""
    import pyarrow as pa

    table = pa.concat_tables(tables)
    entities: pd.Series = table.column(ENTITY).to_pandas()
    times = _nanoseconds(table)
    order = _order(pd.Index(ids).get_indexer(pd.Index(entities)), times)
    frame = {
        ENTITY: entities.to_numpy()[order],
        TIMESTAMP: pd.to_datetime(times[order].astype("datetime64[ns]"), utc=True),
    }
    return pd.DataFrame({**frame, **{name: column_array(table.column(name).to_pandas())[order] for name in columns}})


def _order(codes: npt.NDArray[np.intp], times: Int64) -> npt.NDArray[np.intp]:
    """Return the order by code and time."""
    # A radix sort, because the codes are small; files follow each other in time, so that it is mostly enough.
    order = np.argsort(codes.astype(np.min_scalar_type(int(codes.max(initial=0)))), kind="stable")
    same = np.diff(codes[order]) == 0
    if (np.diff(times[order])[same] < 0).any():
        order = np.lexsort((times, codes))
    return order


def _nanoseconds(table: pa.Table) -> Int64:
    """Return the event times of a table, in nanoseconds since 1970 UTC."""
    return to_utc_ns(table.column(TIMESTAMP).to_pandas()).astype(np.int64)
