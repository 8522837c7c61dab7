"""Filling the online store from the feature table: all of it, or what changed since the last time.

What was last materialised is kept in Feast's folder and tied to the very table and the very online store: if either is
another one, everything is written. It is recorded last, so a process that is killed leaves work that is done again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule import column_array, to_utc_ns
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.feast import (
    Lease,
    OnlineServer,
    Registered,
    online_server,
    registered,
    registry_errors,
    registry_lock,
)
from mlplatform.features.online.latest_rows import merge_latest_rows
from mlplatform.features.online.removal import MaterializedEntities, pushed_before, remove_entities
from mlplatform.features.online.rows import CHUNK, read_stored_windows, write_latest, write_windows
from mlplatform.features.retry import call_store, online_access
from mlplatform.features.tables import (
    REVISION,
    as_stored,
    choose,
    current_removals,
    entity_ranges,
    keep_later_steps,
    require_table,
    table_link,
    windows_from_table,
    windows_path,
)
from mlplatform.settings import Settings
from mlplatform.snapshots import open_snapshot
from mlplatform.state_files import parsed, read_state
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    from feast import FeatureView
    from pyarrow.parquet import ParquetFile

Mode = Literal["full", "incremental"]


@dataclass(frozen=True)
class OnlineReport:
    """What `materialize_online` wrote.

    Attributes:
        entities: number of entities in the feature table that their source has not removed.
        views: names of the materialised feature views.
        window_steps: length of the windows; 0 for tabular data.
        start, end: earliest and latest event time in the feature table, in UTC.
        seconds: how long it took.
        mode: what was done; "full" also where "incremental" was asked for and there was nothing to start from.
        written: entities whose features were written.
        removed: entities that left the feature table, or that their source has removed, and that were taken out of the
            online store.
    """

    entities: int
    views: tuple[str, ...]
    window_steps: int
    start: pd.Timestamp
    end: pd.Timestamp
    seconds: float
    mode: Mode
    written: int
    removed: int = 0


@dataclass(frozen=True)
class _State:
    """What the online store holds: which revision of which table, in which store."""

    online: str
    table_id: str
    revision: int


@dataclass(frozen=True)
class _Run:
    """One run over a dataset, under the lock of `lease`.

    Attributes:
        windows: the opened window table; `None` for tabular data.
        since: the revision that the online store has; `None` to write everything.
        start, end: earliest and latest event time of the table.
        absent: ids of entities of the table that their source has removed.
    """

    dataset: DatasetConfig
    settings: Settings
    known: Registered
    server: OnlineServer
    lease: Lease
    windows: ParquetFile | None
    since: int | None
    start: pd.Timestamp
    end: pd.Timestamp
    absent: npt.NDArray[np.generic]

    @property
    def views(self) -> list[FeatureView]:
        """The views that are written."""
        return [self.known.features, *([] if self.known.windows is None else [self.known.windows])]


def materialize_online(
    dataset: DatasetConfig, settings: Settings, mode: Mode = "full", *, now: dt.datetime | None = None
) -> OnlineReport:
    """Write entities' latest values and newest windows from the feature table to the online store.

    Entities that were materialised and are not in the table any more are unknown afterwards, and so are those that
    their source has removed, unless a newer row of theirs was pushed since.

    "full" makes the online features of every entity those of the table; steps that were pushed and are not in the table
    are gone until they are. "incremental" writes the entities that changed in the table since the last run, however
    late their rows were: up to the table's end, a window becomes the table's, and steps pushed behind it stay. For
    tabular data it compares every row and writes those that are newer or different.

    The interval is recorded in Feast's registry, so `feast materialize-incremental` continues from here. It ends at the
    newest event time of the data, or at the present where rows are known beforehand: an end in the future would make a
    later incremental run skip rows.

    Parameters:
        now: the present (without a zone: UTC); default: the clock.

    Raises:
        FeatureStoreError: if the data reaches further beyond `now` than `future_tolerance`, or the dataset has not been
            written or applied.
        StoreUnavailableError: if the online store does not answer.
    """
    began = time.perf_counter()
    ranges = entity_ranges(dataset, settings)
    present = pd.to_datetime(now or dt.datetime.now(dt.UTC), utc=True)
    _refuse_future(dataset, ranges, present)
    known, server = registered(dataset, settings), online_server(settings)
    with server.lock(f"{dataset.name}.materialize") as lease, _table(dataset, settings) as (file, table):
        call_store(lambda: _prepare(known), online_access(settings))
        identity = call_store(server.identity, online_access(settings))
        state = None if table is None else _State(identity, *table)
        since = _since(dataset, settings, state) if mode == "incremental" else None
        removals = current_removals(dataset, settings)
        absent = removals[ENTITY].to_numpy()
        start, end = ranges["start"].min(), ranges["end"].max()
        run = _Run(*(dataset, settings, known, server, lease, file, since, start, end, absent))
        ids = ranges.loc[~ranges[ENTITY].isin(absent), ENTITY].to_numpy()
        entities = MaterializedEntities(_entities_path(dataset, settings), identity)
        gone = entities.begin(ids)
        written = _write(run, state, present)
        only_pushed = pushed_before(known, removals[~removals[ENTITY].isin(gone)], settings)
        gone = np.concatenate([gone, only_pushed]) if len(only_pushed) else gone
        remove_entities(known, gone, settings, lambda: server.lock(f"{dataset.name}.write"), lease)
        entities.finish(ids)
    return OnlineReport(
        entities=len(ids),
        views=tuple(view.name for view in run.views),
        window_steps=0 if known.windows is None else dataset.window_steps,
        start=run.start,
        end=run.end,
        seconds=time.perf_counter() - began,
        mode="full" if since is None else "incremental",
        written=written,
        removed=len(gone),
    )


def materialized_entities(dataset: DatasetConfig, settings: Settings) -> npt.NDArray[np.generic] | None:
    """Return the ids that were last written to the online store, in one read of a file; `None` if that is not known.

    Entities that were only pushed are not among them.

    Raises:
        StoreUnavailableError: if the online store does not answer.
    """
    identity = call_store(online_server(settings).identity, online_access(settings))
    return MaterializedEntities(_entities_path(dataset, settings), identity).read()


def _write(run: _Run, state: _State | None, present: pd.Timestamp) -> int:
    """Write what is to be written, record it, and return the number of entities."""
    path = _state_path(run.dataset, run.settings)
    if run.since is None:
        path.unlink(missing_ok=True)
    written = _write_rows(run) if run.windows is None else _write_windows(run, run.windows)
    # Whoever lost the lock must not note an older revision than its successor has.
    run.lease.confirm()
    if written or run.since is None:
        _record(run, min(run.end, present))
    if state is not None:
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(state)), encoding="utf-8")
    return written


def _refuse_future(dataset: DatasetConfig, ranges: pd.DataFrame, present: pd.Timestamp) -> None:
    end = ranges["end"].max()
    if end > present + dataset.tolerance:
        entity = ranges[ENTITY].tolist()[int(ranges["end"].argmax())]
        raise FeatureStoreError(
            f"dataset {dataset.name!r}: entity {entity!r} has a row at {end.isoformat()}, more than "
            f"future_tolerance {dataset.future_tolerance} after now ({present.isoformat()}); correct the time column "
            "or its time zone, or allow for rows that are known beforehand"
        )


def _prepare(known: Registered) -> None:
    """Have the online store make its tables, should they have been deleted since the dataset was applied."""
    known.store.provider.online_store.update(
        config=known.store.config,
        tables_to_delete=[],
        tables_to_keep=[known.features, *([] if known.windows is None else [known.windows])],
        entities_to_delete=[],
        entities_to_keep=[],
        partial=True,
    )


@contextlib.contextmanager
def _table(dataset: DatasetConfig, settings: Settings) -> Iterator[tuple[ParquetFile | None, tuple[str, int] | None]]:
    """Yield the opened window table of a time series, and id and revision of the table (`None`: it does not tell)."""
    import pyarrow.parquet as pq

    if dataset.kind != "timeseries":
        snapshot = open_snapshot(table_link(dataset, settings))
        yield None, None if snapshot is None else (snapshot.state["table_id"], snapshot.state["revision"])
        return
    with pq.ParquetFile(require_table(windows_path(dataset, settings), dataset)) as file:
        metadata = file.schema_arrow.metadata or {}
        table_id, revision = metadata.get(b"table_id"), metadata.get(b"revision")
        yield file, None if table_id is None or revision is None else (table_id.decode(), int(revision))


def _write_windows(run: _Run, file: ParquetFile) -> int:
    """Write the windows of the window table in blocks; the lock against pushers is held for one block at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    written = 0
    for batch in file.iter_batches(batch_size=CHUNK, row_groups=_row_groups(file, run.since)):
        table = pa.Table.from_batches([batch])
        if run.since is not None:
            table = table.filter(pc.field(REVISION) > run.since)
        if not table.num_rows:
            continue
        windows, _ = windows_from_table(table, run.dataset)
        with run.server.lock(f"{run.dataset.name}.write") as inner:
            lease = inner.within(run.lease)
            if run.since is not None:
                stored = read_stored_windows(run.known, run.dataset, windows.entity_ids, run.settings)
                merged = keep_later_steps(windows, stored, run.dataset)
                windows = choose(merged.windows, merged.changed)
            lease.confirm()
            write_windows(run.known, windows, run.settings, lease)
        written += len(windows.entity_ids)
    return written


