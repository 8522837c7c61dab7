"""The log in PostgreSQL is the log in files, whatever happens to the server and to acknowledgements."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from mlplatform.models import Bounds
from mlplatform.monitoring.prediction_log import (
    PredictionLog,
    ServedPredictions,
    maintain_predictions,
    prediction_batches,
    prediction_days,
    read_predictions,
    summarise_predictions,
)
from mlplatform.monitoring.prediction_log.database import Database
from mlplatform.settings import Settings
from mlplatform_tests.data.servers import start_postgres
from mlplatform_tests.monitoring.test_prediction_log import SERVED, forecasts, various

DAY = dt.timedelta(days=1)
DROP = [f"DROP TABLE IF EXISTS mlplatform_{name}" for name in ("predictions", "prediction_flushes")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server, with an empty database `log`."""
    server = start_postgres(tmp_path_factory.mktemp("postgres"))
    parts = urlsplit(server.get_uri())
    address = f"postgresql+psycopg://{parts.username}@/postgres?{parts.query}"
    administer(address, "CREATE DATABASE log")
    yield address
    server.cleanup()


def administer(server: str, *statements: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


@pytest.fixture
def database(server: str) -> str:
    """The address of an empty database."""
    address = sa.make_url(server).set(database="log").render_as_string(hide_password=False)
    administer(address, *DROP)
    return address


@pytest.fixture
def settings(tmp_path: Path, database: str) -> Settings:
    return at(tmp_path, MLPLATFORM_PREDICTION_LOG_URL=database)


def at(home: Path, **variables: str) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(home), **variables})


def open_log(settings: Settings, experiment: str = "tiny") -> PredictionLog:
    return PredictionLog(settings, experiment, flush_interval_s=3600)


def with_intervals(request: ServedPredictions) -> ServedPredictions:
    """Return a request that was answered with intervals of two coverages."""
    values = request.values
    return replace(
        request, lower=values - 1, upper=values + 1, coverage=0.8, others=(Bounds(values - 2, values + 2, 0.95),)
    )


def test_a_table_of_an_earlier_version_is_read_and_gets_the_columns_that_came_since(
    settings: Settings, database: str
) -> None:
    log = open_log(settings)
    log.append(forecasts("before"))
    log.close()
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE mlplatform_predictions DROP COLUMN intervals")
    engine.dispose()
    assert read_predictions(settings, "tiny")["intervals"].isna().all()
    log = open_log(settings)
    log.append(with_intervals(forecasts("after", SERVED + DAY)))
    log.close()
    found = read_predictions(settings, "tiny").set_index("request_id")["intervals"]
    assert found["before"].isna().all()
    assert [each["coverage"] for each in found["after"].iloc[0]] == [0.8, 0.95]


def test_it_holds_what_the_files_hold(settings: Settings, tmp_path: Path) -> None:
    assert read_predictions(settings, "tiny").empty
    files = at(tmp_path / "files")
    requests = [
        *various(),
        replace(forecasts("later", SERVED + 2 * DAY), entity_ids=["", 'a "quoted", text\nof two lines']),
        with_intervals(forecasts("wide", SERVED + 2 * DAY)),
    ]
    for place in (settings, files):
        log = open_log(place)
        for request in requests:
            log.append(request)
        log.close()
        assert (log.written_rows, log.dropped_rows) == (12 + 3 + 3 + 18 + 12 + 12, 0)
    pd.testing.assert_frame_equal(read_predictions(settings, "tiny"), read_predictions(files, "tiny"))
    assert not settings.predictions_dir.exists()
    some = (SERVED + DAY, SERVED + 3 * DAY, ["entity_id", "value"])
    pd.testing.assert_frame_equal(read_predictions(settings, "tiny", *some), read_predictions(files, "tiny", *some))
    batches = pa.Table.from_batches(prediction_batches(settings, "tiny", until=SERVED + DAY))
    assert batches.num_rows == 36
    ours, theirs = summarise_predictions(settings, "tiny"), summarise_predictions(files, "tiny")
    assert replace(ours, place="") == replace(theirs, place="")
    assert read_predictions(settings, "other").empty
    # Both tell the days, and that one of them has got rows.
    days, others = prediction_days(settings, "tiny"), prediction_days(files, "tiny")
    assert list(days) == list(others) == [SERVED.date(), (SERVED + 2 * DAY).date()]
    for place, before in ((settings, days), (files, others)):
        log = open_log(place)
        log.append(forecasts("one more", SERVED + 2 * DAY))
        log.close()
        after = prediction_days(place, "tiny")
        assert [after[day] == before[day] for day in after] == [True, False]


