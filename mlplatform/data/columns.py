"""Which columns of a source a dataset reads, and the check that they are there."""

from __future__ import annotations

from collections.abc import Iterable

from mlplatform.config import DatasetConfig
from mlplatform.data.errors import DataError

# What a source calls the column of its marks where the dataset names none: a stream's messages without a value.
MARK = "__removed__"
# Where a row stands, in frames of sources that read files: the file's name, and its line (of a sheet, its row) from 1.
FILE, LINE = "__file__", "__line__"


def source_columns(dataset: DatasetConfig) -> tuple[str, ...]:
    """Return the names of the columns to read: time, entity and mark, where there are any, then the data columns."""
    keys = (dataset.time_column, dataset.entity_column, dataset.removed_column)
    return (*(name for name in keys if name is not None), *dataset.columns)


def mark_column(dataset: DatasetConfig) -> str:
    """Return the name of the column that says which rows stand for the removal of their entity."""
    return dataset.removed_column or MARK


def require_columns(found: Iterable[object], dataset: DatasetConfig, where: str, hint: str = "") -> None:
    """Check that a source has every column of the dataset, each once.

    Parameters:
        found: the column names of the source.
        where: what the source is called in the message, for example a path.
        hint: what else to do, appended to the message.

    Raises:
        DataError: if a column is missing or there twice.
    """
    names = [str(name) for name in found]
    missing = [name for name in source_columns(dataset) if name not in names]
    if missing:
        what = []
        if dataset.time_column in missing:
            what.append(f"the time column {dataset.time_column!r}")
        if dataset.entity_column in missing:
            what.append(f"the entity column {dataset.entity_column!r}")
        if dataset.removed_column in missing:
            what.append(f"the removed column {dataset.removed_column!r}")
        data = [repr(name) for name in missing if name in dataset.columns]
        if data:
            what.append(f"the data column{'s' if len(data) > 1 else ''} {', '.join(data)}")
        raise DataError(
            f"dataset {dataset.name!r}: {where} lacks {' and '.join(what)}; "
            f"columns found: {', '.join(names) or 'none'}. "
            "Correct the source, its source.rename, or time_column, entity_column, removed_column and columns of the "
            f"dataset. {hint}".rstrip()
        )
    twice = sorted({name for name in source_columns(dataset) if names.count(name) > 1})
    if twice:
        raise DataError(
            f"dataset {dataset.name!r}: {where} has more than one column named {', '.join(twice)}; rename one there"
        )
