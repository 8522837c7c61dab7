"""The contract every data source keeps, over the registry, and the factory in front of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from mlplatform.config import ConfigError, DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.validation import validate
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings
from mlplatform.testing import read_source
from mlplatform.testing.contracts.test_sources import (  # noqa: F401 - tried here on sources that need servers
    test_a_missing_column_is_named_with_those_found,
    test_a_source_delivers_rows_that_validate,
    test_a_source_reads_the_same_twice,
    test_an_unknown_option_is_named,
    test_columns_may_have_other_names_than_in_the_source,
    test_going_on_at_a_stored_position_delivers_every_row,
    test_ingesting_twice_stores_every_row_once,
    test_the_fingerprint_stays_while_nothing_is_new,
)
from mlplatform_tests.data.conftest import hourly_dataset, hourly_frame
from mlplatform_tests.data.servers import Database
from mlplatform_tests.data.sources.test_feast import make_repository


def csv_example(folder: Path, _request: pytest.FixtureRequest) -> DatasetConfig:
    hourly_frame().to_csv(folder / "pump.csv", index=False)
    return hourly_dataset()


def workbook_example(folder: Path, _request: pytest.FixtureRequest) -> DatasetConfig:
    hourly_frame().to_excel(folder / "pump.xlsx", index=False)
    return hourly_dataset(source={"uri": "pump.xlsx"})


def json_lines_example(folder: Path, _request: pytest.FixtureRequest) -> DatasetConfig:
    hourly_frame().to_json(folder / "pump.jsonl", orient="records", lines=True)
    return hourly_dataset(source={"uri": "pump.jsonl"})


def parquet_example(folder: Path, _request: pytest.FixtureRequest) -> DatasetConfig:
    (folder / "readings").mkdir()
    for part in range(2):
        hourly_frame(3, f"2024-01-0{1 + part}").to_parquet(folder / "readings" / f"{part}.parquet")
    return hourly_dataset(source={"uri": "readings/*.parquet"})


def simulation_example(_folder: Path, _request: pytest.FixtureRequest) -> DatasetConfig:
    options = {"entities": 2, "start": "2024-01-01", "end": "2024-01-05"}
    return hourly_dataset(
        source={"uri": "simulation://fleet", "options": options},
        time_column="timestamp",
        entity_column="transformer_id",
        columns={"load_pu": {"max": 5}, "cooling": {"type": "category"}},
    )


def sklearn_example(_folder: Path, _request: pytest.FixtureRequest) -> DatasetConfig:
    return DatasetConfig.model_validate(
        {
            "name": "diabetes",
            "kind": "tabular",
            "source": {"uri": "sklearn://diabetes"},
            "columns": {"bmi": {}, "progression": {}},
        }
    )


def postgres_example(_folder: Path, request: pytest.FixtureRequest) -> DatasetConfig:
    return database_example(request.getfixturevalue("postgres"))


def mysql_example(_folder: Path, request: pytest.FixtureRequest) -> DatasetConfig:
    return database_example(request.getfixturevalue("mysql"))


def database_example(database: Database) -> DatasetConfig:
    database.run("DROP TABLE IF EXISTS pump", "CREATE TABLE pump (time TEXT, flow FLOAT, pressure FLOAT, state TEXT)")
    database.insert("pump", hourly_frame().to_dict("records"))
    options = {"table": "pump", "watermark_column": "time", **database.options}
    return hourly_dataset(source={"uri": database.uri, "options": options})


def kafka_example(_folder: Path, request: pytest.FixtureRequest) -> DatasetConfig:
    cluster = request.getfixturevalue("kafka")
    topic = f"example-{uuid.uuid4().hex}"
    cluster.send(topic, [json.dumps(row).encode() for row in hourly_frame().to_dict("records")], partition=0)
    return hourly_dataset(source={"uri": f"kafka://{cluster.address}/{topic}"})


def redis_stream_example(_folder: Path, request: pytest.FixtureRequest) -> DatasetConfig:
    address = request.getfixturevalue("redis")
    stream = f"example-{uuid.uuid4().hex}"
    with Redis.from_url(f"redis://{address}/0") as client:
        for row in hourly_frame().to_dict("records"):
            client.xadd(stream, {"value": json.dumps(row)})
    return hourly_dataset(source={"uri": f"redis-stream://{address}/0/{stream}"})


def feast_example(folder: Path, _request: pytest.FixtureRequest) -> DatasetConfig:
    make_repository(folder / "repo")
    source = {"uri": "feast://repo", "options": {"feature_view": "pumps"}}
    return hourly_dataset(source=source, entity_column="pump_number")


# A new source adds its smallest data set here.
EXAMPLES: dict[str, Callable[[Path, pytest.FixtureRequest], DatasetConfig]] = {
    "csv": csv_example,
    "feast": feast_example,
    "jsonl": json_lines_example,
    "kafka": kafka_example,
    "mariadb": mysql_example,
    "mysql": mysql_example,
    "ndjson": json_lines_example,
    "ods": workbook_example,
    "parquet": parquet_example,
    "postgres": postgres_example,
    "postgresql": postgres_example,
    "redis-stream": redis_stream_example,
    "simulation": simulation_example,
    "sklearn": sklearn_example,
    "xls": workbook_example,
    "xlsb": workbook_example,
    "xlsm": workbook_example,
    "xlsx": workbook_example,
}


@pytest.fixture(params=SOURCES.names())
def dataset(request: pytest.FixtureRequest, settings: Settings) -> DatasetConfig:
    assert request.param in EXAMPLES, f"add the smallest data set of source {request.param!r} to EXAMPLES"
    assert settings.data_dir is not None
    return EXAMPLES[request.param](settings.data_dir, request)


def test_an_unknown_scheme_lists_the_known_ones(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=f"known schemes: {', '.join(SOURCES.names())}"):
        read_source(hourly_dataset(source={"uri": "ftp://host/file"}), settings)


@pytest.mark.parametrize("uri", ["simulation://navy", "sklearn://iris"])
def test_an_unknown_name_behind_a_known_scheme_lists_the_known_ones(uri: str, settings: Settings) -> None:
    with pytest.raises(DataError, match=rf"{uri}.*known: .*://"):
        read_source(hourly_dataset(source={"uri": uri}), settings)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, settings: Settings) -> None:
    hourly_frame().to_csv(tmp_path / "input" / "pump.parquet", index=False)
    with pytest.raises(DataError, match=r"pump\.parquet .* is not a readable Parquet file"):
        read_source(hourly_dataset(source={"uri": "pump.parquet"}), settings)


def test_a_parquet_index_is_a_column_like_any_other(tmp_path: Path, settings: Settings) -> None:
    hourly_frame().set_index("time").to_parquet(tmp_path / "input" / "pump.parquet")
    frame = read_source(hourly_dataset(source={"uri": "pump.parquet"}), settings)
    assert list(frame.columns) == ["time", "flow", "pressure", "state"]


def test_breast_cancer_is_labelled_in_words(settings: Settings) -> None:
    columns = {"mean_concave_points": {}, "diagnosis": {"type": "category"}}
    dataset = DatasetConfig.model_validate(
        {"name": "bc", "kind": "tabular", "source": {"uri": "sklearn://breast_cancer"}, "columns": columns}
    )
    counts = validate(read_source(dataset, settings), dataset).rows["diagnosis"].value_counts().to_dict()
    assert counts == {"benign": 357, "malignant": 212}
