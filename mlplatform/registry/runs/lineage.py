"""Which rows a pair was trained on, kept with its MLflow run."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.datamodule import TrainingRows
from mlplatform.registry.pairs import PairInfo, PairIntegrityError, PairStore

if TYPE_CHECKING:
    from mlflow.entities import Run

FOLDER, FILE = "lineage", "training_rows.parquet"
TAG = "lineage.training_rows"


def record_training_rows(rows: TrainingRows) -> None:
    """Keep the rows with the active MLflow run."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        rows.save(path)
        mlflow.log_artifact(str(path), FOLDER)
        mlflow.set_tag(TAG, _sha256(path))


def read_training_rows(store: PairStore, info: PairInfo, run: Run | None = None) -> TrainingRows | None:
    """Return the rows that a pair was trained on; None if its run does not say.

    Runs of earlier versions kept no rows; those of forecasts say from when to when they were.

    Parameters:
        run: the pair's training run, where it was fetched already.

    Raises:
        PairIntegrityError: if they are gone or were changed.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    run = run or store.client.get_run(info.run_id)
    if TAG not in run.data.tags:
        first, last = (run.data.params.get(f"data.train.{end}") for end in ("start", "end"))
        return TrainingRows.between(first, last) if info.contract.task == "forecast" and first and last else None
    where = f"{FOLDER}/{FILE} of MLflow run {info.run_id} of {info.name} version {info.version}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/{FOLDER}/{FILE}", dst_path=folder)
        except (MlflowException, OSError) as error:
            raise PairIntegrityError(f"{where} is missing, which says what the pair was trained on: {error}") from error
        if _sha256(Path(found)) != run.data.tags[TAG]:
            raise PairIntegrityError(f"{where} was changed after it was stored; train again")
        return TrainingRows.load(Path(found))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
