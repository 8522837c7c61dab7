"""MLflow's SQLite file, read without MLflow: its import alone takes longer than all that a look at the registry asks.

Here: what looking at pairs asks of a `MlflowClient`, answered in the client's words from the tables of the one schema
that is known; `local_reader` says whether the registry is such a file.
Not here: writing, and every other database, which are MLflow's own.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from urllib.parse import quote

from mlplatform.settings import Settings, sqlite_file

# The schema that the queries below are written for, as MLflow's migrations call it: that of the pinned MLflow.
SCHEMA = "dc11669786a5"
WAIT_S = 5.0
_OF_MODEL = re.compile(r"name='(?P<model>.*)'")
# MLflow keeps a deleted version as a row in this stage.
_KEPT = "current_stage <> 'Deleted_Internal'"
# MLflow's servers may keep registries of several workspaces apart; without such a server there is one.
_WORKSPACE = "workspace = 'default'"
_OURS = f"name = ?1 AND {_WORKSPACE}"


@dataclass(frozen=True)
class StoredVersion:
    """A version of a registered model, as far as readers of pairs look."""

    version: str
    run_id: str | None
    creation_timestamp: int
    tags: Mapping[str, str]


@dataclass(frozen=True)
class StoredModel:
    """A registered model, as far as readers of pairs look."""

    name: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Page(list[Any]):
    """All that was asked for, on one page."""

    token = None


class LocalReader:
    """Reads a registry as `MlflowClient` does, with methods of the same names; each is one read of one moment."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def search_registered_models(self, **_: object) -> Page:
        """Return every registered model, without its tags and aliases."""
        query = f"SELECT name FROM registered_models WHERE {_WORKSPACE} ORDER BY name"  # noqa: S608 - as above
        return Page(StoredModel(name) for (name,) in self._read(query))

    def get_registered_model(self, name: str) -> StoredModel:
        """Return a model with its tags and aliases.

        Raises:
            MlflowException: if there is none.
        """
        rows = self._read(
            f"SELECT 'model', '', '' FROM registered_models WHERE {_OURS} "  # noqa: S608 - conditions of ours
            f"UNION ALL SELECT 'tag', key, value FROM registered_model_tags WHERE {_OURS} "
            f"UNION ALL SELECT 'alias', alias, CAST(version AS TEXT) FROM registered_model_aliases WHERE {_OURS}",
            name,
        )
        if not rows:
            _absent(f"no registered model {name!r}")
        parts = {kind: {key: value for of, key, value in rows if of == kind} for kind in ("alias", "tag")}
        return StoredModel(name, parts["alias"], parts["tag"])

    def get_model_version(self, name: str, version: str) -> StoredVersion:
        """Return one version.

        Raises:
            MlflowException: if there is none.
        """
        found = self._versions(f"{_OURS} AND version = ?2 AND {_KEPT}", name, int(version))
        if not found:
            _absent(f"no version {version} of {name!r}")
        return found[0]

    def search_model_versions(self, filter_string: str, **_: object) -> Page:
        """Return all versions of a model, the newest first.

        Raises:
            ValueError: if the filter is another than `name='<model>'`.
        """
        matched = _OF_MODEL.fullmatch(filter_string)
        if matched is None or "'" in matched["model"]:
            raise ValueError(f"{filter_string!r} is not read here; use a PairStore that asks MLflow")
        return Page(self._versions(f"{_OURS} AND {_KEPT}", matched["model"]))

    def get_run(self, run_id: str) -> SimpleNamespace:
        """Return a run's metrics, as `run.data.metrics`.

        Raises:
            MlflowException: if there is no such run.
        """
        if not self._read("SELECT 1 FROM runs WHERE run_uuid = ?", run_id):
            _absent(f"no run {run_id}")
        rows = self._read("SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = ?", run_id)
        metrics = {key: float("nan") if is_nan else value for key, value, is_nan in rows}
        return SimpleNamespace(data=SimpleNamespace(metrics=metrics))

    def _versions(self, condition: str, *values: object) -> list[StoredVersion]:
        rows = self._read(
            "SELECT version, run_id, creation_time, key, value FROM model_versions "  # noqa: S608 - conditions of ours
            f"LEFT JOIN model_version_tags USING (workspace, name, version) WHERE {condition} ORDER BY version DESC",
            *values,
        )
        tags: dict[int, dict[str, str]] = {}
        for version, _run, _created, key, value in rows:
            tags.setdefault(version, {})
            if key is not None:
                tags[version][key] = value
        first = {version: (run_id, created) for version, run_id, created, _key, _value in rows}
        return [StoredVersion(str(version), *first[version], tags[version]) for version in tags]

    def _read(self, query: str, *values: object) -> list[Any]:
        if not self._file.exists():
            return []
        try:
            return _rows(self._file, query, *values)
        except sqlite3.Error as error:
            from mlflow.exceptions import MlflowException

            raise MlflowException(f"{self._file} cannot be read: {error}") from error


def local_reader(settings: Settings) -> LocalReader | None:
    """Return a reader of the registry's file; `None` where it is none of the known schema, so that MLflow is asked.

    Where there is no file yet there is nothing to read, and none is made.
    """
    file = sqlite_file(settings.mlflow_tracking_uri)
    if file is None:
        return None
    if not file.exists():
        return LocalReader(file)
    try:
        known = _rows(file, "SELECT version_num FROM alembic_version") == [(SCHEMA,)]
    except sqlite3.Error:
        return None
    return LocalReader(file) if known else None


def _rows(file: Path, query: str, *values: object) -> list[Any]:
    connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=WAIT_S)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def _absent(what: str) -> NoReturn:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    raise MlflowException(f"There is {what}", RESOURCE_DOES_NOT_EXIST)
