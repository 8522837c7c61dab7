"""Validation: a source's frame in, the canonical raw frame and the quarantine out. No row is lost between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data.columns import require_columns
from mlplatform.data.errors import DataError
from mlplatform.data.faults import Faults
from mlplatform.data.parsing import parse_categories, parse_entities, parse_numbers, parse_times
from mlplatform.data.schema import check_values
from mlplatform.data.timegrid import count_out_of_order, find_duplicates, find_gaps, off_grid

ROW = "row"
REASON = "reason"
SINGLE_ENTITY = 1
TIMELESS = np.datetime64("2000-01-01T00:00", "ns")
EXAMPLES = 3


@dataclass(frozen=True)
class Validated:
    """The outcome of a validation.

    Attributes:
        rows: the raw frame: `entity_id` (int64 or str), `event_timestamp` (datetime64[ns, UTC]), then the dataset's
            columns (float32, or object with `None`), ordered by entity and time and unique on them.
        quarantine: the bad rows in source order: `row` (0-based row of the source), `reason`, then the source's own
            columns as text (`None` is missing; a column called `row` or `reason` gets `_original` appended).
        gaps: missing stretches of the grid: `entity_id`, `start`, `end` (UTC, both missing) and `steps`.
        missing_steps: missing grid steps per entity, for the entities that miss any.
        report: counts of all this, ready for JSON.
    """

    rows: pd.DataFrame
    quarantine: pd.DataFrame
    gaps: pd.DataFrame
    missing_steps: dict[int | str, int]
    report: dict[str, Any]


def validate(frame: pd.DataFrame, dataset: DatasetConfig) -> Validated:
    """Check every row of a source's frame and bring the good ones into canonical form.

    A bad row goes to quarantine whole, with all its reasons, and so becomes a gap in the grid; this holds as well for a
    row with one value out of range, because one broken value makes the others of that moment doubtful. Bad are: a time
    or number that does not parse, a missing time, entity or not nullable value, a value that is infinite, beyond
    `min`..`max` or too large for float32, a time off the frequency grid (time series only), and rows that repeat the
    entity and time of an earlier good row. Rows out of time order are sorted and counted, not bad.

    Parameters:
        frame: in the source's own column names and row order; its index is ignored.

    Raises:
        DataError: if a column is missing, there are no rows, all rows are bad, or more than the share
            `dataset.max_bad_fraction` of them.
    """
    require_columns(frame.columns, dataset, "the source")
    if frame.empty:
        raise DataError(f"dataset {dataset.name!r}: the source has no rows; at least one is needed")
    faults = Faults(len(frame))
    canonical = _parse(frame.reset_index(drop=True), dataset, faults)
    if dataset.kind == "timeseries":
        is_off = off_grid(canonical[TIMESTAMP].to_numpy(), dataset.step)
        faults.add(f"{dataset.time_column}: off the {dataset.frequency} grid", is_off)
    if dataset.time_column is not None or dataset.entity_column is not None:
        _add_duplicates(canonical, dataset, faults)
    _refuse_bad_data(frame, dataset, faults)
    good = canonical[~faults.is_bad]
    rows = _canonical(good, dataset)
    gaps = find_gaps(rows, dataset.step if dataset.kind == "timeseries" else None)
    missing = gaps.groupby(ENTITY)["steps"].sum()
    return Validated(
        rows=rows,
        quarantine=_quarantine(frame, faults),
        gaps=gaps,
        missing_steps=dict(zip(missing.index.tolist(), missing.tolist(), strict=True)),
        report={
            "rows_read": len(frame),
            "rows": len(rows),
            "quarantined": int(faults.is_bad.sum()),
            "reasons": faults.counts(),
            "out_of_order_rows": count_out_of_order(good),
            "entities": int(rows[ENTITY].nunique()),
            "start": rows[TIMESTAMP].min().isoformat(),
            "end": rows[TIMESTAMP].max().isoformat(),
            "gap_ranges": len(gaps),
            "missing_steps": int(gaps["steps"].sum()),
        },
    )


def _parse(frame: pd.DataFrame, dataset: DatasetConfig, faults: Faults) -> pd.DataFrame:
    """Return the canonical columns of all rows, numbers still as float64, and note the cells that are bad."""
    columns: dict[str, npt.NDArray[Any]] = {
        ENTITY: _entities(frame, dataset, faults),
        TIMESTAMP: _timestamps(frame, dataset, faults),
    }
    is_unparsed = {}
    for name, column in dataset.columns.items():
        if column.type == "float":
            columns[name], is_unparsed[name] = parse_numbers(frame[name])
            faults.add(f"{name}: not a number", is_unparsed[name])
        else:
            columns[name] = parse_categories(frame[name])
    canonical = pd.DataFrame(columns)
    check_values(canonical, dataset, is_unparsed, faults)
    return canonical


def _entities(frame: pd.DataFrame, dataset: DatasetConfig, faults: Faults) -> npt.NDArray[Any]:
    if dataset.entity_column is None:
        if dataset.kind == "timeseries":
            return np.full(len(frame), SINGLE_ENTITY, dtype=np.int64)
        return np.arange(len(frame), dtype=np.int64)
    values = frame[dataset.entity_column]
    entities, is_faulty = parse_entities(values, dataset.max_bad_fraction)
    faults.add(f"{dataset.entity_column}: missing", values.isna().to_numpy())
    faults.add(f"{dataset.entity_column}: not a whole number, as the other entities are", is_faulty)
    return entities


def _timestamps(frame: pd.DataFrame, dataset: DatasetConfig, faults: Faults) -> npt.NDArray[np.datetime64]:
    if dataset.time_column is None:
        return np.full(len(frame), TIMELESS)
    values = frame[dataset.time_column]
    times, is_faulty = parse_times(values)
    faults.add(f"{dataset.time_column}: missing", values.isna().to_numpy())
    faults.add(f"{dataset.time_column}: not an ISO 8601 time", is_faulty)
    return times


def _add_duplicates(canonical: pd.DataFrame, dataset: DatasetConfig, faults: Faults) -> None:
    """Note duplicates among the rows that are good so far, so that a bad first row does not displace a good copy."""
    found = find_duplicates(canonical[~faults.is_bad], list(dataset.columns))
    faults.add_rows("duplicate row", found.exact)
    texts = [f"conflicting duplicate of row {row}" for row in found.conflicts_with]
    faults.add_rows("conflicting duplicate", found.conflicting, texts)


def _refuse_bad_data(frame: pd.DataFrame, dataset: DatasetConfig, faults: Faults) -> None:
    bad = np.flatnonzero(faults.is_bad)
    fraction = len(bad) / len(frame)
    if len(bad) < len(frame) and fraction <= dataset.max_bad_fraction:
        return
    counts = ", ".join(f"{kind} ({count})" for kind, count in faults.counts().items())
    examples = "".join(
        f"\n  row {row}: {reason}: {frame.iloc[row].to_dict()}"
        for row, reason in zip(bad[:EXAMPLES], faults.reasons(bad[:EXAMPLES]), strict=True)
    )
    raise DataError(
        f"dataset {dataset.name!r}: {len(bad)} of {len(frame)} rows ({fraction:.1%}) are bad, but max_bad_fraction "
        f"allows {dataset.max_bad_fraction:.1%} and one row at least must be good. Reasons: {counts}. "
        f"First bad rows:{examples}\n"
        "Correct the data or the dataset's columns, frequency and source.options, or raise max_bad_fraction"
    )


def _canonical(good: pd.DataFrame, dataset: DatasetConfig) -> pd.DataFrame:
    rows = good.sort_values([ENTITY, TIMESTAMP], kind="stable", ignore_index=True)
    rows[TIMESTAMP] = rows[TIMESTAMP].dt.tz_localize("UTC")
    return rows.astype(dict.fromkeys(dataset.float_columns, np.float32))


def _quarantine(frame: pd.DataFrame, faults: Faults) -> pd.DataFrame:
    bad = np.flatnonzero(faults.is_bad)
    columns: dict[str, Any] = {ROW: bad.astype(np.int64), REASON: np.array(faults.reasons(bad), dtype=object)}
    for name in frame.columns:
        own = f"{name}_original" if name in (ROW, REASON) else str(name)
        columns[own] = _text(frame[name].iloc[bad])
    return pd.DataFrame(columns)


def _text(values: pd.Series) -> npt.NDArray[np.object_]:
    return np.array([None if pd.isna(cell) else str(cell) for cell in values], dtype=object)
