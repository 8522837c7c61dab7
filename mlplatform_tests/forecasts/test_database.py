"""Rows in a database: as many runs as one likes leave what the last one found, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from mlplatform.config import ForecastDatabase
from mlplatform.forecasts import database
from mlplatform.forecasts.database import ForecastDatabaseError, upsert_table
from mlplatform.forecasts.rows import forecast_schema, left_out_table
from mlplatform.forecasts.table import staged_run
from mlplatform.settings import Settings
from mlplatform_tests.data.servers import start_postgres

NAME = "meters_ridge"
ORIGIN = pd.Timestamp("2024-01-20T23:00Z")
TARGET = ForecastDatabase(address_env="FORECASTS_DATABASE")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = start_postgres(tmp_path_factory.mktemp("postgres"))
    host = urlsplit(server.get_uri()).query.removeprefix("host=")
    yield f"postgresql+psycopg://postgres@/postgres?host={host}"
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database of every kind."""
    if request.param == "sqlite":
        found = f"sqlite:///{tmp_path / 'forecasts.db'}"
    else:
        found = request.getfixturevalue("postgres")
        engine = sa.create_engine(found)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS forecasts")
        engine.dispose()
    monkeypatch.setenv("FORECASTS_DATABASE", found)
    return str(found)


def rows(entities: tuple[int, ...], value: float = 0.1, version: int = 3) -> pa.Table:
    """Return two steps of some entities."""
    schema = forecast_schema(has_text_ids=False)
    mark = {"kind": "missing", "column": "load", "rows": 2}
    records: list[dict[str, Any]] = [
        {
            "experiment": NAME,
            "entity_id": entity,
            "target": "load",
            "step": step,
            "timestamp": ORIGIN + pd.Timedelta(hours=step),
            "value": value,
            "lower": None,
            "version": version,
            "pair_id": "p",
            "window_end": ORIGIN,
            "observed": 1.0,
            "fallback": False,
            "stale": False,
            "marks": [mark],
        }
        for entity in entities
        for step in (1, 2)
    ]
    return pa.Table.from_pylist(records, schema)


def table_of(tmp_path: Path, *chunks: pa.Table, origin: pd.Timestamp = ORIGIN) -> Path:
    """Return the folder of a run with these chunks."""
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home")})
    with staged_run(settings, NAME) as stage:
        for chunk in chunks:
            stage.write(chunk)
        return stage.complete(origin, left_out_table([], chunks[0].schema), {})


def stored(address: str) -> pd.DataFrame:
    engine = sa.create_engine(address)
    found = pd.read_sql(
        "SELECT * FROM forecasts ORDER BY origin, version, entity_id, step", engine, parse_dates=["origin", "timestamp"]
    )
    engine.dispose()
    return found


def test_two_runs_leave_the_rows_of_one(address: str, tmp_path: Path) -> None:
    folder = table_of(tmp_path, rows((1, 2)), rows((3,)))
    assert upsert_table(folder, NAME, 3, TARGET) == 6
    first = stored(address)
    assert upsert_table(folder, NAME, 3, TARGET) == 6
    pd.testing.assert_frame_equal(stored(address).drop(columns="run_id"), first.drop(columns="run_id"))
    assert first["entity_id"].tolist() == list("112233")
    assert first["value"].tolist() == [pa.scalar(0.1, pa.float32()).as_py()] * 6
    assert first["lower"].isna().all()
    assert pd.to_datetime(first["timestamp"], utc=True).tolist()[:2] == [ORIGIN + pd.Timedelta(hours=h) for h in (1, 2)]
    assert set(first["marks"]) == {'[{"kind": "missing", "column": "load", "rows": 2}]'}


def test_a_run_puts_new_values_and_takes_away_what_is_left_out_now(address: str, tmp_path: Path) -> None:
    upsert_table(table_of(tmp_path, rows((1, 2))), NAME, 3, TARGET)
    upsert_table(table_of(tmp_path, rows((1,), version=2)), NAME, 2, TARGET)
    earlier = ORIGIN - pd.Timedelta(hours=1)
    upsert_table(table_of(tmp_path, rows((2,)), origin=earlier), NAME, 3, TARGET)
    upsert_table(table_of(tmp_path, rows((1,), value=0.5)), NAME, 3, TARGET)
    found = stored(address)
    keys = list(zip(pd.to_datetime(found["origin"], utc=True), found["version"], found["entity_id"], strict=True))
    assert keys[::2] == [(earlier, 3, "2"), (ORIGIN, 2, "1"), (ORIGIN, 3, "1")]
    assert found["value"].tolist()[-2:] == [0.5, 0.5]


def test_a_run_that_breaks_off_changes_nothing(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upsert_table(table_of(tmp_path, rows((1, 2))), NAME, 3, TARGET)
    before = stored(address)
    folder = table_of(tmp_path, rows((1,), value=0.5), rows((2,), value=0.5))
    batches = database._batches

    def broken(path: Path, common: Any) -> Iterator[list[dict[str, Any]]]:
        for batch in batches(path, common):
            yield batch
            if path.name == "chunk-00001.parquet":
                raise KeyboardInterrupt

    monkeypatch.setattr(database, "_batches", broken)
    with pytest.raises(KeyboardInterrupt):
        upsert_table(folder, NAME, 3, TARGET)
    pd.testing.assert_frame_equal(stored(address), before)


def test_an_unset_address_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORECASTS_DATABASE", raising=False)
    with pytest.raises(ForecastDatabaseError, match="FORECASTS_DATABASE, which is not set"):
        upsert_table(table_of(tmp_path, rows((1,))), NAME, 3, TARGET)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("postgresql+psycopg://me:s3cr3t@127.0.0.1:1/db", "refuses the table forecasts"),
        ("no address with s3cr3t", "the address cannot be read"),
        ("oracle+nothing://me:s3cr3t@host/db", "refuses the table forecasts"),
    ],
    ids=["away", "unreadable", "unknown"],
)
def test_a_refusal_has_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, found: str) -> None:
    monkeypatch.setenv("FORECASTS_DATABASE", address)
    with pytest.raises(ForecastDatabaseError, match=found) as refused:
        upsert_table(table_of(tmp_path, rows((1,))), NAME, 3, TARGET)
    assert "s3cr3t" not in str(refused.value)
    assert refused.value.__cause__ is None
