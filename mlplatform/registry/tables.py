"""Rows to panels and answers to tables, as the registered pyfuncs read and write them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.datamodule.panel import Float32, Panel
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.registry.forecaster import Contract


def input_panel(contract: Contract, rows: pd.DataFrame) -> Panel:
    """Return rows, raw or preprocessed, as a panel; tabular rows may come without entity and time.

    Raises:
        ValueError: if a column is missing.
    """
    rows = with_keys(contract, rows)
    missing = [name for name in (ENTITY, TIMESTAMP, *contract.columns) if name not in rows]
    if missing:
        raise ValueError(f"missing columns: {', '.join(missing)}")
    return Panel.from_frame(rows, contract.columns)


def with_keys(contract: Contract, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of the rows in which tabular rows have an entity and a time."""
    rows = rows.copy()
    if contract.task != "forecast":
        if ENTITY not in rows:
            rows[ENTITY] = np.arange(len(rows))
        if TIMESTAMP not in rows:
            rows[TIMESTAMP] = pd.Timestamp("2000-01-01", tz="UTC")
    return rows


def prepared_table(contract: Contract, preprocessor: TransformManager, rows: pd.DataFrame) -> pd.DataFrame:
    """Return entity, time and the preprocessed columns, one row per raw row: what the registered model reads."""
    rows = with_keys(contract, rows)
    names = [name for name in preprocessor.columns if name in rows]
    prepared = preprocessor.transform(Panel.from_frame(rows, names))
    columns = {name: prepared.columns[name] for name in names}
    return pd.DataFrame({ENTITY: rows[ENTITY], TIMESTAMP: rows[TIMESTAMP], **columns}, index=rows.index)


def answer_table(contract: Contract, panel: Panel, answers: Float32) -> pd.DataFrame:
    """Return answers as a table: see `ForecasterPyFunc.predict`."""
    if contract.task == "classification":
        return pd.DataFrame(answers, columns=[f"probability_{label}" for label in contract.classes])
    if contract.task == "regression":
        return pd.DataFrame({contract.targets[0]: answers})
    last = panel.timestamps[panel.offsets[1:] - 1]
    ahead = np.arange(1, contract.horizon + 1) * np.timedelta64(contract.step_seconds, "s")
    return pd.DataFrame(
        {
            ENTITY: np.repeat(panel.entity_ids, contract.horizon),
            TIMESTAMP: pd.DatetimeIndex((last[:, None] + ahead[None, :]).ravel(), tz="UTC"),
            **{target: answers[:, :, position].ravel() for position, target in enumerate(contract.targets)},
        }
    )
