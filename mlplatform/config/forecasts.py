"""Where the forecasts of every entity go, beside the table that the platform keeps itself."""

from __future__ import annotations

from pydantic import Field

from mlplatform.config.base import Frozen


class ForecastDatabase(Frozen):
    """A table of an SQL database.

    Attributes:
        address_env: the environment variable that holds the address as SQLAlchemy writes it, password included.
        table: `name` or `schema.name`; made where it is not there.
    """

    address_env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    table: str = Field(default="forecasts", pattern=r"^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$")


class ForecastsConfig(Frozen):
    """How the forecasts of all entities are made and where they go.

    Attributes:
        chunk_entities: entities that are read and answered at a time; bounds the memory of a run.
        path: a folder or an address that fsspec knows, which gets a copy of every table.
        database: a table that gets the same rows.
    """

    chunk_entities: int = Field(default=500, ge=1)
    path: str | None = Field(default=None, min_length=1)
    database: ForecastDatabase | None = None
