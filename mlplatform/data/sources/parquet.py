"""Parquet files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlplatform.config import DatasetConfig
from mlplatform.data.columns import require_columns, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.base import NoOptions, Source
from mlplatform.data.sources.files import locate_file
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


@SOURCES.register("parquet")
class ParquetSource(Source[NoOptions]):
    """One Parquet file; only the dataset's columns are read."""

    def read(self, dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
        """Read the file that `source.uri` names; see `Source.read`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = locate_file(dataset, settings)
        try:
            with pq.ParquetFile(path) as file:
                require_columns(file.schema_arrow.names, dataset, f"Parquet file {path}")
                table = file.read(columns=list(source_columns(dataset)))
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(
                f"dataset {dataset.name!r}: {path} ({path.stat().st_size} bytes) is not a readable Parquet file: "
                f"{error}. Write it again, or let source.uri end with the suffix of what the file is"
            ) from error
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
        return frame
