"""PostgreSQL: `postgresql://host:port/database` (or `postgres://`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlplatform.data.sources.servers import Address, Credentials
from mlplatform.data.sources.sql import SqlSource
from mlplatform.plugins import SOURCES

if TYPE_CHECKING:
    from sqlalchemy import URL

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

    def is_transient(self, error: BaseException) -> bool:
        """Judge by SQLSTATE, and while connecting, where there is none, by the text; see `SqlSource.is_transient`."""
        import psycopg

        state = getattr(error, "sqlstate", None)
        if state is not None:
            return str(state).startswith(TRANSIENT_CLASSES)
        text = str(error)
        is_refusal = "FATAL" in text and not any(phrase in text for phrase in NOT_READY)
        return isinstance(error, psycopg.OperationalError) and not is_refusal and "SSL" not in text
