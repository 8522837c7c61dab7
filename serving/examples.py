"""Requests that the served pair answers, made of its stored example: what the documentation pages show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from serving.backend import Served

if TYPE_CHECKING:
    import pandas as pd


def example_of(rows: pd.DataFrame, dataset: DatasetConfig) -> tuple[dict[str, Any], ...]:
    """Return the rows of a pair's stored example as a client would send them.

    Columns of the dataset that the pair does not read are null: they are needed where rows go to the feature store.
    """
    import pandas as pd

    sent = rows.astype(object).where(rows.notna(), None)
    if TIMESTAMP in sent:
        sent[TIMESTAMP] = [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in pd.to_datetime(rows[TIMESTAMP])]
    unread = dict.fromkeys(dataset.columns)
    return tuple({**unread, **{str(name): value for name, value in row.items()}} for row in sent.to_dict("records"))


def example_rows(served: Served) -> list[dict[str, Any]]:
    """Return the rows of one prediction: those of one entity, or a row of a table."""
    contract, rows = served.pair.contract, served.example
    if contract.task == "forecast":
        names: tuple[str, ...] = (ENTITY, TIMESTAMP, *contract.columns)
        rows = tuple(row for row in rows if row[ENTITY] == rows[0][ENTITY])
    else:
        names, rows = contract.columns, rows[:1]
    return [{name: row[name] for name in names} for row in rows]


def example_entities(served: Served) -> list[Any]:
    """Return ids of the served pair's dataset."""
    return list(dict.fromkeys(row[ENTITY] for row in served.example))


def rows_request(served: Served) -> dict[str, Any]:
    """Return a request of `/predict`."""
    return {"rows": example_rows(served)}


def entities_request(served: Served) -> dict[str, Any]:
    """Return a request of `/predict/feast/batch`; for a model that reads the future the feature store must know it."""
    return {"entities": example_entities(served), "time_point": "now"}
