"""The as-of offline store: Feast's `OfflineStore` on DuckDB's `ASOF JOIN` over Parquet files.

Chosen in `feature_store.yaml` by class path (`offline_store.type`). It answers what Feast's own file stores answer, for
`FileSource` Parquet files and folders, but its cost grows with the rows instead of with each entity's history squared.
Feast subclasses are declared here, so importing this module imports Feast; nothing else should import it directly.
"""

from __future__ import annotations

import datetime as dt
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import (
    DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL,
    get_pyarrow_schema_from_batch_source,
)
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import _get_requested_feature_views_to_features_dict, _get_requested_on_demand_feature_views
from pydantic import PositiveInt, StrictStr

from mlplatform.features.asof_query import (
    ENTITIES,
    ROW,
    TIME,
    ParquetTable,
    ViewJoin,
    latest_sql,
    point_in_time_sql,
    rows_between_sql,
)
from mlplatform.storage import atomic_file

ClassPath = Literal["mlplatform.features.asof_store.AsOfOfflineStore"]


class AsOfOfflineStoreConfig(FeastConfigBaseModel):
    """The `offline_store` section of `feature_store.yaml`.

    Attributes:
        type: class path of the store.
        memory_limit: most memory that a query may take, such as "4GB"; DuckDB spills to disk beyond it.
        threads: threads of a query; default: all cores.
    """

    type: ClassPath = "mlplatform.features.asof_store.AsOfOfflineStore"
    memory_limit: StrictStr | None = None
    threads: PositiveInt | None = None


