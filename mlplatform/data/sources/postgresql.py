"""PostgreSQL: `postgresql://host:port/database` (or `postgres://`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from mlplatform.data.sources.cells import OutOfRange
from mlplatform.data.sources.servers import Address, Credentials
from mlplatform.data.sources.sql import SqlSource
from mlplatform.plugins import SOURCES

if TYPE_CHECKING:
    from psycopg.adapt import Loader
    from sqlalchemy import URL

# What can be infinite, before the year 1 or after 9999, or 24:00.
TIMES = ("timestamp", "timestamptz", "date", "time", "timetz")
# Classes of SQLSTATE: connection, insufficient resources, operator intervention, transaction rollback.
TRANSIENT_CLASSES = ("08", "53", "57", "40")
# What a server says that is there but not ready. Any other FATAL while connecting is a refusal.
NOT_READY = ("starting up", "shutting down", "in recovery mode", "too many clients", "connection slots")


@SOURCES.register("postgresql")
@SOURCES.register("postgres")
class PostgresSource(SqlSource):
    """A table or query of a PostgreSQL database."""

    expected = "postgresql://host:port/database, or postgresql:///database?host=<folder of the server's socket>"
    session = ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET TIME ZONE 'UTC'")

    def url(self, address: Address, credentials: Credentials) -> URL:
        """Return the URL for psycopg; see `SqlSource.url`."""
        import sqlalchemy as sa

        host, port = address.hosts[0] if address.hosts else (None, None)
        return sa.URL.create(
            "postgresql+psycopg",
            credentials.user,
            credentials.password,
            host or address.query.get("host"),
            port,
            address.path[0],
        )

    def connect_args(self) -> dict[str, Any]:
        """Return libpq's parameters; see `SqlSource.connect_args`."""
        arguments: dict[str, Any] = {"connect_timeout": self.params.connect_timeout_s, "sslmode": self.params.ssl}
        if self.params.ssl_root_cert is not None:
            arguments["sslrootcert"] = self.params.ssl_root_cert
        return arguments

    @override
    def _prepare(self, connection: Any, record: object) -> None:
        super()._prepare(connection, record)
        for name in TIMES:
            oid = connection.adapters.types[name].oid
            connection.adapters.register_loader(oid, _lenient(connection.adapters.get_loader(oid, 0)))

    def is_transient(self, error: BaseException) -> bool:
        """Judge by SQLSTATE, and while connecting, where there is none, by the text; see `SqlSource.is_transient`."""
        import psycopg

        state = getattr(error, "sqlstate", None)
        if state is not None:
            return str(state).startswith(TRANSIENT_CLASSES)
        text = str(error)
        is_refusal = "FATAL" in text and not any(phrase in text for phrase in NOT_READY)
        return isinstance(error, psycopg.OperationalError) and not is_refusal and "SSL" not in text


def _lenient(strict: type[Loader]) -> type[Loader]:
    """Return a loader that leaves what Python cannot hold as text: one such cell is no reason to read no row at all."""
    from psycopg import DataError
    from psycopg.adapt import Loader

    class Lenient(Loader):
        """Asks the strict loader; it is no subclass, because those in C would be called past it."""

        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._strict = strict(oid, context)

        def load(self, data: Any) -> Any:
            """Return a time, or its text."""
            try:
                return self._strict.load(data)
            except DataError:
                return OutOfRange(bytes(data).decode())

    return Lenient
