"""What sources behind a server share: reading the address out of a URI, and credentials that never reach a message."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from mlplatform.config import DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.settings import secret_from_env


@dataclass(frozen=True)
class Address:
    """The parts of `scheme://hosts/path?query`.

    Attributes:
        hosts: `(host, port)` pairs, the port `None` if the URI does not name one; empty if there is no host.
        path: the parts of the path between slashes.
        query: the parameters behind the question mark.
    """

    hosts: tuple[tuple[str, int | None], ...]
    path: tuple[str, ...]
    query: dict[str, str]


@dataclass(frozen=True)
class Credentials:
    """A user and a password, each possibly `None`; neither is part of `repr`."""

    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def scrub(self, text: str) -> str:
        """Return `text` without the password, in case a driver or server repeats it."""
        return text.replace(self.password, "***") if self.password else text


def parse_address(dataset: DatasetConfig, expected: str) -> Address:
    """Split `source.uri` into its parts.

    Parameters:
        expected: how a URI of this source is written, for the message.

    Raises:
        DataError: if it is not written like that, or names a user.
    """
    parts = urlsplit(dataset.source.uri)
    if "@" in parts.netloc:
        raise DataError(
            f"dataset {dataset.name!r}: source.uri names a user (it is not repeated here); expected {expected}, and "
            "the names of environment variables in source.options.user_env and password_env"
        )
    try:
        hosts = tuple(
            (host.hostname or "", host.port)
            for host in (urlsplit(f"//{entry}") for entry in parts.netloc.split(",") if entry)
        )
    except ValueError as error:
        raise DataError(f"dataset {dataset.name!r}: {dataset.source.uri!r}: {error}; expected {expected}") from error
    path = tuple(unquote(part) for part in parts.path.split("/") if part)
    return Address(hosts, path, dict(parse_qsl(parts.query)))


def read_credentials(dataset: DatasetConfig, user_env: str | None, password_env: str | None) -> Credentials:
    """Read the credentials whose environment variables the options name.

    Raises:
        DataError: if a variable is not set.
    """
    return Credentials(
        user=user_env and required_secret(dataset, "user_env", user_env),
        password=password_env and required_secret(dataset, "password_env", password_env),
    )


def required_secret(dataset: DatasetConfig, option: str, name: str) -> str:
    """Return the environment variable `name` that `source.options.<option>` asks for.

    Raises:
        DataError: if it is unset or empty.
    """
    value = secret_from_env(name)
    if value is None:
        raise DataError(
            f"dataset {dataset.name!r}: the environment variable {name!r}, which source.options.{option} names, is not "
            "set; set it for the process that reads the data"
        )
    return value
