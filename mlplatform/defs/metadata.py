"""Asset metadata that people read: tables, plots and links."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import MarkdownMetadataValue, MetadataValue, UrlMetadataValue

from mlplatform.settings import Settings

LOCAL_MLFLOW = "http://127.0.0.1:5000"


def table(rows: Sequence[Mapping[str, Any]]) -> MarkdownMetadataValue:
    """Return rows as a Markdown table; columns in order of first appearance."""
    if not rows:
        return MetadataValue.md("none")
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return MetadataValue.md("\n".join(lines))


def picture(png: bytes, title: str) -> MarkdownMetadataValue:
    """Return a PNG as metadata that the Dagster page shows."""
    return MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def run_link(settings: Settings, experiment: str, run_id: str) -> UrlMetadataValue:
    """Return a link to an MLflow run: on the tracking server, or on the page that `make mlflow` opens."""
    from mlplatform.registry import experiment_id

    uri = settings.mlflow_tracking_uri
    server = uri.rstrip("/") if uri.startswith("http") else LOCAL_MLFLOW
    return MetadataValue.url(f"{server}/#/experiments/{experiment_id(settings, experiment)}/runs/{run_id}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
