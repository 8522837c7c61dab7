"""The connection to MLflow: one tracking and registry server, prepared once."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING

from mlplatform.locks import FileLock
from mlplatform.settings import Settings, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException


@lru_cache(maxsize=8)
def _prepare(uri: str) -> None:
    """Create MLflow's SQLite database once; parallel first uses would race to migrate it."""
    path = sqlite_file(uri)
    if path is None:
        return
    from mlflow.tracking import MlflowClient

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
