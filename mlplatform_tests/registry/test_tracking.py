"""The connection to MLflow: whatever the state folder is called, its database lies there and nowhere else."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from mlplatform.registry.tracking import client_for, experiment_id
from mlplatform.settings import Settings


@pytest.mark.parametrize("name", ["a?b", "%41#c"])
def test_runs_are_kept_in_the_state_folder_whatever_it_is_called(
    name: str, mlflow_database: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "state" / name
    settings = Settings.from_env({"MLPLATFORM_HOME": str(folder)})
    database = folder / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    shutil.copy(mlflow_database, database)
    client = client_for(settings)
    run = client.create_run(experiment_id(settings, "yard"))
    client.log_text(run.info.run_id, "kept", "note.txt")
    stored = sqlite3.connect(database).execute("SELECT run_uuid FROM runs").fetchall()
    assert stored == [(run.info.run_id,)]
    assert [path.read_text() for path in folder.rglob("note.txt")] == ["kept"]
    assert list((tmp_path / "state").iterdir()) == [folder]
