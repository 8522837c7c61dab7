"""The connection to MLflow: one tracking and registry server, prepared once."""

from __future__ import annotations

import contextlib
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.locks import FileLock
from mlplatform.settings import Settings, sqlite_file, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException


# A tracking server that takes longer to say that it is there is away.
ANSWER_S = 3.0
# What a SQLite file begins with.
SQLITE_HEADER = b"SQLite format 3\0"


class RegistryAwayError(RuntimeError):
    """There is no registry, it cannot be reached, or its file is none."""


def require_answer(settings: Settings) -> None:
    """Ask a tracking server for anything: MLflow's client would try for minutes before it gives up.

    Raises:
        RegistryAwayError: if it does not answer; never with the password that its address may hold.
    """
    uri = settings.mlflow_tracking_uri.rstrip("/")
    if not uri.startswith(("http://", "https://")):
        return
    import requests

    try:
        requests.get(f"{uri}/health", timeout=ANSWER_S)
    except requests.RequestException as error:
        raise RegistryAwayError(
            f"the tracking server {without_credentials(uri)} of the model registry does not answer "
            f"({type(error).__name__}); start it, or correct MLFLOW_TRACKING_URI"
        ) from None


def _require_database(path: Path) -> None:
    """Refuse a file that is no database, before it is asked in words that do not name it.

    Raises:
        RegistryAwayError: if it holds something else.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        begins = file.read(len(SQLITE_HEADER))
        if begins and begins != SQLITE_HEADER:
            raise RegistryAwayError(
                f"{path} should be the model registry's database, but is no SQLite file; put back a copy, or move it "
                "away to begin an empty one"
            )


@lru_cache(maxsize=8)
def _prepare(uri: str) -> None:
    """Create MLflow's SQLite database once; parallel first uses would race to migrate it."""
    path = sqlite_file(uri)
    if path is None:
        return
    from mlflow.tracking import MlflowClient

    _require_database(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with FileLock(path.with_name(f"{path.name}.lock")):
        MlflowClient(uri).search_experiments(max_results=1)


def open_tracking(settings: Settings) -> None:
    """Point MLflow's module-level functions at the platform's server, preparing it on first use."""
    import mlflow

    # A progress bar per model and reader, or a note per example, says nothing in a run log.
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Nothing of the platform is a pickle, so nothing that MLflow loads in its processes has a reason to be one.
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    _prepare(settings.mlflow_tracking_uri)
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    mlflow.set_registry_uri(settings.mlflow_tracking_uri)


def client_for(settings: Settings) -> MlflowClient:
    """Return a client of the platform's MLflow server."""
    from mlflow import MlflowClient

    open_tracking(settings)
    return MlflowClient(settings.mlflow_tracking_uri, settings.mlflow_tracking_uri)


def mlflow_error() -> type[MlflowException]:
    """Return the class of MLflow's errors, for an `except`: it asks only once something was raised.

    So looking at a registry that MLflow need not be imported for (`local_reader`) does not import it after all.
    """
    from mlflow.exceptions import MlflowException

    return MlflowException


def experiment_id(settings: Settings, name: str) -> str:
    """Return the id of an MLflow experiment, creating it with the platform's artifact root if needed."""
    from mlflow.exceptions import MlflowException

    client = client_for(settings)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name, artifact_location=f"{settings.mlflow_artifact_root}/{name}"))
    except MlflowException:
        # Another process created it in between.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)