def _row_groups(file: ParquetFile, since: int | None) -> list[int]:
    """Return the row groups that can hold a window that changed after a revision, by their statistics."""
    groups = range(file.metadata.num_row_groups)
    if since is None:
        return list(groups)
    wanted = []
    for group in groups:
        metadata = file.metadata.row_group(group)
        columns = [metadata.column(number) for number in range(metadata.num_columns)]
        statistics = next(column.statistics for column in columns if column.path_in_schema == REVISION)
        if statistics is None or not statistics.has_min_max or statistics.max > since:
            wanted.append(group)
    return wanted


def _write_rows(run: _Run) -> int:
    """Write the latest rows of tabular data in blocks, as the offline store gives them."""
    known, dataset = run.known, run.dataset
    source = known.features.batch_source
    assert source is not None
    job = known.store.provider.offline_store.pull_latest_from_table_or_query(
        config=known.store.config,
        data_source=source,
        join_key_columns=[ENTITY],
        feature_name_columns=list(dataset.columns),
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column or None,
        start_date=run.start.to_pydatetime(),
        end_date=run.end.to_pydatetime(),
    )
    rows = job.to_arrow().to_pandas()
    rows = rows[~rows[ENTITY].isin(run.absent)]
    written = 0
    for first in range(0, len(rows), CHUNK):
        block = rows.iloc[first : first + CHUNK]
        with run.server.lock(f"{dataset.name}.write") as inner:
            lease = inner.within(run.lease)
            lease.confirm()
            if run.since is not None:
                written += merge_latest_rows(known, dataset, block, run.settings, lease).written
                continue
            columns = {name: as_stored(column_array(block[name]), name, dataset) for name in dataset.columns}
            times = to_utc_ns(block[TIMESTAMP]).astype("int64")
            write_latest(known, block[ENTITY].to_numpy(), times, columns, run.settings, lease)
        written += len(block)
    return written


