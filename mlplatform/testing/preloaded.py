"""What the server of `forks` imports before the first process: being imported is all that this module is for."""

from __future__ import annotations

import gc
import importlib

from mlplatform.feast_import import import_feast

# Nothing that reads the configuration when it is imported: every process has its own.
PRELOADED = (
    "dagster._cli",
    "feast.cli.cli",
    "feast.infra.offline_stores.file_source",
    "matplotlib.figure",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "optuna",
    "torch",
    "xgboost",
    "mlplatform.defs",
    "mlplatform.features",
    "mlplatform.models",
    "mlplatform.promotion",
    "mlplatform.registry",
    "mlplatform.testing.forks",
    "mlplatform.training",
    "mlplatform.tuning",
)


def preload() -> None:
    """Import it all without looking for garbage, of which there is none, neither now nor later in every process."""
    gc.disable()
    import_feast()
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()


preload()
