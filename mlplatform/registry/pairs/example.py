"""The input example of a pair: raw rows stored with the answer they had, for anyone to reproduce bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.datamodule import Float32, padded
from mlplatform.registry.forecaster import Contract, Forecaster
from mlplatform.registry.tables import input_panel

if TYPE_CHECKING:
    import pandas as pd

ROWS_FILE, ANSWER_FILE = "rows.parquet", "answer.npy"
ENTITIES, TABULAR_ROWS = 2, 5


def example_rows(contract: Contract, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the newest rows of a few entities, just enough for one prediction each; a few rows of tabular data.

    Where the pair reads a history that no entity has all of, rows without values come before theirs.

    Parameters:
        frame: raw rows in canonical form, ordered by entity and time.

    Raises:
        ValueError: if no entity has enough rows.
    """
    columns = [ENTITY, TIMESTAMP, *contract.columns]
    if contract.task != "forecast":
        return frame[columns].head(TABULAR_ROWS).reset_index(drop=True)
    needed = contract.input_rows + contract.future_rows
    lengths = frame.groupby(ENTITY, sort=False).size()
    if contract.history and (lengths < needed).all():
        frame = padded(frame[columns], contract.calendar, contract.padding)
        lengths = frame.groupby(ENTITY, sort=False).size()
    entities = lengths.index[lengths >= needed][:ENTITIES]
    if not len(entities):
        raise ValueError(f"no entity has the {needed} rows that one forecast needs, so no input example can be stored")
    rows = frame.loc[frame[ENTITY].isin(entities), columns].groupby(ENTITY, sort=False).tail(needed)
    rows = rows.reset_index(drop=True)
    if contract.future_rows:
        # As a request has it: of the future, only what is known.
        ahead = rows.groupby(ENTITY, sort=False).cumcount() >= contract.input_rows
        rows.loc[ahead, [name for name in contract.columns if name not in contract.known]] = None
    return rows


def write_example(folder: Path, rows: pd.DataFrame, answer: Float32) -> None:
    """Write rows and answer into a new folder."""
    folder.mkdir()
    rows.to_parquet(folder / ROWS_FILE, index=False)
    np.save(folder / ANSWER_FILE, answer, allow_pickle=False)


def read_example(folder: Path) -> tuple[pd.DataFrame, Float32]:
    """Return the rows and the answer they had, of the shape that `Forecaster.predict` returns."""
    import pandas as pd

    return pd.read_parquet(folder / ROWS_FILE), np.load(folder / ANSWER_FILE, allow_pickle=False)


def confirm_inference(forecaster: Forecaster, rows: pd.DataFrame) -> None:
    """Have the model compare its faster way of answering, if it has one, with the model as fitted on an example."""
    forecaster.model.confirm_inference(forecaster.preprocess(input_panel(forecaster.contract, rows)))


def differences(forecaster: Forecaster, rows: pd.DataFrame, answer: Float32) -> list[str]:
    """Return what a pair answers differently for the rows, comparing bits; empty if nothing."""
    found = forecaster.predict(input_panel(forecaster.contract, rows))
    if found.shape != answer.shape:
        return [f"the answer has shape {found.shape} instead of {answer.shape}"]
    wrong = np.argwhere(found.view(np.uint32) != answer.view(np.uint32))
    if not len(wrong):
        return []
    first = tuple(wrong[0].tolist())
    return [
        f"{len(wrong)} of {answer.size} values differ, first at {first}: {found[first]!r} instead of {answer[first]!r}"
    ]
