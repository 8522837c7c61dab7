"""Other tools read the folders `rows` of the tables: each row that is current, once, with one type per column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import read_raw
from mlplatform.features.tables.feature_table import features_path, update_feature_table
from mlplatform.settings import Settings
from mlplatform_tests.data.test_growth import arrive, frame, readings

DAY = list(range(24))


@pytest.fixture(params=["numbers", "texts"])
def grown(request: pytest.FixtureRequest, settings: Settings) -> DatasetConfig:
    """Days without any mode and without any load, rows corrected by an increment, and rows in quarantine."""
    one, two = (1, 2) if request.param == "numbers" else ("a", "b")
    arrive("a", frame([one] * 72, list(range(72)), [float(hour) for hour in range(72)]), settings)
    dataset = readings()
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    nothing: list[Any] = [None] * 24
    arrive("b", frame([one] * 24, [96 + hour for hour in DAY], [1.0] * 24, nothing), settings)
    arrive("c", frame([two] * 24, [120 + hour for hour in DAY], [float("nan")] * 24), settings)
    arrive("d", frame([one] * 24, DAY, [7.0] * 22 + [1e9] * 2), settings)
    ingest(dataset, settings)
    update_feature_table(dataset, settings)
    return dataset


def by_duckdb(folder: Path) -> pa.Table:
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT * FROM read_parquet('{folder}/*.parquet')").to_arrow_table()  # noqa: S608


READERS: dict[str, Callable[[Path], pa.Table]] = {
    "pandas": lambda folder: pa.Table.from_pandas(pd.read_parquet(folder), preserve_index=False),
    "pyarrow-table": pq.read_table,
    "pyarrow-dataset": lambda folder: ds.dataset(folder).to_table(),
    "duckdb": by_duckdb,
}


def plain(table: pa.Table) -> pd.DataFrame:
    rows = table.to_pandas().sort_values([ENTITY, TIMESTAMP], ignore_index=True)
    # DuckDB has times with a zone in microseconds only, and calls UTC by another name.
    return rows.assign(**{TIMESTAMP: rows[TIMESTAMP].dt.tz_convert("UTC").astype("datetime64[ns, UTC]")})


@pytest.mark.parametrize("reader", READERS)
def test_the_rows_of_the_raw_table(reader: str, grown: DatasetConfig, settings: Settings) -> None:
    found = plain(READERS[reader](settings.raw_dir / grown.name / "rows"))
    expected = read_raw(grown, settings).sort_values([ENTITY, TIMESTAMP], ignore_index=True)
    assert len(found) == 72 + 24 + 24
    assert found["load"].iloc[:24].tolist() == [7.0] * 22 + [22.0, 23.0]
    pd.testing.assert_frame_equal(found[list(expected)], expected, check_dtype=False)


@pytest.mark.parametrize("reader", READERS)
def test_the_rows_of_the_feature_table(reader: str, grown: DatasetConfig, settings: Settings) -> None:
    folder = features_path(grown, settings)
    schemas = {str(pq.read_schema(path).remove_metadata()) for path in folder.glob("*.parquet")}
    assert len(schemas) == 1
    found = plain(READERS[reader](folder))
    assert len(found) == 120 + 24  # with the day without rows
    assert not found.duplicated([ENTITY, TIMESTAMP]).any()
    assert found["load"].isna().sum() == 24 + 24
    assert found["mode"].isna().sum() == 24 + 24


@pytest.mark.parametrize("reader", ["pandas", "pyarrow-table", "pyarrow-dataset"])
def test_the_whole_folder_of_a_table_is_refused_and_not_mixed(
    reader: str, grown: DatasetConfig, settings: Settings
) -> None:
    for folder in (settings.raw_dir / grown.name, features_path(grown, settings).parent):
        with pytest.raises(pa.ArrowInvalid):
            READERS[reader](folder)
