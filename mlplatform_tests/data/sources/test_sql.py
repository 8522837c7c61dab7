"""PostgreSQL and MySQL: what is read, in which order, from where on, and that no error gives a password away."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import ssl
import traceback
from decimal import Decimal
from pathlib import Path
from typing import Any

import certifi
import pandas as pd
import pytest
from pydantic import ValidationError

from mlplatform.config import ConfigError, DatasetConfig, SourceConfig, check_source
from mlplatform.data.errors import DataError, SourceUnavailableError
from mlplatform.data.sources import Position, open_source
from mlplatform.data.sources.servers import Credentials
from mlplatform.data.sources.sql import SqlSource
from mlplatform.data.sources.watermarks import decode_watermark, encode_watermark
from mlplatform.data.validation import validate
from mlplatform.settings import Settings
from mlplatform_tests.data.conftest import hourly_dataset
from mlplatform_tests.data.servers import READER, READER_PASSWORD, Database, free_port

LONG_QUERIES = {
    "postgresql": "SELECT TIMESTAMP '2024-01-01 00:00:00' AS time, n AS flow, 1 AS pressure, "
    "repeat('x', 2500) AS state FROM generate_series(1, 40000) AS n",
    "mysql": "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 200) SELECT TIMESTAMP "
    "'2024-01-01 00:00:00' AS time, a.n AS flow, 1 AS pressure, repeat('x', 2500) AS state FROM s a CROSS JOIN s b",
}


@pytest.fixture(params=["postgres", "mysql"])
def database(request: pytest.FixtureRequest) -> Database:
    database: Database = request.getfixturevalue(request.param)
    database.run("DROP TABLE IF EXISTS pump")
    return database


def fill(database: Database, rows: int = 6, changed: str = "2024-01-01 00:00:00") -> None:
    """A table of hourly rows whose column `changed` is one second later from row to row."""
    precise = "TIMESTAMP(6)" if database.admin.dialect.name == "postgresql" else "DATETIME(6)"
    database.run(
        f"CREATE TABLE pump (time {precise}, flow DOUBLE PRECISION, pressure NUMERIC(10, 3), state TEXT, "
        f"changed {precise}, number BIGINT)"
    )
    first = dt.datetime.fromisoformat(changed)
    for row in range(rows):
        add(database, flow=row, changed=first + row * dt.timedelta(seconds=1), number=2**40 + row)


def add(database: Database, **values: Any) -> None:
    """One row more; its time follows from `flow`, and what is not given is NULL."""
    nothing = {"pressure": 1.5, "state": "open", "changed": None, "number": None}
    time = dt.datetime(2024, 1, 1) + values["flow"] * dt.timedelta(hours=1)
    database.insert("pump", [{"time": time} | nothing | values])


def dataset_on(database: Database, uri: str | None = None, **options: Any) -> DatasetConfig:
    options = {"table": "pump"} | database.options | options
    kept = {name: value for name, value in options.items() if value is not None}
    return hourly_dataset(source={"uri": uri or database.uri, "options": kept})


def source_of(dataset: DatasetConfig) -> SqlSource:
    source = open_source(dataset)
    assert isinstance(source, SqlSource)
    return source


def read_since(dataset: DatasetConfig, settings: Settings, position: Position | None) -> tuple[pd.DataFrame, Position]:
    batches = list(source_of(dataset).read_since(dataset, settings, position))
    return pd.concat([batch.frame for batch in batches], ignore_index=True), batches[-1].position


def test_rows_of_every_type_come_through_exactly(postgres: Database, settings: Settings) -> None:
    postgres.run(
        "DROP TABLE IF EXISTS pump",
        "CREATE TABLE pump (time timestamptz, flow double precision, pressure numeric, state text)",
        "SET TIME ZONE 'America/New_York'",
        "INSERT INTO pump VALUES ('2023-12-31 19:00:00-05', 0.1, 1.25, NULL), "
        "('2024-01-01 01:00:00+00', NULL, 12345.678, 'für')",
    )
    dataset = dataset_on(postgres)
    frame = open_source(dataset).read(dataset, settings)
    assert frame["time"].tolist() == [pd.Timestamp("2024-01-01T00:00Z"), pd.Timestamp("2024-01-01T01:00Z")]
    assert frame["pressure"].tolist() == [Decimal("1.25"), Decimal("12345.678")]
    rows = validate(frame, dataset).rows
    assert rows["flow"].tolist()[0] == pytest.approx(0.1)
    assert rows["flow"].isna().tolist() == [False, True]
    assert rows["state"].tolist() == [None, "für"]


GOOD = "TIMESTAMP '2024-01-01 00:00:00', 1.0, 1, 'open'"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("TIMESTAMP 'infinity', 2.0, 1, 'open'", "time: not an ISO 8601 time of the years 1678 to 2261"),
        ("TIMESTAMP '-infinity', 2.0, 1, 'open'", "time: not an ISO 8601 time of the years 1678 to 2261"),
        ("TIMESTAMP '0044-03-15 BC', 2.0, 1, 'open'", "time: not an ISO 8601 time of the years 1678 to 2261"),
        ("TIMESTAMP '20000-01-01', 2.0, 1, 'open'", "time: not an ISO 8601 time of the years 1678 to 2261"),
        ("TIMESTAMP '2024-01-01 01:00:00', 'Infinity'::numeric, 1, 'open'", "flow: not a finite 32-bit number"),
    ],
    ids=["infinity", "minus-infinity", "before-christ", "far-future", "infinite-number"],
)
def test_a_cell_that_python_cannot_hold_costs_its_row_only(
    row: str, reason: str, postgres: Database, settings: Settings
) -> None:
    query = f"SELECT * FROM (VALUES ({GOOD}), ({row})) AS s (time, flow, pressure, state)"  # noqa: S608  (text of this test)
    dataset = dataset_on(postgres, table=None, query=query)
    checked = validate(open_source(dataset).read(dataset, settings), dataset)
    assert checked.rows["flow"].tolist() == [1.0]
    assert checked.reasons[reason] == 1


def test_infinite_dates_bytes_and_numbers_that_are_none(postgres: Database, settings: Settings) -> None:
    query = (
        "SELECT * FROM (VALUES (DATE '2024-01-01', 'NaN'::numeric, 1, 'open'::bytea), "
        "(DATE 'infinity', 1.0, 1, NULL)) AS s (time, flow, pressure, state)"
    )
    dataset = dataset_on(postgres, table=None, query=query)
    checked = validate(open_source(dataset).read(dataset, settings), dataset)
    (binary,) = [reason for reason in checked.reasons if "binary data" in reason]
    assert checked.reasons == {binary: 1, "time: not an ISO 8601 time of the years 1678 to 2261": 1}
    query = "SELECT DATE '2024-01-01' AS time, 'NaN'::numeric AS flow, 1 AS pressure, 'open' AS state"
    dataset = dataset_on(postgres, table=None, query=query)
    rows = validate(open_source(dataset).read(dataset, settings), dataset).rows
    assert rows["flow"].isna().tolist() == [True]


@pytest.mark.parametrize("moment", ["infinity", "-infinity"])
def test_a_watermark_that_is_no_time_is_named(moment: str, postgres: Database, settings: Settings) -> None:
    query = f"SELECT TIMESTAMP '2024-01-01' AS time, 1 AS flow, 1 AS pressure, 'a' AS state, TIMESTAMP '{moment}' AS c"
    dataset = dataset_on(postgres, table=None, query=query, watermark_column="c")
    for read in (
        lambda: read_since(dataset, settings, None),
        lambda: source_of(dataset).fingerprint(dataset, settings),
    ):
        with pytest.raises(DataError, match=f"watermark_column holds '{moment}', and there is no going on from there"):
            read()


def test_the_zero_dates_of_mysql_cost_their_rows_only(mysql: Database, settings: Settings) -> None:
    mysql.run(
        "DROP TABLE IF EXISTS pump",
        "SET SESSION sql_mode = ''",
        "CREATE TABLE pump (time DATETIME, flow DOUBLE, pressure DOUBLE, state VARBINARY(9), day DATE)",
        "INSERT INTO pump VALUES ('2024-01-01', 1, 1, NULL, '2024-01-01'), "
        "('0000-00-00 00:00:00', 2, 1, NULL, '0000-00-00'), ('2024-01-01 01:00:00', 3, 1, x'dead', '2024-02-00')",
        "SET SESSION sql_mode = DEFAULT",
    )
    dataset = dataset_on(mysql)
    checked = validate(open_source(dataset).read(dataset, settings), dataset)
    assert checked.rows["flow"].tolist() == [1.0]
    assert checked.reasons["time: not an ISO 8601 time of the years 1678 to 2261"] == 1
    assert [count for reason, count in checked.reasons.items() if "binary data" in reason] == [1]
    dataset = dataset_on(mysql, table=None, query="SELECT day AS time, flow, pressure, 'a' AS state FROM pump")
    checked = validate(open_source(dataset).read(dataset, settings), dataset)
    assert (checked.rows["flow"].tolist(), checked.reasons) == (
        [1.0],
        {"time: not an ISO 8601 time of the years 1678 to 2261": 2},
    )


def test_times_of_mysql_are_utc_whatever_the_server_is_set_to(mysql: Database, settings: Settings) -> None:
    mysql.run(
        "DROP TABLE IF EXISTS pump",
        "CREATE TABLE pump (time TIMESTAMP(6), flow DOUBLE, pressure DECIMAL(8,3), state TEXT)",
        "SET time_zone = '-05:00'",
        "INSERT INTO pump VALUES ('2023-12-31 19:00:00', 0.1, 1.250, 'für')",
    )
    dataset = dataset_on(mysql)
    rows = validate(open_source(dataset).read(dataset, settings), dataset).rows
    assert rows["event_timestamp"].tolist() == [pd.Timestamp("2024-01-01T00:00Z")]
    assert rows["state"].tolist() == ["für"]


def test_without_a_watermark_the_source_is_read_whole_in_chunks(database: Database, settings: Settings) -> None:
    fill(database, rows=7)
    dataset = dataset_on(database, chunk_rows=3)
    source = source_of(dataset)
    assert not source.is_incremental(dataset, settings)
    assert source.fingerprint(dataset, settings) is None
    frames = list(source.read_batches(dataset, settings))
    assert [len(frame) for frame in frames] == [3, 3, 1]
    assert list(frames[0].columns) == ["time", "flow", "pressure", "state"]
    with pytest.raises(DataError, match=r"needs source\.options\.watermark_column"):
        list(source.read_since(dataset, settings, None))


def test_rows_are_fetched_as_they_are_needed(database: Database, settings: Settings) -> None:
    """A client-side cursor would have all 40,000 rows, 100 MB, in memory before the first one comes out."""
    query = LONG_QUERIES[database.admin.dialect.name]
    dataset = dataset_on(database, table=None, query=query, chunk_rows=500)

    list(open_source(dataset_on(database, table=None, query=query + " LIMIT 1")).read_batches(dataset, settings))
    before = resident_bytes()
    rows, grown = 0, 0
    for frame in open_source(dataset).read_batches(dataset, settings):
        rows += len(frame)
        grown = max(grown, resident_bytes() - before)
    assert rows == 40_000
    assert grown < 40_000_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("column", ["changed", "number", "state"])
def test_going_on_at_a_position_reads_what_is_new_and_ties(column: str, database: Database, settings: Settings) -> None:
    fill(database)
    dataset = dataset_on(database, watermark_column=column, chunk_rows=4)
    first, position = read_since(dataset, settings, None)
    assert len(first) == 6
    # The same watermark as the last row that was read: committed a moment later.
    add(
        database,
        flow=77,
        **{column: {"changed": dt.datetime(2024, 1, 1, 0, 0, 5), "number": 2**40 + 5}.get(column, "open")},
    )
    fresh, again = read_since(dataset, settings, position)
    assert 77 in fresh["flow"].tolist()
    assert len(fresh) == (2 if column != "state" else 7)
    assert again == position


def test_a_watermark_is_exact_to_the_microsecond(database: Database, settings: Settings) -> None:
    fill(database, rows=3, changed="2024-01-01 00:00:00.123456")
    dataset = dataset_on(database, watermark_column="changed")
    _, position = read_since(dataset, settings, None)
    assert position == {"watermark": "2024-01-01T00:00:02.123456", "type": "datetime"}
    assert len(read_since(dataset, settings, position)[0]) == 1


def test_a_watermark_with_a_time_zone_is_exact(postgres: Database, settings: Settings) -> None:
    postgres.run(
        "DROP TABLE IF EXISTS pump",
        "CREATE TABLE pump (time timestamptz, flow float, pressure float, state text, changed timestamptz)",
        "INSERT INTO pump SELECT t, 1, 1, 'a', t + interval '1 microsecond' FROM generate_series("
        "timestamptz '2024-03-31 00:00:00+01', timestamptz '2024-03-31 05:00:00+02', interval '1 hour') AS t",
    )
    dataset = dataset_on(postgres, watermark_column="changed")
    _, position = read_since(dataset, settings, None)
    assert position == {"watermark": "2024-03-31T03:00:00.000001+00:00", "type": "datetime"}
    fresh, _ = read_since(dataset, settings, position | {"watermark": "2024-03-31T04:00:00.000001+02:00"})
    assert fresh["time"].tolist() == [pd.Timestamp("2024-03-31T02:00Z"), pd.Timestamp("2024-03-31T03:00Z")]


def test_the_overlap_finds_rows_that_were_committed_late(database: Database, settings: Settings) -> None:
    fill(database)
    dataset = dataset_on(database, watermark_column="changed", overlap="3s")
    _, position = read_since(dataset, settings, None)
    add(database, flow=77, changed=dt.datetime(2024, 1, 1, 0, 0, 2, 500_000))
    fresh, _ = read_since(dataset, settings, position)
    assert fresh["flow"].tolist() == [2.0, 77.0, 3.0, 4.0, 5.0]


def test_an_overlap_of_a_number_and_one_that_does_not_fit(database: Database, settings: Settings) -> None:
    fill(database)
    numbers = dataset_on(database, watermark_column="number", overlap=2)
    _, position = read_since(numbers, settings, None)
    assert len(read_since(numbers, settings, position)[0]) == 3
    with pytest.raises(DataError, match=r"overlap '1h' does not fit the watermark"):
        read_since(dataset_on(database, watermark_column="number", overlap="1h"), settings, position)


def test_a_row_stamped_in_the_future_does_not_hide_those_before_it(database: Database, settings: Settings) -> None:
    fill(database)
    add(database, flow=77, changed=dt.datetime(2999, 1, 1))
    dataset = dataset_on(database, watermark_column="changed")
    _, position = read_since(dataset, settings, None)
    present = dt.datetime.fromisoformat(position["watermark"])
    assert abs(present - dt.datetime.now(dt.UTC).replace(tzinfo=None)) < dt.timedelta(hours=15)


def test_no_position_is_in_the_future() -> None:
    ahead = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    for value, zone in ((ahead, dt.UTC), (ahead.replace(tzinfo=None), None)):
        position = encode_watermark(value, hourly_dataset())
        found = dt.datetime.fromisoformat(position["watermark"])
        assert found < value
        assert found.tzinfo == zone
    past = dt.datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=dt.timezone(dt.timedelta(hours=-5)))
    assert decode_watermark(encode_watermark(past, hourly_dataset()), hourly_dataset()) == past


@pytest.mark.parametrize("value", [2**70, Decimal("1.10"), 0.1, "ä", dt.date(2024, 2, 29)])
def test_a_watermark_survives_its_position(value: Any) -> None:
    position = json.loads(json.dumps(encode_watermark(value, hourly_dataset())))
    decoded = decode_watermark(position, hourly_dataset())
    assert (type(decoded), repr(decoded)) == (type(value), repr(value))


def test_a_watermark_of_another_type_is_refused() -> None:
    with pytest.raises(DataError, match="holds values of type bytes; expected times"):
        encode_watermark(b"\0", hourly_dataset())  # type: ignore[arg-type]


def test_rows_without_a_watermark_are_refused(database: Database, settings: Settings) -> None:
    fill(database)
    add(database, flow=77)
    with pytest.raises(DataError, match=r"watermark column 'changed' is NULL in some rows.*COALESCE"):
        read_since(dataset_on(database, watermark_column="changed"), settings, None)


def test_a_position_of_another_source_is_refused(database: Database, settings: Settings) -> None:
    fill(database)
    with pytest.raises(DataError, match=r"stored position .* is not a watermark; read the dataset in full"):
        read_since(dataset_on(database, watermark_column="changed"), settings, {"id": "0-0"})


def test_the_fingerprint_changes_with_new_and_with_late_rows(database: Database, settings: Settings) -> None:
    fill(database)
    dataset = dataset_on(database, watermark_column="changed", overlap="3s")
    seen = [open_source(dataset).fingerprint(dataset, settings) for _ in range(2)]
    assert seen[0] == seen[1]
    for changed in ("2024-01-01 00:00:05", "2024-01-01 00:00:02.5", "2024-01-01 00:01:00"):
        add(database, flow=77, changed=dt.datetime.fromisoformat(changed))
        seen.append(open_source(dataset).fingerprint(dataset, settings))
    assert len(set(seen)) == 4


def test_a_query_is_read_as_it_stands(database: Database, settings: Settings) -> None:
    fill(database)
    query = """
        SELECT time, flow, pressure, CASE WHEN state LIKE 'op%' THEN 'a:b' ELSE '%s' END AS state,
               coalesce(changed, TIMESTAMP '2024-01-01 10:30:00') AS seen
        FROM pump WHERE flow > 3; -- a comment
    """.replace("; -- a comment", " -- a comment")
    dataset = dataset_on(database, table=None, query=query, watermark_column="seen")
    frame, _ = read_since(dataset, settings, None)
    assert frame["state"].tolist() == ["a:b", "a:b"]


def test_names_are_quoted(database: Database, settings: Settings) -> None:
    quote = '"{}"' if database.admin.dialect.name == "postgresql" else "`{}`"
    schema = "odd schema" if database.admin.dialect.name == "postgresql" else database.uri.rpartition("/")[2]
    if database.admin.dialect.name == "postgresql":
        database.run('CREATE SCHEMA IF NOT EXISTS "odd schema"')
    table = f"{quote.format(schema)}.{quote.format('Select; drop.it')}"
    database.run(
        f"DROP TABLE IF EXISTS {table}",
        f"CREATE TABLE {table} (time TIMESTAMP, {quote.format('Order by')} FLOAT, pressure FLOAT, state TEXT)",
    )
    row = {"time": dt.datetime(2024, 1, 1), "Order by": 1.0, "pressure": 2.0, "state": "x"}
    database.insert("Select; drop.it", [row], schema=schema)
    dataset = dataset_on(database, table=f'{schema}."Select; drop.it"').model_copy(
        update={"columns": hourly_dataset(columns={"Order by": {}}).columns}
    )
    assert open_source(dataset).read(dataset, settings)["Order by"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "nowhere"}, "nowhere.*(does not exist|doesn't exist)"),
        ({"table": None, "query": "SELECT time, flow, pressure, state FROM pump WHERE"}, "(?i)syntax"),
        ({"table": None, "query": "SELECT time, flow FROM pump"}, "the query at .* lacks the data columns 'pressure'"),
        ({"watermark_column": "nowhere"}, "lacks the watermark column 'nowhere'; columns found: time, flow"),
    ],
)
def test_what_is_not_there_is_named(
    options: dict[str, Any], message: str, database: Database, settings: Settings
) -> None:
    fill(database)
    dataset = dataset_on(database, **options)
    with pytest.raises(DataError, match=message) as caught:
        open_source(dataset).read(dataset, settings)
    assert not isinstance(caught.value, SourceUnavailableError)


def test_a_query_that_writes_is_refused_by_the_server(postgres: Database, settings: Settings) -> None:
    postgres.run("DROP TABLE IF EXISTS pump", "DROP SEQUENCE IF EXISTS counter", "CREATE SEQUENCE counter")
    query = "SELECT now() AS time, nextval('counter') AS flow, 1 AS pressure, 'x' AS state"
    dataset = dataset_on(postgres, table=None, query=query)
    with pytest.raises(DataError, match="read-only transaction"):
        open_source(dataset).read(dataset, settings)


def test_a_lock_that_writes_is_refused_by_mysql(mysql: Database, settings: Settings) -> None:
    mysql.run("DROP TABLE IF EXISTS pump", "DROP SEQUENCE IF EXISTS counter", "CREATE SEQUENCE counter")
    query = "SELECT now() AS time, nextval(counter) AS flow, 1 AS pressure, 'x' AS state"
    dataset = dataset_on(mysql, table=None, query=query)
    with pytest.raises(DataError, match=r"(?i)read.only transaction"):
        open_source(dataset).read(dataset, settings)


@pytest.mark.parametrize(("uri", "table"), [("postgresql", "pump"), ("mysql", "pump")])
def test_a_server_that_is_not_there_is_worth_another_try(uri: str, table: str, settings: Settings) -> None:
    dataset = hourly_dataset(source={"uri": f"{uri}://127.0.0.1:{free_port()}/db", "options": {"table": table}})
    with pytest.raises(SourceUnavailableError, match=rf"{uri}://127\.0\.0\.1:\d+/db is not available"):
        open_source(dataset).read(dataset, settings)


def everything_said(error: BaseException | None) -> str:
    """The text of an error and of all errors behind it, shown or not."""
    parts = []
    while error is not None:
        parts += [str(error), repr(error), "".join(traceback.format_exception_only(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


@pytest.mark.parametrize("password", [READER_PASSWORD, "not the password"])
def test_a_password_is_used_and_never_shown(
    password: str,
    postgres: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    postgres.run("DROP TABLE IF EXISTS pump")
    fill(postgres)
    monkeypatch.setenv("PUMP_USER", READER)
    monkeypatch.setenv("PUMP_PASSWORD", password)
    caplog.set_level(logging.DEBUG)
    dataset = dataset_on(postgres, user_env="PUMP_USER", password_env="PUMP_PASSWORD", table="nowhere")
    with pytest.raises(DataError) as caught:
        open_source(dataset).read(dataset, settings)
    expected = "does not exist" if password == READER_PASSWORD else "password authentication failed"
    assert expected in str(caught.value)
    assert not isinstance(caught.value, SourceUnavailableError)
    said = everything_said(caught.value) + caplog.text + repr(open_source(dataset)) + repr(dataset)
    assert password not in said


def test_a_wrong_password_for_mysql_is_not_shown(
    mysql: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUMP_USER", "nobody")
    monkeypatch.setenv("PUMP_PASSWORD", READER_PASSWORD)
    dataset = dataset_on(mysql, user_env="PUMP_USER", password_env="PUMP_PASSWORD")
    with pytest.raises(DataError, match="Access denied") as caught:
        open_source(dataset).read(dataset, settings)
    assert not isinstance(caught.value, SourceUnavailableError)
    assert READER_PASSWORD not in everything_said(caught.value)


def test_what_a_driver_repeats_is_scrubbed() -> None:
    credentials = Credentials("ann", "hunter2")
    assert credentials.scrub("login ann:hunter2 failed") == "login ann:*** failed"
    assert Credentials("ann", None).scrub("as it is") == "as it is"
    assert "hunter2" not in repr(credentials)


def test_a_variable_that_is_not_set_is_named(postgres: Database, settings: Settings) -> None:
    dataset = dataset_on(postgres, password_env="PUMP_PASSWORD_NOT_SET")
    with pytest.raises(
        DataError, match=r"'PUMP_PASSWORD_NOT_SET', which source\.options\.password_env names, is not set"
    ):
        open_source(dataset).read(dataset, settings)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ann:hunter2@host/db",
        "postgresql://ann:hun/ter2@host/db",
        "postgresql://host/db?password=hunter2",
        "mysql://host/db?user=ann&passwd=hunter2",
        "redis-stream://:hunter2@host/0/stream",
        "s3://key:hunter2@bucket/x.parquet",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ValidationError, match="uri holds credentials") as caught:
        SourceConfig(uri=uri)
    assert "ter2" not in everything_said(caught.value)


def test_a_password_among_the_options_is_refused_and_not_repeated() -> None:
    dataset = hourly_dataset(source={"uri": "postgresql://host/db", "options": {"table": "t", "password": "hunter2"}})
    with pytest.raises(ConfigError, match=r"source\.options\.password: unknown key; allowed: table") as caught:
        check_source(dataset)
    assert "hunter2" not in everything_said(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either table or query"),
        ({"table": "a", "query": "SELECT 1"}, "give either table or query"),
        ({"table": "a.b.c"}, r"table must be a name or schema\.name"),
        ({"query": "DELETE FROM pump"}, "query must be one SELECT statement"),
        ({"table": "a", "overlap": "1h"}, "overlap needs watermark_column"),
        ({"table": "a", "watermark_column": "b", "overlap": "soon"}, "positive time step"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_source(hourly_dataset(source={"uri": "postgresql://host/db", "options": options}))


@pytest.mark.parametrize(
    "uri", ["postgresql://host", "mysql://host/a/b", "postgresql://a,b/db", "mysql://host:port/db"]
)
def test_a_uri_that_is_not_a_database_says_how_one_is_written(uri: str, settings: Settings) -> None:
    dataset = hourly_dataset(source={"uri": uri, "options": {"table": "t"}})
    with pytest.raises(DataError, match=r"expected (postgresql|mysql)://host:port/database"):
        open_source(dataset).read(dataset, settings)


def test_tls_that_the_server_does_not_have_is_refused(mysql: Database, settings: Settings) -> None:
    with mysql.admin.connect() as connection:
        if connection.exec_driver_sql("SHOW VARIABLES LIKE 'have_ssl'").all() == [("have_ssl", "YES")]:
            pytest.skip("this server has TLS")
    fill(mysql)
    with pytest.raises(DataError, match=r"(?i)ssl"):
        open_source(dataset_on(mysql, ssl="require")).read(dataset_on(mysql, ssl="require"), settings)


def test_a_certificate_that_is_not_there_is_named(database: Database, settings: Settings) -> None:
    dataset = dataset_on(database, ssl="verify-ca", ssl_root_cert="/nowhere.pem")
    with pytest.raises(DataError, match=r"ssl_root_cert names '/nowhere\.pem', which is not a file"):
        open_source(dataset).read(dataset, settings)


def test_tls_options_reach_the_drivers() -> None:
    options = {"table": "t", "ssl": "verify-ca", "ssl_root_cert": certifi.where()}
    postgres = source_of(hourly_dataset(source={"uri": "postgresql://host/db", "options": options}))
    assert postgres.connect_args() | {"connect_timeout": 10} == {
        "connect_timeout": 10,
        "sslmode": "verify-ca",
        "sslrootcert": certifi.where(),
    }
    context = source_of(hourly_dataset(source={"uri": "mysql://host/db", "options": options})).connect_args()["ssl"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert context.cert_store_stats()["x509_ca"] > 0
