"""Nested cross-validation as an asset of its own: all outer folds in one run, or one alone, and nothing registered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dagster import AssetKey
from mlflow.entities import Run

from mlplatform import candidates
from mlplatform.candidates.nested_cv import OuterResult
from mlplatform.config import ConfigError
from mlplatform.defs.io_managers import ArtifactStore
from mlplatform.defs.keys import NESTED_CV, TUNED_MODEL, asset_key
from mlplatform.registry.tracking import client_for
from mlplatform.testing import forks
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard

JOB = f"nested_cv_{EXPERIMENT}"
KEY = AssetKey([EXPERIMENT, NESTED_CV])


@pytest.fixture(scope="module")
def nested_yard(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    """An installation whose first run was nested cross-validation."""
    folder = tmp_path_factory.mktemp("nested")
    yard = Yard.create(folder, mlflow_database, experiment={"nested": {"outer_folds": 2}})
    assert yard.run(JOB).success
    return yard


def stored(yard: Yard, fold: str) -> OuterResult:
    value = ArtifactStore(yard.settings.assets_dir).read(asset_key(EXPERIMENT, NESTED_CV), fold, OuterResult)
    assert isinstance(value, OuterResult)
    return value


def test_the_job_scores_all_outer_folds_beside_the_baselines(nested_yard: Yard) -> None:
    result = nested_yard.run(JOB)
    assert result.success
    events = [event for event in result.get_asset_materialization_events() if event.asset_key == KEY]
    assert sorted(str(event.partition) for event in events) == ["outer_0", "outer_1"]
    metadata = events[0].materialization.metadata
    lines = str(metadata["scores"].value).splitlines()
    assert lines[0] == (
        "| fold | train samples | test samples | inner mae | xgboost mae | repeat_last mae | seasonal_naive mae | "
        "ridge mae |"
    )
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| outer_0", "| outer_1"]
    assert "num_boost_round" in str(metadata["params"].value)
    first, second = (stored(nested_yard, fold) for fold in ("outer_0", "outer_1"))
    assert first.train_samples < second.train_samples
    assert set(first.baselines) == {"repeat_last", "seasonal_naive", "ridge"}
    assert f"{first.outer['mae']:.6g}" in lines[2]


def test_it_registers_nothing_and_training_does_not_run_it(nested_yard: Yard) -> None:
    selected = nested_yard.definitions().resolve_job_def(f"train_{EXPERIMENT}").asset_layer.executable_asset_keys
    assert KEY not in selected
    own = nested_yard.definitions().resolve_job_def(JOB).asset_layer.executable_asset_keys
    assert client_for(nested_yard.settings).search_registered_models() == []
    assert {"/".join(key.path) for key in own} == {
        "yard/raw",
        "yard/feature_table",
        "yard/splits",
        f"{EXPERIMENT}/nested_cv",
    }


def recorded(yard: Yard) -> list[Run]:
    """Return the MLflow runs of nested cross-validation, the newest first."""
    client = client_for(yard.settings)
    experiment = client.get_experiment_by_name(f"nested_cv_{EXPERIMENT}")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"]))


def test_a_run_is_recorded_in_mlflow(nested_yard: Yard) -> None:
    result = nested_yard.run(JOB)
    run = recorded(nested_yard)[0]
    assert run.info.status == "FINISHED"
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    assert tags["dagster_run_id"] == result.run_id
    assert (tags["kind"], tags["experiment"]) == ("nested_cv", EXPERIMENT)
    assert (tags["nested_cv.folds"], tags["nested_cv.complete"]) == ("outer_0,outer_1", "true")
    assert len(tags["data.train.sha256"]) == 64
    assert tags["model_version"] == params["model_version"] == "yard"
    assert tags["model_version.source"] == "the experiment's YAML"
    assert (params["family"], params["outer_folds"]) == ("xgboost", "2")
    first, second = results = [stored(nested_yard, fold) for fold in ("outer_0", "outer_1")]
    for each in results:
        assert params[f"{each.name}.num_boost_round"] == str(each.params["num_boost_round"])
        assert params[f"{each.name}.test_samples"] == str(each.test_samples)
        assert metrics[f"{each.name}_mae"] == each.outer["mae"]
        assert metrics[f"{each.name}_inner_mae"] == each.inner["mae"]
        assert metrics[f"baseline_ridge_{each.name}_mae"] == each.baselines["ridge"]["mae"]
    assert metrics["outer_mae_mean"] == pytest.approx((first.outer["mae"] + second.outer["mae"]) / 2)
    assert metrics["outer_mae_std"] == pytest.approx(abs(first.outer["mae"] - second.outer["mae"]) / 2)
    assert metrics["baseline_ridge_outer_mae_mean"] == pytest.approx(
        (first.baselines["ridge"]["mae"] + second.baselines["ridge"]["mae"]) / 2
    )
    client = client_for(nested_yard.settings)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "config.yaml",
        "outer_folds.json",
        "studies",
    }
    assert len(client.list_artifacts(run.info.run_id, "studies")) == 2
    (event, _) = result.get_asset_materialization_events()[-2:]
    assert str(event.materialization.metadata["mlflow_run"].value).endswith(f"/runs/{run.info.run_id}")


def test_it_does_not_look_like_a_candidate(nested_yard: Yard) -> None:
    """Both are made in one Dagster run, which each of them would otherwise find its MLflow run by."""
    assert nested_yard.run(TRAIN).success
    (registered,) = {version.run_id for version in client_for(nested_yard.settings).search_model_versions("")}
    result = nested_yard.materialize(NESTED_CV, TUNED_MODEL, partition="outer_0")
    assert result.success
    client = client_for(nested_yard.settings)
    candidate = client.get_run(nested_yard.candidate.run_id)
    run = recorded(nested_yard)[0]
    assert candidate.data.tags["dagster_run_id"] == run.data.tags["dagster_run_id"] == result.run_id
    assert candidate.info.experiment_id != run.info.experiment_id
    assert "kind" not in candidate.data.tags
    assert not {name for name in run.data.tags if name.startswith(("promotion.", "pair_"))}
    names = [name.removeprefix("baseline_ridge_") for name in run.data.metrics if not name.startswith("baseline_")]
    assert {name.partition("_")[0] for name in names} == {"outer"}
    assert not set(run.data.metrics) & set(candidate.data.metrics)
    assert client.search_logged_models([run.info.experiment_id]) == []
    assert {version.run_id for version in client.search_model_versions("")} == {registered}


def test_a_failure_is_recorded_as_one(nested_yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "score_outer_fold", fail)
        assert not nested_yard.run(JOB, raise_on_error=False).success
    run = recorded(nested_yard)[0]
    assert run.info.status == "FAILED"
    assert not run.data.metrics


def test_one_outer_fold_alone_equals_that_of_the_whole_run(nested_yard: Yard) -> None:
    whole = stored(nested_yard, "outer_1")
    shutil.rmtree(nested_yard.settings.assets_dir / EXPERIMENT / NESTED_CV)
    assert nested_yard.materialize(NESTED_CV, partition="outer_1").success
    assert stored(nested_yard, "outer_1") == whole
    tags = recorded(nested_yard)[0].data.tags
    assert (tags["nested_cv.folds"], tags["nested_cv.complete"]) == ("outer_1", "false")
    assert not ArtifactStore(nested_yard.settings.assets_dir).folder(KEY, "outer_0").exists()


def test_a_run_cannot_ask_for_another_number_of_outer_folds(nested_yard: Yard) -> None:
    config = {"resources": {"training": {"config": {"overrides": ["nested.outer_folds=3"]}}}}
    with pytest.raises(ConfigError, match="asks for 3 outer folds, but the asset has 2 partitions"):
        nested_yard.materialize(NESTED_CV, partition="outer_1", run_config=config)


def test_experiments_without_outer_folds_have_neither_asset_nor_job(tmp_path: Path, mlflow_database: Path) -> None:
    definitions = Yard.create(tmp_path, mlflow_database).definitions()
    assert KEY not in definitions.resolve_asset_graph().materializable_asset_keys
    assert JOB not in definitions.get_repository_def().job_names


@pytest.mark.integration
def test_the_command_line_runs_all_outer_folds(nested_yard: Yard) -> None:
    shutil.rmtree(nested_yard.settings.assets_dir / EXPERIMENT / NESTED_CV)
    command = ["dagster", "job", "execute", "-m", "mlplatform.definitions", "-j", JOB]
    done = forks.run(command, environ={**nested_yard.environ, "DAGSTER_HOME": ""})
    assert done.returncode == 0, done.stderr[-4000:]
    assert [stored(nested_yard, fold).name for fold in ("outer_0", "outer_1")] == ["outer_0", "outer_1"]
