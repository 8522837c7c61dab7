"""Small sources, feature views and entity rows for the tests of the as-of store; times are minutes since `START`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.types import Int64, String

from mlplatform.features.asof.store import AsOfOfflineStore

ASOF = "mlplatform.features.asof.store.AsOfOfflineStore"
START = pd.Timestamp("2024-01-01", tz="UTC")
KEY = Entity(name="machine", join_keys=["machine_id"], value_type=ValueType.INT64)
SITE = Entity(name="site", join_keys=["site_id"], value_type=ValueType.STRING)
VALUE = Field(name="value", dtype=Int64)


def minute(value: float | None) -> pd.Timestamp:
    return pd.NaT if pd.isna(value) else START + pd.Timedelta(minutes=value)


def config(folder: Path, store: str = ASOF, **options: Any) -> RepoConfig:
    return RepoConfig(
        project="tests",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": store, **options},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
        repo_path=folder,
    )


def view(
    folder: Path,
    rows: pd.DataFrame,
    *,
    name: str = "stats",
    entities: Sequence[Entity] = (KEY,),
    features: Sequence[Field] = (VALUE,),
    **options: Any,
) -> FeatureView:
    """Return a view of rows that are written to `folder`."""
    path = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)
    return view_of(path, name=name, entities=entities, features=features, **options)


def view_of(
    path: Path | str,
    *,
    name: str = "stats",
    entities: Sequence[Entity] = (KEY,),
    features: Sequence[Field] = (VALUE,),
    **options: Any,
) -> FeatureView:
    """Return a view of a file or folder that is there already."""
    names = ("created_timestamp_column", "field_mapping", "s3_endpoint_override", "connection_ref")
    source_options = {key: options.pop(key) for key in names if key in options}
    timestamp = options.pop("timestamp_field", "at")
    source = FileSource(name=f"{name}_source", path=str(path), timestamp_field=timestamp, **source_options)
    keys = [Field(name=key, dtype=String if key == "site_id" else Int64) for key in (e.join_key for e in entities)]
    return FeatureView(name=name, entities=list(entities), schema=[*keys, *features], source=source, **options)


def job(
    folder: Path,
    views: Sequence[FeatureView],
    refs: list[str],
    entity_df: pd.DataFrame | str | None,
    *,
    store: Any = AsOfOfflineStore,
    store_type: str = ASOF,
    store_options: dict[str, Any] | None = None,
    **options: Any,
) -> RetrievalJob:
    registry = Mock(list_on_demand_feature_views=Mock(return_value=[]))
    repo = config(folder, store_type, **(store_options or {}))
    return store.get_historical_features(repo, list(views), refs, entity_df, registry, "tests", **options)


def join(
    folder: Path, views: Sequence[FeatureView], refs: list[str], entity_df: pd.DataFrame | str | None, **options: Any
) -> pd.DataFrame:
    return job(folder, views, refs, entity_df, **options).to_df()


def machines(rows: Sequence[tuple[Any, ...]], columns: Sequence[str] = ("machine_id", "at", "value")) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    for name in ("at", "created"):
        if name in frame:
            frame[name] = pd.to_datetime([minute(value) for value in frame[name]], utc=True)
    return frame


def asked(rows: Sequence[tuple[int | None, float]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "machine_id": pd.array([key for key, _ in rows], dtype="Int64"),
            "event_timestamp": pd.to_datetime([minute(time) for _, time in rows], utc=True),
        }
    )


def values(frame: pd.DataFrame, name: str = "value") -> list[Any]:
    return [None if pd.isna(value) else value for value in frame[name]]
