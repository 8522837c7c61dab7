"""The connection to MLflow: whatever the state folder is called, its database lies there and nowhere else."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from typing_extensions import override

from mlplatform.registry.tracking import client_for, experiment_id
from mlplatform.settings import Settings
from mlplatform.testing.yard import place_database

PICKLES = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


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


class Pickled(mlflow.pyfunc.PythonModel):
    """A model that MLflow can only pickle."""

    @override
    def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
        return model_input


@pytest.mark.parametrize(("before", "after"), [(None, "false"), ("true", "true")], ids=["by default", "as asked for"])
def test_a_process_of_the_platform_reads_no_pickled_model_unless_told_to(
    before: str | None, after: str, mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PICKLES, "true")
    mlflow.pyfunc.save_model(str(tmp_path / "model"), python_model=Pickled(), pip_requirements=[])
    if before is None:
        monkeypatch.delenv(PICKLES)
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home")})
    place_database(mlflow_database, settings)
    client_for(settings)
    assert os.environ[PICKLES] == after
    with pytest.raises(MlflowException, match=PICKLES) if after == "false" else contextlib.nullcontext():
        mlflow.pyfunc.load_model(str(tmp_path / "model"))
