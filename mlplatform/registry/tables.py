"""Rows to panels and answers to tables, as the registered pyfuncs read and write them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.datamodule import Panel, to_utc_ns
from mlplatform.preprocessing import TransformManager
from mlplatform.registry.forecaster import Answers, Contract


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


def answer_columns(contract: Contract, *, has_intervals: bool) -> tuple[str, ...]:
    """Return the names of the columns that hold predictions."""
    if contract.task == "classification":
        return tuple(f"probability_{label}" for label in contract.classes)
    suffixes = ("", "_lower", "_upper") if has_intervals else ("",)
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
    arrays = [array for array in answers[:3] if array is not None]
    names = answer_columns(contract, has_intervals=len(arrays) > 1)
    width = 1 if contract.task == "regression" else arrays[0].shape[-1]
    values = np.hstack([array.reshape(-1, width) for array in arrays])
    if contract.task != "forecast":
        return pd.DataFrame(values, columns=list(names))
    return pd.DataFrame(
        {
            ENTITY: np.repeat(entity_ids, contract.horizon),
            TIMESTAMP: pd.DatetimeIndex(contract.moments_ahead(last).ravel(), tz="UTC"),
            **{name: values[:, position] for position, name in enumerate(names)},
        }
    )
