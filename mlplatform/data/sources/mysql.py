"""MySQL and MariaDB: `mysql://host:port/database` (or `mariadb://`)."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from mlplatform.data.sources.servers import Address, Credentials
from mlplatform.data.sources.sql import SqlSource
from mlplatform.plugins import SOURCES

if TYPE_CHECKING:
    from sqlalchemy import URL

# Too many connections, shutdown, lock timeout, deadlock; cannot connect, gone away, lost while reading.
TRANSIENT_CODES = frozenset({1040, 1053, 1205, 1213, 2002, 2003, 2006, 2013})
# A reader that stores a batch before it fetches the next one keeps the server waiting longer than its default minute.
WRITE_TIMEOUT_S = 3600


@SOURCES.register("mysql")
@SOURCES.register("mariadb")
class MySqlSource(SqlSource):
    """A table or query of a MySQL or MariaDB database."""

    expected = "mysql://host:port/database, or mysql:///database?unix_socket=<the server's socket>"
    session = (
        "SET SESSION TRANSACTION READ ONLY",
        f"SET SESSION time_zone = '+00:00', net_write_timeout = {WRITE_TIMEOUT_S}",
    )

    def url(self, address: Address, credentials: Credentials) -> URL:
        """Return the URL for PyMySQL; see `SqlSource.url`."""
        import sqlalchemy as sa

        host, port = address.hosts[0] if address.hosts else (None, None)
        query = {"charset": "utf8mb4"}
        if "unix_socket" in address.query:
            query["unix_socket"] = address.query["unix_socket"]
        return sa.URL.create(
            "mysql+pymysql", credentials.user, credentials.password, host, port, address.path[0], query
        )

    def connect_args(self) -> dict[str, Any]:
        """Return PyMySQL's arguments; see `SqlSource.connect_args`."""
        arguments: dict[str, Any] = {"connect_timeout": self.params.connect_timeout_s}
        if self.params.ssl == "disable":
            return arguments | {"ssl_disabled": True}
        if self.params.ssl == "prefer":
            return arguments  # what PyMySQL does by itself
        context = ssl.create_default_context(cafile=self.params.ssl_root_cert)
        context.check_hostname = self.params.ssl == "verify-full"
        if self.params.ssl == "require":
            context.verify_mode = ssl.CERT_NONE
        return arguments | {"ssl": context}

    def is_transient(self, error: BaseException) -> bool:
        """Judge by the error's code; see `SqlSource.is_transient`."""
        return bool(error.args) and error.args[0] in TRANSIENT_CODES
