"""Asset metadata that people read: tables, plots and links."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dagster import (
    MarkdownMetadataValue,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableSchema,
    UrlMetadataValue,
)

from mlplatform.config import ENTITY, TIMESTAMP, ColumnConfig, DatasetConfig
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

COLUMN_SCHEMA = "dagster/column_schema"
LOCAL_MLFLOW = "http://127.0.0.1:5000"


def table(rows: Sequence[Mapping[str, Any]]) -> MarkdownMetadataValue:
    """Return rows as a Markdown table; columns in order of first appearance."""
    if not rows:
        return MetadataValue.md("none")
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return MetadataValue.md("\n".join(lines))


def frame_table(frame: pd.DataFrame) -> MarkdownMetadataValue:
    """Return the rows of a frame as a Markdown table."""
    return table([dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)])


def picture(png: bytes, title: str) -> MarkdownMetadataValue:
    """Return a PNG as metadata that the Dagster page shows."""
    return MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def column_schema(
    dataset: DatasetConfig,
    types: Mapping[str, str] | None = None,
    *,
    has_gaps: bool = False,
    marks: Mapping[str, str] | None = None,
) -> dict[str, TableSchema]:
    """Return, as metadata, the columns of a table of a dataset with their units, limits and descriptions.

    Parameters:
        types: types by column, where they are known; by default those of the configuration.
        has_gaps: whether steps without a measurement are rows without values.
        marks: columns that the table has beside the dataset's, with their descriptions.
    """
    # An id is a number or a text, which only the data tells.
    keys = {ENTITY: ("int64 or string", "The entity."), TIMESTAMP: ("timestamp[ns, tz=UTC]", "The time of the row.")}
    given, never = types or {}, TableColumnConstraints(nullable=False)
    columns = [
        *(TableColumn(name, given.get(name, kind), text, never) for name, (kind, text) in keys.items()),
        *(_column(name, column, given, has_gaps) for name, column in dataset.columns.items()),
        *(TableColumn(name, given.get(name, "bool"), text, never) for name, text in (marks or {}).items()),
    ]
    return {COLUMN_SCHEMA: TableSchema(columns=columns)}


def _column(name: str, column: ColumnConfig, types: Mapping[str, str], has_gaps: bool) -> TableColumn:
    limits = {"unit": column.unit or None, ">=": column.min, "<=": column.max}
    return TableColumn(
        name,
        types.get(name, "float" if column.type == "float" else "string"),
        column.description or None,
        TableColumnConstraints(
            nullable=column.nullable or has_gaps,
            other=[f"{word} {value}" for word, value in limits.items() if value is not None],
        ),
    )


def run_link(settings: Settings, experiment: str, run_id: str, artifact: str = "") -> UrlMetadataValue:
    """Return a link to an MLflow run: on the tracking server, or on the page that `make mlflow` opens.

    Parameters:
        artifact: path of the run's artifact that is to be shown; default: the run itself.
    """
    from mlplatform.registry import experiment_id

    uri = settings.mlflow_tracking_uri
    server = uri.rstrip("/") if uri.startswith("http") else LOCAL_MLFLOW
    shown = f"/artifacts/{artifact}" if artifact else ""
    return MetadataValue.url(f"{server}/#/experiments/{experiment_id(settings, experiment)}/runs/{run_id}{shown}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