class AsOfRetrievalJob(RetrievalJob):
    """A query that runs when its result is asked for, and again each time it is asked for."""

    def __init__(
        self,
        evaluate: Callable[[], pa.Table],
        *,
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._metadata = metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002  (Feast's signature)
        return self._evaluate()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    @property
    def full_feature_names(self) -> bool:
        """Whether feature names carry the name of their view."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that the base class computes from the joined features."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata


class AsOfOfflineStore(OfflineStore):
    """Point-in-time joins and table reads over Parquet `FileSource`s.

    An entity row gets, from every view, the newest feature row whose event time is at or before its own and at most
    `ttl` older (boundary included). Of rows with equal key and event time the one created last counts; a missing
    creation time counts as the oldest. Entity rows keep their order, their duplicates and their other columns; without
    a match the features are null. A null join key matches nothing.
    """

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Return a job that joins the features named in `feature_refs` to the rows of `entity_df`.

        Raises:
            ValueError: if `entity_df` is not a DataFrame, lacks its time or a join key, or has a column named like a
                requested feature.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise ValueError(
                f"entity_df must be a pandas DataFrame, but is {type(entity_df).__name__}; the as-of store joins to "
                "given entity rows, for a range of time use pull_all_from_table_or_query"
            )
        if kwargs:
            raise ValueError(f"the as-of store does not support {', '.join(sorted(kwargs))} with an entity_df")
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        by_view, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        joins = [_view_join(config, view, names, full_feature_names) for view, names in by_view.items()]
        time_column = _time_column(entity_df)
        _check_entity_columns(entity_df, joins)
        times = _utc(entity_df[time_column])
        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=[name for name in entity_df.columns if name != time_column],
            min_event_timestamp=times.min().to_pydatetime(),
            max_event_timestamp=times.max().to_pydatetime(),
        )
        return AsOfRetrievalJob(
            lambda: _point_in_time_join(config, entity_df.assign(**{time_column: times}), time_column, joins),
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=metadata,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: dt.datetime,
        end_date: dt.datetime,
    ) -> RetrievalJob:
        """Return a job for the newest row of every key between two moments, both included."""
        table = _table(config, data_source, timestamp_field, created_timestamp_column)
        sql = latest_sql(table, join_key_columns, feature_name_columns, start_date, end_date)
        return AsOfRetrievalJob(lambda: _with_dummy_key(_query(config, sql), join_key_columns))

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: dt.datetime | None = None,
        end_date: dt.datetime | None = None,
    ) -> RetrievalJob:
        """Return a job for all rows between two moments, both included."""
        table = _table(config, data_source, timestamp_field, created_timestamp_column)
        sql = rows_between_sql(table, join_key_columns, feature_name_columns, start_date, end_date)
        return AsOfRetrievalJob(lambda: _with_dummy_key(_query(config, sql), join_key_columns))

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the Parquet file (or folder) of a view.

        Raises:
            ValueError: if the columns of `table` are not those of the source, in its order.
        """
        import pyarrow.parquet as pq

        source = _parquet_source(feature_view.batch_source)
        _, expected = get_pyarrow_schema_from_batch_source(config, source)
        if table.column_names != expected:
            raise ValueError(
                f"feature view {feature_view.name!r}: got columns {table.column_names}, but its source has {expected}"
            )
        target = _path(config, source)
        is_folder = target.is_dir()
        present = pq.ParquetDataset(target).schema if is_folder else pq.read_schema(target)
        rows = table.cast(present)
        if not is_folder:
            rows = pa.concat_tables([pq.read_table(target), rows])
        with atomic_file(target / f"{uuid.uuid4().hex}.parquet" if is_folder else target) as temporary:
            pq.write_table(rows, temporary)
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,  # noqa: ARG004  (Feast's signature)
        logging_config: LoggingConfig,
        registry: BaseRegistry,  # noqa: ARG004  (Feast's signature)
    ) -> None:
        """Add logged features to the Parquet folder that `logging_config` names."""
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise ValueError(f"features are logged to files only, but the destination is {type(destination).__name__}")
        ds.write_dataset(
            pq.read_table(data) if isinstance(data, Path) else data,
            base_dir=FileSource.get_uri_for_file_path(config.repo_path, destination.path),
            basename_template=f"{uuid.uuid4().hex}-{{i}}.parquet",
            partitioning=destination.partition_by,
            format="parquet",
            existing_data_behavior="overwrite_or_ignore",
        )


def _view_join(config: RepoConfig, view: FeatureView, names: Sequence[str], full_names: bool) -> ViewJoin:
    """Translate a feature view to columns of its source, undoing field mappings and applying the join-key map."""
    source = _parquet_source(view.batch_source)
    original = {mapped: column for column, mapped in source.field_mapping.items()}
    entity_columns = [field.name for field in view.entity_columns if field.name != DUMMY_ENTITY_ID]
    prefix = f"{view.projection.name_alias or view.name}__" if full_names else ""
    created = source.created_timestamp_column
    return ViewJoin(
        table=ParquetTable(
            location=_location(config, source),
            timestamp=original.get(source.timestamp_field, source.timestamp_field),
            created=original.get(created, created) if created else None,
        ),
        keys=tuple((original.get(name, name), view.projection.join_key_map.get(name, name)) for name in entity_columns),
        features=tuple((original.get(name, name), f"{prefix}{name}") for name in names),
        ttl=view.ttl,
    )


def _time_column(entity_df: pd.DataFrame) -> str:
    if DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL in entity_df:
        return DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL
    times = [str(name) for name in entity_df.select_dtypes(include=["datetime", "datetimetz"]).columns]
    if len(times) != 1:
        raise ValueError(
            f"entity_df must have a column {DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL!r} or exactly one time column, "
            f"but its time columns are {times}"
        )
    return times[0]


def _utc(times: pd.Series) -> pd.Series:
    # `pandas.to_datetime` looks through a column that already has the right type, which is slower than the join.
    is_aware = isinstance(times.dtype, pd.DatetimeTZDtype)
    utc: pd.Series = times.dt.tz_convert("UTC") if is_aware else pd.to_datetime(times, utc=True)
    return utc


def _check_entity_columns(entity_df: pd.DataFrame, joins: Sequence[ViewJoin]) -> None:
    columns = [str(name) for name in entity_df.columns]
    missing = sorted({column for join in joins for _, column in join.keys} - set(columns))
    if missing:
        raise ValueError(f"entity_df lacks the join keys {missing}; its columns are {columns}")
    taken = sorted({name for join in joins for _, name in join.features} & set(columns))
    if taken:
        raise ValueError(f"entity_df already has columns {taken}; rename them or use full_feature_names")


def _point_in_time_join(
    config: RepoConfig, entity_df: pd.DataFrame, time_column: str, joins: Sequence[ViewJoin]
) -> pa.Table:
    """Return `entity_df` with the features appended.

    Only keys and times go through DuckDB. The other columns are put beside the result as they were, so that none of
    them is converted.
    """
    rows = pa.Table.from_pandas(entity_df, preserve_index=False)
    keys = list(dict.fromkeys(column for join in joins for _, column in join.keys))
    entities = rows.select(keys)
    entities = entities.append_column(ROW, pa.array(np.arange(rows.num_rows)))
    times = rows.column(time_column).cast(pa.timestamp("us", tz="UTC"), safe=False)
    entities = entities.append_column(TIME, times)
    joined = _query(config, point_in_time_sql(joins), entities)
    # Putting rows in their places is linear; sorting them in the query took a third of its time.
    places = np.empty(rows.num_rows, dtype=np.int64)
    places[joined.column(ROW).to_numpy()] = np.arange(rows.num_rows)
    features = joined.drop_columns(ROW).take(pa.array(places))
    for name, values in zip(features.column_names, features.columns, strict=True):
        rows = rows.append_column(name, values)
    return rows


def _query(config: RepoConfig, sql: str, entities: pa.Table | None = None) -> pa.Table:
    import duckdb

    options: AsOfOfflineStoreConfig = config.offline_store
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        # What does not fit into memory would otherwise be spilled to the working directory.
        connection.execute("SET temp_directory = ?", [tempfile.gettempdir()])
        # DuckDB takes an Arrow table for a single row, and would answer so few with a nested loop over the history.
        connection.execute("SET asof_loop_join_threshold = 0")
        if options.memory_limit is not None:
            connection.execute("SET memory_limit = ?", [options.memory_limit])
        if options.threads is not None:
            connection.execute("SET threads = ?", [options.threads])
        if entities is not None:
            connection.register(ENTITIES, entities)
        return connection.execute(sql).to_arrow_table()


def _with_dummy_key(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Give rows of a view without entities the key under which Feast stores them."""
    if keys:
        return table
    return table.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * table.num_rows, pa.string()))


def _table(config: RepoConfig, data_source: DataSource, timestamp: str, created: str | None) -> ParquetTable:
    return ParquetTable(_location(config, _parquet_source(data_source)), timestamp, created or None)


def _parquet_source(source: DataSource | None) -> FileSource:
    if not isinstance(source, FileSource) or not isinstance(source.file_format, ParquetFormat | None):
        raise ValueError(f"the as-of store reads Parquet FileSources only, but got {source!r}")
    return source


def _location(config: RepoConfig, source: FileSource) -> str:
    path = _path(config, source)
    return f"{path}/**/*.parquet" if path.is_dir() else FileSource.get_uri_for_file_path(config.repo_path, source.path)


def _path(config: RepoConfig, source: FileSource) -> Path:
    return Path(FileSource.get_uri_for_file_path(config.repo_path, source.path))
