"""Pushing rows to the online store as they arrive, without waiting for the feature table.

The stored windows of the entities concerned move on by the same code that builds the windows of the table, so once the
same rows have reached the table both are equal bit for bit. What an ingest would quarantine is dropped by the same
validation. Nothing is written offline.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import zone_of
from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data import (
    REASON,
    Basis,
    Validated,
    off_grid_reason,
    parse_local_times,
    parse_marks,
    source_columns,
    validate,
)
from mlplatform.datamodule import column_array, to_utc_ns
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.feast import Registered, online_server, registered
from mlplatform.features.online.latest_rows import MergedRows, merge_latest_rows
from mlplatform.features.online.read import check_entity_types
from mlplatform.features.online.removal import remove_online
from mlplatform.features.online.repeated_hours import with_moments
from mlplatform.features.online.rows import CHUNK, read_stored_windows, write_windows
from mlplatform.features.tables import Merged, Windows, choose, merge_rows, refuse_other_type, table_phase, table_span
from mlplatform.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushReport:
    """What `push_rows` did. Every row is counted once.

    Attributes:
        rows: rows given.
        written: entities whose stored features changed and were written.
        added: rows newer than all that was stored of their entity, or of a new entity.
        late: rows that filled a step without values inside a window; time series only.
        replaced: rows that gave other values to a stored step.
        repeated: rows that say nothing new: already stored, or followed by a row for the same step.
        too_old: rows from before the stored window or row; dropped.
        off_grid: rows between two steps of the grid; dropped.
        future: rows from after now; dropped, because they would hide all real rows until then.
        far: rows that are alone a whole window or more after all that is known of their entity; dropped, because they
            would empty its window. More than one such row is a machine that is back.
        invalid: rows that an ingest would quarantine for other reasons; dropped.
        removed: rows that say that their entity is gone; unless a later row brings it back, it is unknown afterwards.
        reasons: invalid and off-grid rows by reason.
        seconds: how long it took.
    """

    rows: int
    written: int
    added: int
    late: int
    replaced: int
    repeated: int
    too_old: int
    off_grid: int
    future: int
    far: int
    invalid: int
    seconds: float
    reasons: dict[str, int] = field(default_factory=dict)
    removed: int = 0

    @property
    def dropped(self) -> int:
        """Rows that left no trace although they said something new."""
        return self.too_old + self.off_grid + self.future + self.far + self.invalid


def push_rows(
    dataset: DatasetConfig, rows: pd.DataFrame, settings: Settings, *, now: dt.datetime | None = None
) -> PushReport:
    """Merge rows into the online features of their entities: windows and latest rows, or for tabular data the latter.

    Pushing the same rows again changes nothing, and repeats what a killed process did not finish. A local time that
    clocks show twice means the moment that `with_moments` says. Writers wait for each other, entity by entity in
    blocks; readers see the windows before or after, never half of one.

    Parameters:
        rows: `entity_id`, `event_timestamp` (times, or text in ISO 8601; without a zone: in the dataset's) and all
            columns of the dataset, in any order; other columns are ignored. Of rows with the same entity and time the
            last wins, and it wins over what is stored. Where the dataset has a `removed_column` and it is there, a row
            whose mark says yes needs no more than its entity.
        now: the present (without a zone: UTC); default: the clock.

    Raises:
        FeatureStoreError: if the dataset has not been applied, a column is missing, there twice or holds values of
            another type, or the stored windows have another length than the dataset.
        EntityTypeError: if an id has another type than the dataset's.
        StoreUnavailableError: if the online store does not answer.
    """
    began = time.perf_counter()
    known = registered(dataset, settings)
    marked = _marked(dataset, rows)
    _check(dataset, rows, marked, known)
    rows = with_moments(rows, dataset, known, settings)
    present = pd.to_datetime(now or dt.datetime.now(dt.UTC), utc=True)
    zone = zone_of(dataset.timezone)
    times = parse_local_times(rows[TIMESTAMP], rows[ENTITY], zone, unit=dataset.time_unit).times
    is_future = times > np.datetime64(present.value, "ns")
    checked = _validated(dataset, rows[~is_future], known, settings)
    off_grid = 0  # a table has no grid
    if known.windows is not None:
        off_grid = int((checked.quarantine[REASON] == off_grid_reason(_in_canonical_names(dataset))).sum())
    push = _push_rows if known.windows is None else _push_windows
    merged = [push(dataset, block, known, settings) for block in _blocks(checked.rows)]
    if len(checked.removed):
        remove_online(dataset, checked.removed, settings)
    report = PushReport(
        rows=len(rows),
        written=sum(written for _, written, _ in merged),
        added=sum(counts.added for counts, _, _ in merged),
        late=sum(counts.late for counts, _, _ in merged if isinstance(counts, Merged)),
        replaced=sum(counts.replaced for counts, _, _ in merged),
        # Of rows for one entity and time the validation has kept the last.
        repeated=sum(counts.repeated for counts, _, _ in merged)
        + (checked.rows_read - checked.marks - len(checked.quarantine) - len(checked.rows)),
        too_old=sum(counts.too_old for counts, _, _ in merged),
        off_grid=off_grid + sum(counts.off_grid for counts, _, _ in merged if isinstance(counts, Merged)),
        future=int(is_future.sum()),
        far=len(checked.rows) - sum(rows for _, _, rows in merged),
        invalid=len(checked.quarantine) - off_grid,
        seconds=time.perf_counter() - began,
        reasons=checked.reasons,
        removed=checked.marks,
    )
    if report.dropped:
        logger.warning(
            "push to %r: dropped %d of %d rows: %d before the window, %d off the grid, %d after now (%s), %d alone a "
            "window or more after their entity's, %d invalid%s",
            *(dataset.name, report.dropped, report.rows, report.too_old, report.off_grid, report.future),
            *(present.isoformat(), report.far, report.invalid),
            "".join(f"; {example}" for example in checked.examples),
        )
    return report


def _marked(dataset: DatasetConfig, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which rows say that their entity is gone."""
    if dataset.removed_column not in rows.columns:
        return np.zeros(len(rows), dtype=bool)
    return parse_marks(rows[dataset.removed_column], dt.datetime.now(dt.UTC))[0]


def _check(dataset: DatasetConfig, rows: pd.DataFrame, marked: npt.NDArray[np.bool_], known: Registered) -> None:
    """Refuse rows that are not of the dataset's form; what is wrong with single values is the validation's to say."""
    wanted, names = (ENTITY, TIMESTAMP, *dataset.columns), list(rows.columns)
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise FeatureStoreError(f"dataset {dataset.name!r}: the rows lack {lacking}; they have {names}")
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise FeatureStoreError(f"dataset {dataset.name!r}: the rows have more than one column named {twice}; drop one")
    check_entity_types(dataset, rows[ENTITY].unique().tolist(), known.has_text_ids)
    if rows.loc[~marked, TIMESTAMP].isna().any():
        raise FeatureStoreError(f"dataset {dataset.name!r}: rows without {TIMESTAMP}; leave them out")
    for name, column in dataset.columns.items():
        if column.type == "category" or not pd.api.types.is_numeric_dtype(rows[name]):
            refuse_other_type(column_array(rows.loc[~marked, name]), name, dataset)


def _in_canonical_names(dataset: DatasetConfig, rows: pd.DataFrame | None = None) -> DatasetConfig:
    has_marks = rows is not None and dataset.removed_column in rows.columns
    names = {"time_column": TIMESTAMP, "entity_column": ENTITY}
    return dataset.model_copy(update=names if has_marks else {**names, "removed_column": None})


def _validated(dataset: DatasetConfig, rows: pd.DataFrame, known: Registered, settings: Settings) -> Validated:
    """Return the rows as an ingest would take them, on the grid and with the ids that are stored."""
    asked = _in_canonical_names(dataset, rows).model_copy(
        update={"entity_type": "string" if known.has_text_ids else "integer"}
    )
    phase = None if known.windows is None else table_phase(dataset, settings)
    # What is far from all others is judged by the table: of a push alone, late rows could be the most.
    basis = Basis(phase_ns=phase, span_ns=table_span(dataset, settings))
    return validate(rows[list(source_columns(asked))], asked, basis, newest_wins=True)


def _blocks(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows in blocks of so many entities, each entity whole and its rows in their order."""
    codes, entities = pd.factorize(rows[ENTITY])
    numbers: npt.NDArray[np.int64] = codes // CHUNK
    return [rows[numbers == number] for number in range(-(-len(entities) // CHUNK))]


def _push_windows(
    dataset: DatasetConfig, rows: pd.DataFrame, known: Registered, settings: Settings
) -> tuple[Merged, int, int]:
    """Merge rows; return what became of them, the number of windows written and of rows merged."""
    with online_server(settings).lock(f"{dataset.name}.write") as lease:
        ids = np.sort(rows[ENTITY].unique().astype(object if known.has_text_ids else np.int64))
        stored = read_stored_windows(known, dataset, ids, settings)
        rows = rows[~_are_far(rows, stored, dataset)]
        merged = merge_rows(stored, rows, dataset)
        written = int(merged.changed.sum())
        if written:
            lease.confirm()
            write_windows(known, choose(merged.windows, merged.changed), settings, lease)
        return merged, written, len(rows)


def _push_rows(
    dataset: DatasetConfig, rows: pd.DataFrame, known: Registered, settings: Settings
) -> tuple[MergedRows, int, int]:
    with online_server(settings).lock(f"{dataset.name}.write") as lease:
        merged = merge_latest_rows(known, dataset, rows, settings, lease)
        return merged, merged.written, len(rows)


def _are_far(rows: pd.DataFrame, stored: Windows, dataset: DatasetConfig) -> npt.NDArray[np.bool_]:
    """Return which rows, ordered by entity and time, are alone a window or more after all before them."""
    never = np.iinfo(np.int64).min
    ends = pd.Series(stored.ends, index=pd.Index(stored.entity_ids)).reindex(rows[ENTITY], fill_value=never)
    times = pd.Series(to_utc_ns(rows[TIMESTAMP]).astype(np.int64), index=rows.index)
    latest = np.maximum(times.groupby(rows[ENTITY]).shift(fill_value=never).to_numpy(), ends.to_numpy())
    is_judged = ~rows[ENTITY].duplicated(keep="last").to_numpy() & (latest > never)
    moments = times.to_numpy().astype(np.int64)
    behind = dataset.calendar.steps(np.where(is_judged, latest, moments), moments)
    return np.asarray(is_judged & (behind >= dataset.window_steps))