def _record(run: _Run, end: pd.Timestamp) -> None:
    """Note the materialised interval of every view in the registry."""
    registry, project = run.known.store.registry, run.known.store.project
    with registry_errors(run.settings), registry_lock(run.settings):
        registry.refresh(project)
        for view in run.views:
            last = view.most_recent_end_time if run.since is not None else None
            begin = min(run.start if last is None else pd.Timestamp(last), end)
            registry.apply_materialization(view, project, begin.to_pydatetime(), end.to_pydatetime())


def _since(dataset: DatasetConfig, settings: Settings, state: _State | None) -> int | None:
    """Return the revision that the online store holds, `None` if that is not known for this table and this store."""
    otherwise = "everything is written to the online store once more; nothing needs to be done"
    last = read_state(_state_path(dataset, settings), partial(parsed, kind=_State), otherwise)
    if last is None or state is None or (last.online, last.table_id) != (state.online, state.table_id):
        return None
    return last.revision if last.revision <= state.revision else None


def _entities_path(dataset: DatasetConfig, settings: Settings) -> Path:
    return settings.feast_dir / "materialized" / f"{dataset.name}.entities.parquet"


def _state_path(dataset: DatasetConfig, settings: Settings) -> Path:
    return settings.feast_dir / "materialized" / f"{dataset.name}.json"
