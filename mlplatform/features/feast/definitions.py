"""Feast objects of a dataset: its entity, its sources and its feature views.

Every view has a push source on top of its file source: history and materialisation read the files, and rows can be
pushed to the online store as they arrive. Built from the dataset's configuration, so a new dataset needs no Python. The
type of the entity ids is read from the stored table, because the configuration does not state it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.config import ENTITY, TIMESTAMP, ColumnConfig, DatasetConfig
from mlplatform.feast_import import import_feast
from mlplatform.features.tables import WINDOW_END, WINDOW_PREFIX, features_path, require_table, windows_path
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from feast import Entity, FeatureView, Field, PushSource

# Feature values do not expire: on a regular grid a missing value is a row of nulls, not an older row, and how old an
# answer may be is for the reader to judge. Feast writes "for ever" as zero, but then `feast materialize-incremental`
# starts one year back and would skip older data; a century covers every dataset and means the same.
TTL = dt.timedelta(days=36_525)


@dataclass(frozen=True)
class FeastObjects:
    """The Feast objects of one dataset; `windows` is `None` for tabular data."""

    entity: Entity
    features: FeatureView
    windows: FeatureView | None

    def __iter__(self) -> Iterator[Any]:
        return iter([self.entity, self.features, *([self.windows] if self.windows is not None else [])])


def entity_name(dataset: DatasetConfig) -> str:
    """Return the name of the dataset's entity."""
    return f"{dataset.name}_entity"


def features_view_name(dataset: DatasetConfig) -> str:
    """Return the name of the view of scalar features."""
    return f"{dataset.name}_features"


def windows_view_name(dataset: DatasetConfig) -> str:
    """Return the name of the view of window arrays."""
    return f"{dataset.name}_windows"


def push_source_name(view: str) -> str:
    """Return the name under which `FeatureStore.push` writes to a view."""
    return f"{view}_push"


def build_definitions(dataset: DatasetConfig, settings: Settings) -> FeastObjects:
    """Return the Feast objects of a dataset.

    Raises:
        FeatureStoreError: if its feature table does not exist.
    """
    import_feast()
    from feast import Entity, FeatureView, Field, ValueType
    from feast.types import Int64, String

    path = require_table(features_path(dataset, settings), dataset)
    has_text_ids = _has_text_ids(path)
    entity = Entity(
        name=entity_name(dataset),
        join_keys=[ENTITY],
        value_type=ValueType.STRING if has_text_ids else ValueType.INT64,
        description=f"An entity of the dataset {dataset.name}",
        tags={"dataset": dataset.name},
    )
    key = Field(name=ENTITY, dtype=String if has_text_ids else Int64)
    scalars = [_field(name, column, "") for name, column in dataset.columns.items()]
    features = FeatureView(
        name=features_view_name(dataset),
        entities=[entity],
        ttl=TTL,
        schema=[key, *scalars],
        source=_source(features_view_name(dataset), path),
        description=f"{dataset.description or dataset.name}: one row per entity and time",
        tags=_view_tags(dataset),
    )
    if dataset.kind != "timeseries":
        return FeastObjects(entity, features, None)
    arrays = [_field(name, column, WINDOW_PREFIX) for name, column in dataset.columns.items()]
    end = Field(name=WINDOW_END, dtype=Int64, description="Time of the last step", tags={"unit": "ns since 1970 UTC"})
    windows = FeatureView(
        name=windows_view_name(dataset),
        entities=[entity],
        ttl=TTL,
        schema=[key, *arrays, end],
        source=_source(windows_view_name(dataset), windows_path(dataset, settings)),
        description=f"{dataset.description or dataset.name}: the newest {dataset.window_steps} steps as arrays",
        tags={**_view_tags(dataset), "steps": str(dataset.window_steps)},
    )
    return FeastObjects(entity, features, windows)


def _field(name: str, column: ColumnConfig, prefix: str) -> Field:
    from feast import Field
    from feast.types import Array, Float32, String

    scalar = Float32 if column.type == "float" else String
    return Field(
        name=f"{prefix}{name}",
        dtype=Array(scalar) if prefix else scalar,
        description=column.description,
        tags={"unit": column.unit} if column.unit else {},
    )


def _source(view: str, path: Path) -> PushSource:
    from feast import FileSource, PushSource
    from feast.data_format import ParquetFormat

    files = FileSource(name=f"{view}_source", path=str(path), timestamp_field=TIMESTAMP, file_format=ParquetFormat())
    return PushSource(name=push_source_name(view), batch_source=files)


def _view_tags(dataset: DatasetConfig) -> dict[str, str]:
    tags = {"dataset": dataset.name, "kind": dataset.kind}
    return tags if dataset.frequency is None else {**tags, "frequency": dataset.frequency}


def _has_text_ids(folder: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return not pa.types.is_integer(pq.read_schema(next(folder.glob("*.parquet"))).field(ENTITY).type)
