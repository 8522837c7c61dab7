"""The training assets in Dagster runs of their own: one fold alone, one step at a time, and failures that block."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from dagster import (
    AssetKey,
    AssetSelection,
    DagsterEventType,
    Definitions,
    ExecuteInProcessResult,
    define_asset_job,
    in_process_executor,
)

from mlplatform import candidates, training
from mlplatform.config import ConfigError
from mlplatform.datamodule.folds import StoredFold
from mlplatform.datamodule.splits import read_manifest, split_dir
from mlplatform.defs.io_managers import ArtifactStore
from mlplatform.defs.keys import CV_FOLDS, FOLD_PREPROCESSOR, asset_key
from mlplatform.features.feast.repository import apply_dataset
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.tables.feature_table import windows_path
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.promotion.active_config import read_active_versions
from mlplatform.promotion.evidence import TOO_GOOD, keep_finding
from mlplatform.registry.pairs import PRODUCTION, Evidence, PairIntegrityError, PairNotFoundError, PairStore
from mlplatform.registry.tracking import client_for
from mlplatform.testing.yard import EXPERIMENT, MONITOR, ROLLBACK, TRAIN, Yard, checks_of, write_conf


def run_config(**training: Any) -> dict[str, Any]:
    return {"resources": {"training": {"config": training}}}


def mlflow_runs(yard: Yard) -> list[Any]:
    client = client_for(yard.settings)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def failure(result: ExecuteInProcessResult) -> str:
    """Return the messages of the run's failed steps, with their causes."""
    messages = []
    for event in result.filter_events(lambda event: event.event_type == DagsterEventType.STEP_FAILURE):
        error = event.step_failure_data.error
        while error is not None:
            messages.append(error.message)
            error = error.cause
    return "\n".join(messages)


