"""An experiment or dataset that cannot be loaded: visible with its reason, and nothing else is missing."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckSeverity,
    AssetKey,
    AssetSelection,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    define_asset_job,
)

from mlplatform import settings
from mlplatform.config import load_all_experiments
from mlplatform.definitions import build_defs
from mlplatform.settings import PACKAGED_CONF, Settings
from mlplatform.testing import forks
from mlplatform.testing.yard import EXPERIMENT, GROUPS, checks_of, write_conf, write_experiment, write_option
from mlplatform_tests.defs.test_assets import failure

BROKEN = "hopeless"
CONFIGURATION = AssetKey([BROKEN, "configuration"])
REASON = "horizon 9999 is longer than split.cv.params.validation_steps 168; allowed: 1 to 168"


def _leave_out(folder: str, names: list[str]) -> set[str]:
    kept = {"fleet_xgboost.yaml", "etth1_nlinear.yaml"}
    return set(names) - kept if Path(folder).name == "experiment" else set()


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The yard beside an experiment on the same dataset that cannot work, and a few packaged ones."""
    # Composing all packaged experiments for every test would take most of its time.
    packaged = tmp_path / "packaged"
    shutil.copytree(PACKAGED_CONF, packaged, ignore=_leave_out)
    monkeypatch.setattr(settings, "PACKAGED_CONF", packaged)
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLPLATFORM_CONF_DIR", str(tmp_path / "conf"))
    write_conf(tmp_path / "conf")
    write_experiment(tmp_path / "conf", BROKEN, horizon=9999)
    return tmp_path / "conf"


def groups(defs: Definitions) -> set[str]:
    graph = defs.resolve_asset_graph()
    return {graph.get(key).group_name for key in graph.materializable_asset_keys}


def jobs(defs: Definitions, name: str) -> set[str]:
    found = {job for job in defs.get_repository_def().job_names if not job.startswith("__")}
    return {job.replace(name, "*") for job in found if name in job}


def run(defs: Definitions, job: str, run_config: dict[str, Any] | None = None) -> ExecuteInProcessResult:
    with DagsterInstance.ephemeral() as instance:
        definition = defs.resolve_job_def(job)
        return definition.execute_in_process(run_config or {}, instance=instance, raise_on_error=False)


def evaluate(*keys: AssetKey) -> ExecuteInProcessResult:
    """Evaluate the checks of assets, as from the Dagster page."""
    job = define_asset_job("only_checks", selection=AssetSelection.checks_for_assets(*keys))
    return run(Definitions.merge(build_defs(), Definitions(jobs=[job])), "only_checks")


def test_nothing_else_is_missing(conf: Path) -> None:
    defs = build_defs()
    assert groups(defs) >= {EXPERIMENT, "yard", "fleet", "fleet_xgboost", "etth1_nlinear"}
    (conf / "experiment" / f"{BROKEN}.yaml").unlink()
    without = build_defs()
    assert groups(defs) == groups(without)
    assert set(without.get_repository_def().job_names) < set(defs.get_repository_def().job_names)


