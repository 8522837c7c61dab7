"""The registry's file read without MLflow says what MLflow says, and knows when to leave it to MLflow."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlplatform.registry.local_reader import SCHEMA, LocalReader, local_reader
from mlplatform.registry.pairs import PairNotFoundError, PairStore
from mlplatform.settings import Settings, sqlite_file
from mlplatform.testing.tiny_pair import NAME, TinyRegistry

REFS = ("production", "previous", "staging", "latest", "canary", "1", "2", "9")


def test_pairs_are_found_as_mlflow_finds_them(tiny: TinyRegistry) -> None:
    store = tiny.store
    store.promote(NAME, 1, "test", "the first")
    store.promote(NAME, 3, "test", "better")
    store.client.delete_model_version(f"{NAME}_model", "2")
    looking = PairStore.for_looking(tiny.settings)
    assert isinstance(looking.client, LocalReader)
    assert looking.names() == store.names() == [NAME]
    assert {ref: looking.find(NAME, ref) for ref in REFS} == {ref: store.find(NAME, ref) for ref in REFS}
    assert looking.refusal(NAME) == store.refusal(NAME)
    assert looking.history(NAME) == store.history(NAME)
    assert looking.versions(NAME) == store.versions(NAME) == [3, 1]
    assert looking.alias_versions(NAME) == store.alias_versions(NAME)


def test_what_is_not_there_is_said_as_mlflow_says_it(tiny: TinyRegistry) -> None:
    looking = PairStore.for_looking(tiny.settings)
    assert looking.find("nothing", "latest") is None
    with pytest.raises(PairNotFoundError, match="no pair 'nothing' was ever registered"):
        looking.versions("nothing")
    with pytest.raises(MlflowException, match="no run nowhere"):
        looking.client.get_run("nowhere")
    with pytest.raises(ValueError, match="use a PairStore that asks MLflow"):
        looking.of_run(NAME, tiny.run_id)


def test_the_metrics_of_a_run_are_read(tiny: TinyRegistry) -> None:
    client = tiny.store.client
    for name, value in {"mae": 0.1, "mase": float("nan"), "huge": float("inf")}.items():
        client.log_metric(tiny.run_id, name, 7.0)
        client.log_metric(tiny.run_id, name, value)
    looking = PairStore.for_looking(tiny.settings).client
    found, expected = (each.get_run(tiny.run_id).data.metrics for each in (looking, client))
    assert str(found) == str(expected)


def test_the_schema_is_that_of_the_installed_mlflow(empty: Settings) -> None:
    assert isinstance(local_reader(empty), LocalReader), (
        f"MLflow {mlflow.__version__} has another schema than {SCHEMA}: compare the tables that `LocalReader` reads "
        "with MLflow's, then name the new schema; until then `mlplatform status` asks MLflow"
    )


def test_where_nothing_was_registered_nothing_is_found_and_nothing_made(empty: Settings, tmp_path: Path) -> None:
    file = tmp_path / "nothing.db"
    absent = replace(empty, mlflow_tracking_uri=f"sqlite:///{file}")
    for store in (PairStore.for_looking(absent), PairStore.of_existing(absent)):
        assert store.names() == []
        assert store.find(NAME, "production") is None
        with pytest.raises(PairNotFoundError, match="run mlplatform train"):
            store.resolve(NAME, "latest")
    assert not file.exists()
    assert isinstance(PairStore.of_existing(empty).client, mlflow.MlflowClient)


def test_mlflow_is_asked_where_the_registry_is_another_database(empty: Settings) -> None:
    assert local_reader(replace(empty, mlflow_tracking_uri="http://127.0.0.1:1")) is None
    file = sqlite_file(empty.mlflow_tracking_uri)
    assert file is not None
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'another'")
    assert local_reader(empty) is None
    file.write_bytes(b"no database" * 100)
    assert local_reader(empty) is None


def test_status_does_not_import_mlflow(tiny: TinyRegistry) -> None:
    program = (
        "import sys; from mlplatform.api import status; print(len(status(with_servers=False).experiments)); "
        "assert 'mlflow' not in sys.modules, 'MLflow was imported'"
    )
    conf = tiny.settings.home / "conf"
    (conf / "experiment").mkdir(parents=True)
    (conf / "experiment" / f"{NAME}.yaml").write_text("# @package _global_\n", encoding="utf-8")
    environment = {
        **os.environ,
        "MLPLATFORM_HOME": str(tiny.settings.home),
        "MLPLATFORM_CONF_DIR": str(conf),
        "MLFLOW_TRACKING_URI": tiny.settings.mlflow_tracking_uri,
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr
