"""The pandera schema of a dataset: what a parsed cell may be. Dataset configuration in, faults out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ColumnConfig, DatasetConfig
from mlplatform.data.faults import Faults

if TYPE_CHECKING:
    import pandera.pandas as pa

NOT_NULLABLE = "not_nullable"


def build_schema(dataset: DatasetConfig) -> pa.DataFrameSchema:
    """Return the schema of a frame with the dataset's columns, float64 for numbers and object for categories."""
    import pandera.pandas as pa

    columns = {}
    for name, column in dataset.columns.items():
        dtype = np.float64 if column.type == "float" else object
        columns[name] = pa.Column(dtype, checks=_checks(column), nullable=column.nullable)
    return pa.DataFrameSchema(columns, name=dataset.name)


def check_values(
    frame: pd.DataFrame, dataset: DatasetConfig, is_unparsed: dict[str, npt.NDArray[np.bool_]], faults: Faults
) -> None:
    """Note every cell of a parsed frame that the schema refuses.

    Parameters:
        frame: with a RangeIndex, the row numbers.
        is_unparsed: per column, the cells that are empty only because they did not parse.
    """
    from pandera.errors import SchemaErrors

    try:
        build_schema(dataset).validate(frame[list(dataset.columns)], lazy=True)
    except SchemaErrors as error:
        failures = error.failure_cases
    else:
        return
    for (column, check), rows in failures.groupby(["column", "check"], sort=False)["index"]:
        numbers = np.sort(rows.to_numpy(dtype=np.int64))
        if check == NOT_NULLABLE:
            numbers = numbers[~is_unparsed[column][numbers]] if column in is_unparsed else numbers
            check = "missing, but the column is not nullable"
        faults.add_rows(f"{column}: {check}", numbers)


def _checks(column: ColumnConfig) -> list[pa.Check]:
    import pandera.pandas as pa

    if column.type != "float":
        return []
    checks = [pa.Check(_fits_float32, error="not a finite 32-bit number")]
    if column.min is not None:
        checks.append(pa.Check.ge(column.min, error=f"below the minimum {column.min:g}"))
    if column.max is not None:
        checks.append(pa.Check.le(column.max, error=f"above the maximum {column.max:g}"))
    return checks


def _fits_float32(values: pd.Series) -> pd.Series:
    return values.abs() <= float(np.finfo(np.float32).max)
