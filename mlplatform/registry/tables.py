"""Rows to panels and answers to tables, as the registered pyfuncs read and write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, bound_names
from mlplatform.datamodule import Panel, to_utc_ns
from mlplatform.models import Bounds
from mlplatform.preprocessing import TransformManager
from mlplatform.registry.forecaster import Answers, Contract

if TYPE_CHECKING:
    import pyarrow as pa


def input_panel(contract: Contract, rows: pd.DataFrame) -> Panel:
    """Return rows, raw or preprocessed, as a panel; tabular rows may come without entity and time.

    Rows of a forecast may come in any order: entities keep the order in which they first appear, and each gets its rows
    by time.

    Raises:
        ValueError: if a column is missing, or a series has two rows of one time.
    """
    rows = with_keys(contract, rows)
    missing = [name for name in (ENTITY, TIMESTAMP, *contract.columns) if name not in rows]
    if missing:
        raise ValueError(f"missing columns: {', '.join(missing)}")
    return Panel.from_frame(in_order(contract, rows), contract.columns)


def require_rows(panel: Panel, needed: int) -> None:
    """Check that every series has as many rows as one forecast needs; a window would begin in the series before it.

    Raises:
        ValueError: naming the series that have fewer.
    """
    lengths = np.diff(panel.offsets)
    short = np.flatnonzero(lengths < needed)
    if len(short):
        ids = panel.entity_ids.tolist()
        named = ", ".join(f"{ids[number]!r} ({lengths[number]} rows)" for number in short[:10])
        raise ValueError(
            f"{len(short)} series have fewer than the {needed} rows that a forecast needs: {named}; leave them out"
        )


def in_order(contract: Contract, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a forecast entity by entity and by time; tabular rows as they are."""
    if contract.task != "forecast":
        return rows
    codes, times = pd.factorize(rows[ENTITY])[0], to_utc_ns(rows[TIMESTAMP])
    order = np.lexsort((times, codes))
    return rows if (order == np.arange(len(rows))).all() else rows.iloc[order]


def with_keys(contract: Contract, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of the rows in which tabular rows have an entity, by default their number, and a time or NaT."""
    rows = rows.copy()
    if contract.task != "forecast":
        if ENTITY not in rows:
            rows[ENTITY] = np.arange(len(rows))
        if TIMESTAMP not in rows:
            rows[TIMESTAMP] = pd.Series(pd.NaT, rows.index, "datetime64[ns, UTC]")
    return rows


def prepared_table(contract: Contract, preprocessor: TransformManager, rows: pd.DataFrame) -> pd.DataFrame:
    """Return entity, time and the preprocessed columns, one row per raw row: what the registered model reads.

    Rows of a forecast come out entity by entity and by time.
    """
    rows = in_order(contract, with_keys(contract, rows))
    names = [name for name in preprocessor.columns if name in rows]
    prepared = preprocessor.transform(Panel.from_frame(rows, names))
    columns = {name: prepared.columns[name] for name in names}
    return pd.DataFrame({ENTITY: rows[ENTITY], TIMESTAMP: rows[TIMESTAMP], **columns}, index=rows.index)


def answer_columns(contract: Contract, coverages: Sequence[float]) -> tuple[str, ...]:
    """Return the names of the columns that hold predictions.

    Parameters:
        coverages: of the prediction intervals, the main one first.
    """
    if contract.task == "classification":
        return tuple(f"probability_{label}" for label in contract.classes)
    suffixes = ("", *(end for both in bound_names(coverages).values() for end in both))
    return tuple(f"{target}{suffix}" for suffix in suffixes for target in contract.targets)


def answer_table(contract: Contract, panel: Panel, answers: Answers) -> pd.DataFrame:
    """Return answers as a table: see `ForecasterPyFunc.predict`."""
    last = panel.timestamps[panel.offsets[1:] - 1 - contract.future_rows]
    return table_of_answers(contract, panel.entity_ids, last, answers)


def table_of_answers(
    contract: Contract, entity_ids: npt.NDArray[np.generic], last: npt.NDArray[np.datetime64], answers: Answers
) -> pd.DataFrame:
    """Return answers as `answer_table` does.

    Parameters:
        last: of shape (n,), the last moment that each answer looked at; not read for tabular answers.
    """
    names = answer_columns(contract, answers.coverages)
    width = 1 if contract.task == "regression" else answers.point.shape[-1]
    values = np.hstack([array.reshape(-1, width) for array in answers.arrays])
    if contract.task != "forecast":
        return pd.DataFrame(values, columns=list(names))
    return pd.DataFrame(
        {
            ENTITY: np.repeat(entity_ids, contract.horizon),
            TIMESTAMP: pd.DatetimeIndex(contract.moments_ahead(last).ravel(), tz="UTC"),
            **{name: values[:, position] for position, name in enumerate(names)},
        }
    )


def interval_type(number: pa.DataType) -> pa.DataType:
    """Return the type of a column with the intervals of all coverages of a row."""
    import pyarrow as pa

    return pa.list_(pa.struct([("coverage", pa.float64()), ("lower", number), ("upper", number)]))


def interval_lists(bounds: Sequence[Bounds], is_missing: npt.NDArray[np.bool_], number: pa.DataType) -> pa.ListArray:
    """Return the intervals of all coverages of some rows, as one list per row in the order given.

    Parameters:
        bounds: of shape (rows,).
        is_missing: of shape (rows,): which rows have no interval; their list is null.
    """
    import pyarrow as pa

    kind, rows = interval_type(number), len(is_missing)
    sides = [np.stack([each[side] for each in bounds], axis=1).reshape(-1) for side in (0, 1)]
    columns = [np.tile([each.coverage for each in bounds], rows), *sides]
    fields = list(kind.value_type)
    items = pa.StructArray.from_arrays(
        [pa.array(values).cast(field.type) for values, field in zip(columns, fields, strict=True)], fields=fields
    )
    # A null as its start marks a list as null.
    starts = pa.array(np.arange(rows + 1) * len(bounds), pa.int32(), mask=np.append(is_missing, False))
    return pa.ListArray.from_arrays(starts, items, kind)