@pytest.mark.usefixtures("conf")
def test_what_is_wrong_can_be_read_without_running_anything(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mlplatform"):
        graph = build_defs().resolve_asset_graph()
    node = graph.get(CONFIGURATION)
    assert (node.group_name, node.is_materializable) == (BROKEN, False)
    assert f"The experiment {BROKEN} is not loaded" in (node.description or "")
    assert REASON in (node.description or "")
    assert REASON in node.metadata[f"experiment {BROKEN}"].value
    (check,) = (key for key in graph.asset_check_keys if key.asset_key == CONFIGURATION)
    assert check.name == "is_valid"
    assert REASON in (graph.get(check).description or "")
    assert [REASON in record.getMessage() for record in caplog.records] == [True]


def test_the_check_fails_with_the_whole_error_until_the_file_is_mended(conf: Path) -> None:
    (error,) = load_all_experiments(Settings.from_env())[1].values()
    result = evaluate(CONFIGURATION)
    check = checks_of(result)["is_valid"]
    assert (check.passed, check.severity, check.description) == (False, AssetCheckSeverity.ERROR, str(error))
    # The page has what was loaded; the check reads the file as it is.
    job = define_asset_job("only_checks", selection=AssetSelection.checks_for_assets(CONFIGURATION))
    loaded = Definitions.merge(build_defs(), Definitions(jobs=[job]))
    write_experiment(conf, BROKEN)
    check = checks_of(run(loaded, "only_checks"))["is_valid"]
    assert check.passed
    assert "reload the code location" in (check.description or "")


def test_a_mended_experiment_is_back_after_a_reload(conf: Path) -> None:
    assert BROKEN not in groups(build_defs())
    write_experiment(conf, BROKEN)
    defs = build_defs()
    assert BROKEN in groups(defs)
    assert not defs.resolve_asset_graph().has(CONFIGURATION)
    assert jobs(defs, BROKEN) == jobs(defs, EXPERIMENT)


@pytest.mark.usefixtures("conf")
def test_it_keeps_its_jobs_and_each_ends_with_what_is_wrong() -> None:
    defs = build_defs()
    # The other experiment has nested cross-validation if it asks for it; here nobody can know.
    assert jobs(defs, BROKEN) == jobs(defs, EXPERIMENT) | {"nested_cv_*"}
    rollback = {"ops": {"rollback": {"config": {"experiment": BROKEN}}}}
    for result in (run(defs, f"train_{BROKEN}"), run(defs, "rollback", rollback)):
        assert not result.success
        assert REASON in failure(result)


@pytest.mark.usefixtures("conf")
def test_its_jobs_take_the_run_configuration_of_those_they_stand_for() -> None:
    defs = build_defs()
    train = {"resources": {"training": {"config": {"dry_run": True, "overrides": ["seed=3"]}}}}
    promote = {"ops": {"promote": {"config": {"experiment": BROKEN, "version": 7, "why": "a better day"}}}}
    for job, run_config in ((f"train_{BROKEN}", train), ("promote", promote)):
        assert REASON in failure(run(defs, job, run_config))


@pytest.mark.usefixtures("conf")
@pytest.mark.parametrize(("name", "found"), [("nothing", "there is no experiment 'nothing'"), ("", "no experiment is")])
def test_a_lifecycle_job_says_which_experiments_it_could_be_told(name: str, found: str) -> None:
    said = failure(run(build_defs(), "repair", {"ops": {"repair": {"config": {"experiment": name}}}}))
    assert found in said
    assert EXPERIMENT in said


def test_a_broken_dataset_takes_its_experiments_along_and_no_others(conf: Path) -> None:
    write_option(conf, "dataset/fleet", {**GROUPS["dataset"], "name": "fleet", "frequency": "sometimes"})
    defs = build_defs()
    assert groups(defs) >= {EXPERIMENT, "yard", "etth1_nlinear", "diabetes"}
    assert not {"fleet", "fleet_xgboost"} & groups(defs)
    graph = defs.resolve_asset_graph()
    for name in ("fleet", "fleet_xgboost"):
        key = AssetKey([name, "configuration"])
        assert "but is 'sometimes'" in (graph.get(key).description or "")
        assert not checks_of(evaluate(key))["is_valid"].passed
    assert {"ingest_*", "materialize_*", "materialize_*_full"} <= jobs(defs, "fleet")
    assert "but is 'sometimes'" in failure(run(defs, "ingest_fleet"))


def test_a_dataset_that_an_experiment_describes_itself_is_there_all_the_same(conf: Path) -> None:
    (conf / "dataset" / "yard.yaml").write_text("columns: [")
    write_experiment(conf, EXPERIMENT, defaults=["/base/forecast", "_self_"], dataset=GROUPS["dataset"])
    defs = build_defs()
    assert {EXPERIMENT, "yard"} <= groups(defs)
    assert defs.resolve_asset_graph().has(AssetKey(["yard", "configuration"]))
    assert {key.path[1] for key in defs.resolve_job_def("ingest_yard").asset_layer.executable_asset_keys} == {
        "raw",
        "feature_table",
        "online_features",
    }


@pytest.mark.parametrize("name", ["my exp-1", "yard"])
def test_names_that_no_experiment_can_have_are_shown_too(conf: Path, name: str) -> None:
    write_experiment(conf, name)
    defs = build_defs()
    key = AssetKey([name.replace(" ", "_").replace("-", "_"), "configuration"])
    assert f"The experiment {name} is not loaded" in (defs.resolve_asset_graph().get(key).description or "")
    assert not checks_of(evaluate(key))["is_valid"].passed
    assert EXPERIMENT in groups(defs)


@pytest.mark.integration
@pytest.mark.usefixtures("conf")
def test_the_command_line_ends_with_what_is_wrong_and_runs_the_others(tmp_path: Path) -> None:
    def execute(job: str) -> subprocess.CompletedProcess[str]:
        command = ["dagster", "job", "execute", "-m", "mlplatform.definitions", "-j", job]
        return forks.run(command, environ={"DAGSTER_HOME": ""}, folder=tmp_path)

    broken = execute(f"train_{BROKEN}")
    assert broken.returncode != 0
    assert broken.stderr.partition(f"train_{BROKEN} FAILED")[2].count(REASON) == 1
    other = execute("ingest_yard")
    assert other.returncode == 0, other.stderr