class TestOneFold:
    """A single fold, as materialised from Dagster's page."""

    def test_it_works_alone_with_its_leakage_check(self, yard: Yard) -> None:
        shutil.rmtree(yard.settings.assets_dir)
        result = yard.materialize(CV_FOLDS, FOLD_PREPROCESSOR, partition="fold_1")
        leakage = checks_of(result)["leakage"]
        assert leakage.passed
        assert leakage.metadata["folds"].value == "fold_1"
        store = ArtifactStore(yard.settings.assets_dir)
        assert store.read(asset_key(EXPERIMENT, FOLD_PREPROCESSOR), "fold_1", TransformManager).fitted_
        assert not store.folder(asset_key(EXPERIMENT, CV_FOLDS), "fold_0").exists()

    def test_it_equals_the_fold_of_a_whole_run(self, yard: Yard, trained_yard: Yard) -> None:
        shutil.rmtree(yard.settings.assets_dir)
        yard.materialize(CV_FOLDS, FOLD_PREPROCESSOR, partition="fold_1")
        alone, whole = (
            ArtifactStore(each.settings.assets_dir).read(asset_key(EXPERIMENT, CV_FOLDS), "fold_1", StoredFold)
            for each in (yard, trained_yard)
        )
        pd.testing.assert_frame_equal(alone.fold.to_frame(), whole.fold.to_frame())
        assert alone.config_digest == whole.config_digest

    def test_a_check_that_finds_no_fold_to_check_does_not_pass(self, yard: Yard) -> None:
        shutil.rmtree(yard.settings.assets_dir)
        only_checks = define_asset_job(
            "only_checks",
            selection=AssetSelection.checks_for_assets(AssetKey([EXPERIMENT, FOLD_PREPROCESSOR])),
            executor_def=in_process_executor,
        )
        defs = Definitions.merge(yard.definitions(), Definitions(jobs=[only_checks]))
        result = defs.resolve_job_def("only_checks").execute_in_process(instance=yard.instance, raise_on_error=False)
        assert not checks_of(result)["leakage"].passed

    def test_a_preprocessor_that_saw_later_rows_fails_the_run(
        self, yard: Yard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fit_on_everything(module: Any, _fit_rows: Any) -> TransformManager:
            return TransformManager.for_experiment(module.config).fit(module.panel)

        # Where windows are scaled one by one, preprocessing learns no numbers that could give later rows away.
        one_scale = run_config(overrides=["preprocessing.scaling=none"])
        assert yard.materialize(CV_FOLDS, partition="fold_1", run_config=one_scale).success
        monkeypatch.setattr(training, "fit_preprocessor", fit_on_everything)
        result = yard.materialize(
            FOLD_PREPROCESSOR, "tuned_model", partition="fold_1", raise_on_error=False, run_config=one_scale
        )
        assert not result.success
        leakage = checks_of(result)["leakage"]
        assert not leakage.passed
        assert "fold_1: the fitted preprocessor changes with rows after the cut-off" in (leakage.description or "")


class TestFoldsOfAnotherConfiguration:
    """Indices mean nothing under another configuration."""

    @pytest.mark.parametrize("asset", [FOLD_PREPROCESSOR, "tuned_model"])
    def test_they_are_refused_by_name(self, yard: Yard, asset: str) -> None:
        partition = "fold_1" if asset == FOLD_PREPROCESSOR else None
        with pytest.raises(ConfigError) as error:
            yard.materialize(asset, partition=partition, run_config=run_config(overrides=["horizon=3"]))
        assert "fold_1" in str(error.value)
        assert f"materialise {EXPERIMENT}/cv_folds and {EXPERIMENT}/fold_preprocessor again" in str(error.value)
        assert not mlflow_runs(yard)

    def test_what_does_not_change_the_folds_is_accepted(self, yard: Yard) -> None:
        assert yard.materialize("tuned_model", run_config=run_config(overrides=["seed=3"])).success


@pytest.mark.parametrize("is_of_these_rows", [True, False], ids=["the same rows", "other rows"])
def test_what_a_check_found_about_the_rows_goes_to_the_run_and_is_not_looked_for_again(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, is_of_these_rows: bool
) -> None:
    rows = read_manifest(yard.settings, "yard", "yard").parts["train"].sha256 if is_of_these_rows else "0" * 64
    keep_finding(yard.settings, yard.config, TOO_GOOD, rows, Evidence(False, "one is too good"))
    looked = []
    monkeypatch.setattr(training, "find_too_good", lambda module: looked.append(module) or [])
    assert yard.materialize("tuned_model").success
    (run,) = mlflow_runs(yard)
    assert Evidence.from_tag(run.data.tags["check.too_good"]).passed is not is_of_these_rows
    assert len(looked) == (0 if is_of_these_rows else 1)


@dataclass(frozen=True)
class Stage:
    """An installation right after one asset was materialised in a Dagster run of its own. For reading only."""

    yard: Yard
    result: ExecuteInProcessResult


@pytest.fixture(scope="module")
def tuned(trained_yard: Yard, mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """After `tuned_model`, in an empty registry."""
    yard = trained_yard.copy_to(tmp_path_factory.mktemp("tuned"), mlflow_database)
    return Stage(yard, yard.materialize("tuned_model"))


@pytest.fixture(scope="module")
def registered(tuned: Stage, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """After `registered_pair`, which followed `tuned`."""
    yard = tuned.yard.clone_to(tmp_path_factory.mktemp("registered"))
    return Stage(yard, yard.materialize("registered_pair"))


class TestSeparateRuns:
    """The graph's assets in Dagster runs of their own, as "Materialize all" launches them."""

    def test_they_write_to_one_mlflow_run_that_ends_finished(
        self, tuned: Stage, registered: Stage, tmp_path: Path
    ) -> None:
        yard = registered.yard.clone_to(tmp_path)
        promoted = Stage(yard, yard.materialize("production_alias"))
        stages = (tuned, registered, promoted)
        for stage in stages:
            (run,) = mlflow_runs(stage.yard)
            assert run.info.status == "FINISHED"
        assert len({stage.result.run_id for stage in stages}) == 3
        assert run.info.run_id == yard.candidate.run_id
        pair = yard.pairs.resolve(EXPERIMENT, PRODUCTION)
        assert (pair.version, pair.run_id) == (1, run.info.run_id)
        assert run.data.tags["promotion.outcome"] == "first"
        assert run.data.tags["pair_version"] == "1"
        assert read_active_versions(EXPERIMENT, yard.settings) == yard.config.versions
        again = yard.materialize("production_alias")
        (event,) = again.get_asset_materialization_events()
        name, report = next(iter(event.materialization.metadata.items()))
        assert (name, str(report.value).rpartition("/runs/")[2]) == ("report", f"{pair.run_id}/artifacts/report.html")
        assert event.materialization.metadata["outcome"].value == "current"
        assert yard.pairs.resolve(EXPERIMENT, PRODUCTION) == pair

    def test_every_run_evaluates_the_checks_of_its_assets(self, tuned: Stage, registered: Stage) -> None:
        assert set(checks_of(tuned.result)) == set()
        assert {name: check.passed for name, check in checks_of(registered.result).items()} == {
            "serving_parity": True,
            "pair_integrity": True,
            "beats_baseline": True,
            "promotion_gate": True,
        }
        assert not registered.yard.pairs.find(EXPERIMENT, PRODUCTION)

    def test_an_alias_without_a_registered_pair_says_what_to_do(self, tuned: Stage, tmp_path: Path) -> None:
        yard = tuned.yard.clone_to(tmp_path)
        with pytest.raises(PairNotFoundError, match="materialise yard_xgboost/registered_pair first"):
            yard.materialize("production_alias")


class TestFailures:
    """What must never be promoted."""

    def test_an_artifact_changed_after_registration_is_not_promoted(self, registered: Stage, tmp_path: Path) -> None:
        yard = registered.yard.clone_to(tmp_path)
        damage(yard.pairs, 1)
        with pytest.raises(PairIntegrityError, match="version 1"):
            yard.materialize("production_alias")
        assert not yard.pairs.find(EXPERIMENT, PRODUCTION)
        assert read_active_versions(EXPERIMENT, yard.settings) == {}

    def test_a_failed_integrity_check_fails_the_run_before_the_alias(
        self, yard: Yard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register = PairStore.register

        def register_and_damage(store: PairStore, *args: Any, **kwargs: Any) -> Any:
            info = register(store, *args, **kwargs)
            damage(store, info.version)
            return info

        monkeypatch.setattr(PairStore, "register", register_and_damage)
        result = yard.materialize("tuned_model", "registered_pair", "production_alias", raise_on_error=False)
        assert not result.success
        assert not checks_of(result)["pair_integrity"].passed
        assert AssetKey([EXPERIMENT, "production_alias"]) not in materialized(result)
        assert not yard.pairs.find(EXPERIMENT, PRODUCTION)

    def test_a_failed_serving_parity_check_fails_the_run_before_the_alias(self, yard: Yard) -> None:
        dataset, settings = yard.config.dataset, yard.settings
        path = windows_path(dataset, settings)
        windows = pd.read_parquet(path)
        first, second = windows["window_load_pu"]
        windows.assign(window_load_pu=[first * np.float32(1.01), second]).to_parquet(path, index=False)
        apply_dataset(dataset, settings)
        materialize_online(dataset, settings)
        result = yard.materialize("tuned_model", "registered_pair", "production_alias", raise_on_error=False)
        assert not result.success
        parity = checks_of(result)["serving_parity"]
        assert not parity.passed
        assert "the online window of 'load_pu' differs" in (parity.description or "")
        assert not yard.pairs.find(EXPERIMENT, PRODUCTION)

    def test_a_changed_reference_set_fails_the_run(self, yard: Yard) -> None:
        reference = split_dir(yard.settings, "yard", "yard") / "reference.parquet"
        pd.read_parquet(reference).tail(200).to_parquet(reference, index=False)
        result = yard.run(TRAIN, raise_on_error=False)
        assert not result.success
        assert "reference.parquet has SHA-256" in failure(result)
        assert not mlflow_runs(yard)

    def test_a_training_that_fails_leaves_a_failed_mlflow_run_and_the_next_one_its_own(
        self, yard: Yard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("no luck")

        with monkeypatch.context() as patch:
            patch.setattr(candidates, "train_candidate", fail)
            assert not yard.materialize("tuned_model", raise_on_error=False).success
        assert [run.info.status for run in mlflow_runs(yard)] == ["FAILED"]
        yard.materialize("tuned_model")
        assert sorted(run.info.status for run in mlflow_runs(yard)) == ["FAILED", "FINISHED"]
        assert mlflow.active_run() is None

    @pytest.mark.parametrize(
        ("training", "message"),
        [
            ({"split_version": "no_such"}, "split_version 'no_such' is unknown"),
            ({"overrides": ["horizon=9999"]}, "horizon 9999 is longer than"),
        ],
    )
    def test_a_run_configuration_that_cannot_be_used_is_refused_before_anything_is_written(
        self, yard: Yard, training: dict[str, Any], message: str
    ) -> None:
        result = yard.run(TRAIN, run_config(**training), raise_on_error=False)
        assert not result.success
        assert message in failure(result)
        assert not materialized(result)


def test_scores_belong_to_their_fold_also_beyond_ten(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    write_conf(yard.conf, split={"folds": 11, "cv": {"name": "expanding", "params": {"validation_steps": 24}}})
    shutil.rmtree(split_dir(yard.settings, "yard", "yard"))
    seen: list[str] = []

    def stop(_config: Any, _train: Any, folds: Any, *_: Any) -> None:
        seen.extend(fold.name for fold in folds)
        raise RuntimeError("seen enough")

    monkeypatch.setattr(candidates, "train_candidate", stop)
    assert "seen enough" in failure(yard.run(TRAIN, raise_on_error=False))
    assert seen == [f"fold_{k}" for k in range(11)]


def test_rolling_back_without_a_previous_pair_fails(yard: Yard) -> None:
    result = yard.run(ROLLBACK, raise_on_error=False)
    assert not result.success
    assert "no pair 'yard_xgboost' with the alias 'previous'" in failure(result)


def test_monitoring_before_the_first_promotion_says_what_to_run(yard: Yard) -> None:
    result = yard.run(MONITOR, raise_on_error=False)
    assert not result.success
    assert f"or the job train_{EXPERIMENT}, first" in failure(result)


def materialized(result: ExecuteInProcessResult) -> set[AssetKey]:
    return {event.asset_key for event in result.get_asset_materialization_events() if event.asset_key}


def damage(store: PairStore, version: int) -> None:
    uri = store.client.get_model_version_download_uri(f"{EXPERIMENT}_model", str(version))
    folder = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/model"))
    (folder / "model.json").write_text((folder / "model.json").read_text() + " ")
