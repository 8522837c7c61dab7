"""Tables without entities from sources that tell what is new: no row is lost, and a corrected one stands once."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from redis import Redis

from mlplatform.config import ENTITY, DatasetConfig
from mlplatform.data import ingest, open_raw, read_raw
from mlplatform.settings import Settings
from mlplatform_tests.data.servers import Database, Kafka

TIME = "2024-01-01T00:00:00Z"


def visits(uri: str, time_column: str | None = "time", **options: Any) -> DatasetConfig:
    fields = {
        "name": "visits",
        "kind": "tabular",
        "source": {"uri": uri, "options": options},
        "time_column": time_column,
        "columns": {"age": {}, "site": {"type": "category"}},
    }
    return DatasetConfig.model_validate(fields)


def stored(dataset: DatasetConfig, settings: Settings) -> list[tuple[float, str]]:
    ingest(dataset, settings)
    rows = read_raw(dataset, settings)
    assert rows[ENTITY].is_unique
    return sorted(zip(rows["age"].tolist(), rows["site"].tolist(), strict=True))


@pytest.mark.parametrize("time_column", [None, "time"])
def test_files_are_read_whole(time_column: str | None, settings: Settings) -> None:
    assert settings.data_dir is not None
    folder: Path = settings.data_dir / "visits"
    folder.mkdir()
    dataset = visits("parquet://visits", time_column)

    def write(name: str, ages: list[float], second: int) -> None:
        pd.DataFrame({"time": pd.Timestamp(TIME), "age": ages, "site": "north"}).to_parquet(folder / name)
        os.utime(folder / name, (second, second))

    write("0.parquet", [1, 2, 3], 1)
    assert stored(dataset, settings) == [(1, "north"), (2, "north"), (3, "north")]
    write("1.parquet", [4, 5], 2)
    assert [age for age, _ in stored(dataset, settings)] == [1, 2, 3, 4, 5]
    # A corrected row stands in the place of the one that it was, and one that is gone is gone.
    write("0.parquet", [1, 20], 3)
    assert [age for age, _ in stored(dataset, settings)] == [1, 4, 5, 20]


@pytest.mark.parametrize("server", ["postgres", "mysql"])
def test_databases_are_read_whole(server: str, settings: Settings, request: pytest.FixtureRequest) -> None:
    database: Database = request.getfixturevalue(server)
    table = "CREATE TABLE nameless (age REAL, site VARCHAR(9), changed INT)"
    rows = "INSERT INTO nameless VALUES (1, 'north', 1), (2, 'south', 2)"
    database.run("DROP TABLE IF EXISTS nameless", table, rows)
    dataset = visits(database.uri, None, table="nameless", watermark_column="changed", **database.options)
    assert stored(dataset, settings) == [(1, "north"), (2, "south")]
    database.run(
        "INSERT INTO nameless VALUES (3, 'north', 3)", "UPDATE nameless SET age = 10, changed = 4 WHERE age = 1"
    )
    assert stored(dataset, settings) == [(2, "south"), (3, "north"), (10, "north")]


def test_messages_of_a_stream_are_added_and_one_that_repeats_is_one_row(
    kafka: Kafka, redis: str, settings: Settings
) -> None:
    client, name = Redis(*redis.split(":")), uuid.uuid4().hex
    sent: dict[str, Any] = {
        f"kafka://{kafka.address}/{name}": lambda message: kafka.send(name, [message]),
        f"redis-stream://{redis}/0/{name}": lambda message: client.xadd(name, {"value": message}),
    }
    for uri, send in sent.items():
        dataset = visits(uri).model_copy(update={"name": f"visits_{uri[:5]}"})
        for age in (1, 2, 1, 3):
            send(json.dumps({"time": TIME, "age": age, "site": "north"}).encode())
            ingest(dataset, settings)
        assert [age for age, _ in stored(dataset, settings)] == [1, 2, 3]
        table = open_raw(dataset, settings)
        assert table is not None
        assert table.state.ingests > 1