def test_a_write_whose_success_went_unheard_of_adds_nothing_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(settings)
    log.append(forecasts("r1"))
    write = Database.write

    def write_and_lose_the_answer(self: Database, flush_id: str, rows: pa.Table) -> int:
        write(self, flush_id, rows)
        raise ConnectionResetError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", write_and_lose_the_answer)
        with pytest.raises(ConnectionResetError):
            log.flush()
    assert log.buffered_rows == 12
    log.append(forecasts("r2"))
    log.close()
    assert read_predictions(settings, "tiny").request_id.tolist() == ["r1"] * 12 + ["r2"] * 12


def test_rows_wait_while_the_database_is_away(settings: Settings, server: str, database: str) -> None:
    log = PredictionLog(settings, "tiny", flush_interval_s=3600, max_rows=30)
    log.append(forecasts("r0"))
    log.flush()
    administer(server, "ALTER DATABASE log ALLOW_CONNECTIONS false")
    for number in range(1, 5):
        log.append(forecasts(f"r{number}"))
        with pytest.raises(sa.exc.OperationalError):
            log.flush()
    assert (log.buffered_rows, log.dropped_rows) == (24, 24)
    administer(server, "ALTER DATABASE log ALLOW_CONNECTIONS true")
    log.flush()
    assert (log.buffered_rows, log.written_rows) == (0, 36)
    assert read_predictions(settings, "tiny").request_id.unique().tolist() == ["r0", "r3", "r4"]
    # A table that was dropped meanwhile is made again.
    administer(database, *DROP)
    log.append(forecasts("r5"))
    with pytest.raises(sa.exc.ProgrammingError):
        log.flush()
    log.close()
    assert read_predictions(settings, "tiny").request_id.unique().tolist() == ["r5"]


def test_first_uses_at_once_lose_nothing(settings: Settings) -> None:
    logs = [open_log(settings, f"e{number}") for number in range(4)]
    for log in logs:
        log.append(forecasts())
    threads = [threading.Thread(target=log.flush) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(read_predictions(settings, log.experiment)) for log in logs] == [12] * 4
    for log in logs:
        log.close()


@pytest.mark.parametrize("text", ["nul\x00", "end\n\\.\nof data"], ids=["NUL", "end of data"])
def test_text_that_the_database_cannot_hold_costs_its_rows(settings: Settings, text: str) -> None:
    log = open_log(settings)
    log.append(replace(forecasts("r1"), entity_ids=["good", text]))
    log.append(forecasts("r2"))
    log.close()
    assert (log.written_rows, log.dropped_rows) == (18, 6)
    assert read_predictions(settings, "tiny").entity_id.unique().tolist() == ["good", "0", "1"]


def test_old_days_are_deleted_of_one_experiment(settings: Settings, tmp_path: Path, database: str) -> None:
    for experiment in ("tiny", "other"):
        log = open_log(settings, experiment)
        for age in range(4):
            log.append(forecasts(f"r{age}", SERVED - age * DAY))
        log.close()
    assert maintain_predictions(settings, "tiny", SERVED).deleted_rows == 0
    keeping = at(tmp_path, MLPLATFORM_PREDICTION_LOG_URL=database, MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS="1")
    assert maintain_predictions(keeping, "tiny", SERVED).deleted_rows == 24
    assert read_predictions(settings, "tiny").request_id.unique().tolist() == ["r1", "r0"]
    assert len(read_predictions(settings, "other")) == 48


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("sqlite:///log.db", "must name a PostgreSQL database, .* but begins with 'sqlite'"),
        ("mysql://me:secret@host/log", "must name a PostgreSQL database, .* but begins with 'mysql'"),
        ("me:secret", "must be an address of SQLAlchemy"),
    ],
    ids=["sqlite", "mysql", "no address"],
)
def test_another_address_is_refused_at_once_and_not_shown(tmp_path: Path, address: str, found: str) -> None:
    with pytest.raises(ValueError, match=f"MLPLATFORM_PREDICTION_LOG_URL {found}") as caught:
        open_log(at(tmp_path, MLPLATFORM_PREDICTION_LOG_URL=address))
    assert "secret" not in str(caught.value)
