"""Tests of where a Dagster instance keeps its databases, with the project's own `dagster.yaml`."""

import shutil
from pathlib import Path

import pytest
from dagster import DagsterInstance, job

from mlplatform.settings import PACKAGE_ROOT, AddressError


@job
def nothing() -> None:
    pass


def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(PACKAGE_ROOT.parent / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


@pytest.mark.parametrize("name", ["a?b", "%41"])
def test_a_folder_that_dagster_would_miss_is_refused_before_any_database(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home(tmp_path / "state" / name, monkeypatch)
    with pytest.raises(AddressError, match=r"DAGSTER_HOME is .* would keep its databases elsewhere"):
        DagsterInstance.get()
    assert [path.name for path in (tmp_path / "state").iterdir()] == [name]
    assert [path.name for path in folder.iterdir()] == ["dagster.yaml"]


def test_other_folders_hold_what_dagsters_own_storage_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home(tmp_path / "50% of #1", monkeypatch)
    with DagsterInstance.get() as instance:
        assert instance.get_runs() == []
    made = {str(path.relative_to(folder)) for path in folder.rglob("*.db")}
    assert {"history/runs.db", "schedules/schedules.db"} <= made


def test_an_instance_of_before_keeps_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home(tmp_path / "dagster", monkeypatch)
    settings = (folder / "dagster.yaml").read_text()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with DagsterInstance.get() as before:
        before.create_run_for_job(nothing)
    (folder / "dagster.yaml").write_text(settings)
    with DagsterInstance.get() as instance:
        assert [run.job_name for run in instance.get_runs()] == ["nothing"]
