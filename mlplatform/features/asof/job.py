"""The as-of store's retrieval job: Feast's handle for a query that runs when its result is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd
import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage, ValidationReference
from typing_extensions import override

from mlplatform.features.asof.files import place
from mlplatform.features.asof.write import write_dataset

# Whole numbers up to here are all there in float64.
LARGEST_EXACT = 2.0**53


class Query(Protocol):
    """A query that can be run any number of times."""

    def table(self) -> pa.Table:
        """Return all rows."""

    def stream(self) -> pa.RecordBatchReader:
        """Return the same rows in batches."""


class AsOfRetrievalJob(RetrievalJob):
    """A query that runs when its result is asked for, and again each time it is asked for."""

    def __init__(
        self,
        query: Query,
        repo_path: Path | None,
        *,
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: Callable[[], RetrievalMetadata] | None = None,
    ) -> None:
        self._query = query
        self._repo_path = repo_path
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._metadata = metadata

    @override
    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._query.table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    @override
    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """Return the rows of `to_arrow`; integers beside a missing one are `Int64` where floats would change them."""
        table = self.to_arrow(validation_reference, timeout)
        frame: pd.DataFrame = table.to_pandas().reset_index(drop=True)
        for name in frame.columns[frame.dtypes == "float64"]:
            if _was_rounded(table.column(name), frame[name]):
                frame[name] = pd.array(table.column(name).to_pylist(), dtype="Int64")
        return frame

    def to_arrow_reader(self) -> pa.RecordBatchReader:
        """Return the rows of `to_arrow` in batches, for results that do not fit into memory.

        With on-demand views the result is computed as a whole, because they are functions of a whole table.
        """
        return self.to_arrow().to_reader() if self._on_demand_feature_views else self._query.stream()

    @override
    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,
    ) -> None:
        """Write the result to a Parquet file, or to a folder if the name does not end in `.parquet`, batch by batch.

        Raises:
            SavedDatasetLocationAlreadyExists: if something is there and `allow_overwrite` is not set.
            ValueError: if `storage` is not a file storage, or its address cannot be opened.
        """
        if not isinstance(storage, SavedDatasetFileStorage):
            raise ValueError(f"the as-of store saves to SavedDatasetFileStorage only, not {type(storage).__name__}")
        options = storage.file_options
        target = place(options.uri, self._repo_path, endpoint=options.s3_endpoint_override)
        if target.exists and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=options.uri)
        write_dataset(target, self.to_arrow_reader())

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
        return None if self._metadata is None else self._metadata()


def _was_rounded(column: pa.ChunkedArray, floats: pd.Series) -> bool:
    """Return whether pandas, for the sake of a missing one, made floats of integers that floats cannot tell apart."""
    return bool(pa.types.is_int64(column.type)) and bool((floats.abs() >= LARGEST_EXACT).any())
