"""The as-of offline store: Feast's `OfflineStore` on DuckDB's `ASOF JOIN` over Parquet files.

Chosen in `feature_store.yaml` by class path (`offline_store.type`). It answers what Feast's own file stores answer, for
`FileSource` Parquet files and folders, but its cost grows with the rows instead of with each entity's history squared.
Feast subclasses are declared here, so importing this module imports Feast; nothing else should import it directly.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import (
    _get_requested_feature_views_to_features_dict,
    _get_requested_on_demand_feature_views,
    compute_non_entity_date_range,
)
from pydantic import PositiveInt, StrictStr
from typing_extensions import override

from mlplatform.features.asof.engine import Engine
from mlplatform.features.asof.entities import EntityRows, FrameRows, QueryRows, SnapshotRows
from mlplatform.features.asof.files import Listing, place, source_place
from mlplatform.features.asof.job import AsOfRetrievalJob
from mlplatform.features.asof.join import PointInTimeJoin
from mlplatform.features.asof.names import refuse_case_twins
from mlplatform.features.asof.query import ROW, TIME, ParquetTable, ViewJoin, latest_sql, rows_between_sql
from mlplatform.features.asof.write import append_files, append_rows

# The second is the path of earlier versions, which stands in feature_store.yaml files of users.
ClassPath = Literal[
    "mlplatform.features.asof.store.AsOfOfflineStore",
    "mlplatform.features.asof_store.AsOfOfflineStore",
]


class AsOfOfflineStoreConfig(FeastConfigBaseModel):
    """The `offline_store` section of `feature_store.yaml`.

    Attributes:
        type: class path of the store.
        memory_limit: most memory that a query takes beside its entity rows and its result, such as "4GB"; beyond it,
            DuckDB spills to the folder of temporary files.
        threads: threads of a query; default: all cores.
    """

    type: ClassPath = "mlplatform.features.asof.store.AsOfOfflineStore"
    memory_limit: StrictStr = "1700MB"
    threads: PositiveInt | None = None


class AsOfOfflineStore(OfflineStore):
    """Point-in-time joins and table reads over Parquet `FileSource`s.

    An entity row gets, from every view, the newest feature row whose event time is at or before its own and at most
    `ttl` older (boundary included). Of rows with equal key and event time the one created last counts; a missing
    creation time counts as the oldest. Entity rows keep their order, their duplicates and their other columns; without
    a match the features are null. The entity rows are a DataFrame, a query in DuckDB's SQL, or none: then every entity
    with a value at `end_date` is a row, as in Feast's default store.

    It differs from Feast's default store ("dask") and its DuckDB store ("duckdb") in what follows:

    - An entity row of which all feature rows have expired or lie ahead stays, with nulls, because a training set must
      not lose rows; dask drops it.
    - Equal entity rows all stay, for the same reason; dask keeps one of them.
    - A null join key matches nothing, as in SQL and duckdb; dask matches it to rows whose key is null.
    - Times count to the microsecond, which is DuckDB's resolution; dask counts nanoseconds.
    - A missing creation time is the oldest in pulls as in joins; dask's pulls take it for the newest.
    - A bound of a pull without a zone is UTC like every other time; duckdb takes it for local time.
    - A column of `entity_df` that is named like a requested feature is refused, as it is by duckdb; dask puts the
      feature under another name.
    - Without `entity_df`, an entity that any view knows is a row, and views must have equal join keys; dask gives an
      entity of one view the values of another entity of the next.
    - A partition column is an integer or a string, like any column; dask makes it a category.
    """

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        *,
        start_date: dt.datetime | None = None,
        end_date: dt.datetime | None = None,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """Return a job that joins the features named in `feature_refs` to the rows of `entity_df`.

        Parameters:
            entity_df: a DataFrame; or a query in DuckDB's SQL; or `None` for all entities at `end_date`.
            start_date: without `entity_df`: start of the time range in the job's metadata.
            end_date: without `entity_df`: the time of the entity rows; now, if not given.
            filter_by_created_timestamp: whether to use only what was created by the time of the entity row.

        Raises:
            ValueError: if `entity_df` is of another kind, lacks its time or a join key, or has a column named like a
                requested feature; if two features have the same name, or columns that are read differ from others only
                in case; if a source is not Parquet. When the job runs: if a join key is a float too large to be an id.
        """
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        by_view, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        request = _Request(config, by_view, full_feature_names, filter_by_created_timestamp)
        if entity_df is None:
            start, end = compute_non_entity_date_range(list(by_view), start_date, end_date)
            keys = [[column for _, column in _keys(view)] for view in by_view]
            entities: EntityRows = SnapshotRows(keys, start, end)
        else:
            entities = _entity_rows(config, entity_df)
        request.check(entities.columns)

        @functools.cache
        def metadata() -> RetrievalMetadata:
            first, last = entities.time_range()
            others = [name for name in entities.columns if name != entities.time_column]
            return RetrievalMetadata(feature_refs, others, first, last)

        return AsOfRetrievalJob(
            PointInTimeJoin(entities, request.resolve),
            config.repo_path,
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
        source = _parquet_source(data_source)

        def sql(table: ParquetTable) -> str:
            return latest_sql(table, join_key_columns, feature_name_columns, start_date, end_date)

        columns = (join_key_columns, feature_name_columns)
        query = _Scan(config, source, timestamp_field, created_timestamp_column, *columns, sql)
        return AsOfRetrievalJob(query, config.repo_path)

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
        source = _parquet_source(data_source)

        def sql(table: ParquetTable) -> str:
            return rows_between_sql(table, join_key_columns, feature_name_columns, start_date, end_date)

        columns = (join_key_columns, feature_name_columns)
        query = _Scan(config, source, timestamp_field, created_timestamp_column, *columns, sql)
        return AsOfRetrievalJob(query, config.repo_path)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the Parquet file or folder of a view; a folder costs the new rows only, a file is rewritten.

        Raises:
            ValueError: if the columns of `table` are not those of the source, in its order, or have other types.
            FileNotFoundError: if the source is not there.
        """
        try:
            append_rows(source_place(_parquet_source(feature_view.batch_source), config.repo_path), table)
        except ValueError as error:
            raise ValueError(f"feature view {feature_view.name!r}: {error}") from error
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    @override
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Add logged features to the Parquet folder that `logging_config` names.

        The columns that they are partitioned by become folders `column=value`, which are columns again when read.

        Raises:
            ValueError: if they are to be logged to something else.
        """
        import pyarrow.parquet as pq

        destination = logging_config.destination
        if not isinstance(destination, FileLoggingDestination):
            raise ValueError(f"features are logged to files only, but the destination is {type(destination).__name__}")
        folder = place(destination.path, config.repo_path, endpoint=destination.s3_endpoint_override)
        rows = pq.read_table(data) if isinstance(data, Path) else data
        append_files(folder, rows, destination.partition_by or [])

    def get_table_column_names_and_types_from_data_source(
        self, config: RepoConfig, data_source: DataSource
    ) -> Iterable[tuple[str, str]]:
        """Return the columns of a source with their Arrow types."""
        schema = source_place(_parquet_source(data_source), config.repo_path).schema()
        return [(field.name, str(field.type)) for field in schema]


@dataclass(frozen=True)
class _Request:
    """The features that a point-in-time join adds."""

    config: RepoConfig
    features: dict[FeatureView, list[str]]
    full_names: bool
    known_by_then: bool

    def check(self, columns: Sequence[str]) -> None:
        """Raise ValueError if features cannot be joined to rows with these columns."""
        keys = [column for view in self.features for _, column in _keys(view)]
        refuse_case_twins(keys, keys, "entity_df")
        taken = sorted({name for name in keys if name.lower() in (ROW, TIME)})
        if taken:
            raise ValueError(f"the join keys {taken} have names that the as-of store uses itself; rename them")
        missing = sorted(set(keys) - set(columns))
        if missing:
            raise ValueError(f"entity_df lacks the join keys {missing}; its columns are {list(columns)}")
        names = [name for view, features in self.features.items() for _, name in self._names(view, features)]
        repeated = sorted(set(names) & set(columns))
        if repeated:
            raise ValueError(f"entity_df already has columns {repeated}; rename them or use full_feature_names")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"several views have features named {repeated}; use full_feature_names")
        for view in self.features:
            _parquet_source(view.batch_source)

    def resolve(self) -> tuple[Engine, list[ViewJoin]]:
        """Return the views with the files that their sources have now."""
        listing = Listing(self.config.repo_path)
        views = [self._join(view, names, listing) for view, names in self.features.items()]
        return _engine(self.config, listing), views

    def _join(self, view: FeatureView, names: Sequence[str], listing: Listing) -> ViewJoin:
        source = _parquet_source(view.batch_source)
        keys, features = _keys(view), self._names(view, names)
        return ViewJoin(
            table=_table(
                listing,
                source,
                _original(source, source.timestamp_field),
                _original(source, source.created_timestamp_column or "") or None,
                [column for column, _ in (*keys, *features)],
            ),
            keys=keys,
            features=features,
            ttl=view.ttl,
            known_by_then=self.known_by_then,
        )

    def _names(self, view: FeatureView, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
        prefix = f"{view.projection.name_alias or view.name}__" if self.full_names else ""
        source = _parquet_source(view.batch_source)
        return tuple((_original(source, name), f"{prefix}{name}") for name in dict.fromkeys(names))


@dataclass(frozen=True)
class _Scan:
    """A read of one source.

    Attributes:
        keys, features: the columns beside the times. Without keys, rows get the key under which Feast stores a view
            without entities.
        sql: builds the query, once the files are known.
    """

    config: RepoConfig
    source: FileSource
    timestamp: str
    created: str | None
    keys: Sequence[str]
    features: Sequence[str]
    sql: Callable[[ParquetTable], str]

    def table(self) -> pa.Table:
        """Return all rows."""
        return self.stream().read_all()

    def stream(self) -> pa.RecordBatchReader:
        """Return the same rows in batches."""
        listing = Listing(self.config.repo_path)
        table = _table(listing, self.source, self.timestamp, self.created or None, [*self.keys, *self.features])
        rows = _engine(self.config, listing).stream(self.sql(table))
        return rows if self.keys else _with_dummy_key(rows)


def _entity_rows(config: RepoConfig, entity_df: object) -> EntityRows:
    if isinstance(entity_df, pd.DataFrame):
        return FrameRows(entity_df)
    if isinstance(entity_df, str):
        return QueryRows(entity_df, _engine(config, Listing(config.repo_path)))
    raise ValueError(f"entity_df must be a pandas DataFrame, a query or None, but is {type(entity_df).__name__}")


def _engine(config: RepoConfig, listing: Listing) -> Engine:
    options: AsOfOfflineStoreConfig = config.offline_store
    return Engine(options.memory_limit, options.threads, listing.filesystems)


def _table(
    listing: Listing, source: FileSource, timestamp: str, created: str | None, columns: Sequence[str]
) -> ParquetTable:
    """Return where a source is; `columns` are those that are read from it beside its times."""
    files = listing.files(source)
    refuse_case_twins(files.schema.names, [timestamp, created or timestamp, *columns], f"the source {source.path}")
    return ParquetTable(files.addresses, timestamp, created, files.partitions, files.schema)


def _keys(view: FeatureView) -> tuple[tuple[str, str], ...]:
    """Return pairs (source column, column of the entity rows) of a view: the join-key map renames the latter."""
    source = _parquet_source(view.batch_source)
    names = [field.name for field in view.entity_columns if field.name != DUMMY_ENTITY_ID]
    return tuple((_original(source, name), view.projection.join_key_map.get(name, name)) for name in names)


def _original(source: FileSource, name: str) -> str:
    """Return the source's own name of a column, undoing its field mapping."""
    return next((column for column, mapped in source.field_mapping.items() if mapped == name), name)


def _with_dummy_key(rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    field = pa.field(DUMMY_ENTITY_ID, pa.string())

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            yield batch.append_column(field, pa.array([DUMMY_ENTITY_VAL] * batch.num_rows, pa.string()))

    return pa.RecordBatchReader.from_batches(rows.schema.append(field), batches())


def _parquet_source(source: DataSource | None) -> FileSource:
    if not isinstance(source, FileSource) or not isinstance(source.file_format, ParquetFormat | None):
        raise ValueError(f"the as-of store reads Parquet FileSources only, but got {source!r}")
    return source
