"""Pairs, features and records that earlier code stored work with the code of today, bit for bit.

The stored state was made by the code of one day with the versions in its `made_by.json`, and holds pairs of every kind
of model family. Which bits these tests ask for on which machine:

- Trees and closed forms answer, and are trained again, with the same bits on a machine of the same architecture. That
  was tried with 1 and 7 threads, with the kernels that NumPy and its BLAS choose on other processors, and without AVX2.
- Networks: the same where PyTorch chooses the same kernels as when the state was made (`network kernels`).
- On any other machine answers are compared to five digits, and what trains again is skipped.
- A CatBoost pair that is trained again answers and scores with the same bits, but CatBoost writes the time and a random
  id into every model file, so that its file differs.

Another version of a library may compute other bits; the message of every failure says which versions changed.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from dagster import DagsterInstance, ExecuteInProcessResult

from mlplatform.candidates.candidate import Candidate
from mlplatform.config import VERSION_GROUPS, load_dataset, load_experiment
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.folds import StoredFold
from mlplatform.datamodule.splits import REFERENCE, TRAIN, read_manifest, read_part
from mlplatform.definitions import build_defs
from mlplatform.defs.io_managers import ArtifactIOManager, ArtifactStore
from mlplatform.defs.keys import CV_FOLDS, FOLD_PREPROCESSOR, TUNED_MODEL, asset_key
from mlplatform.defs.resources import PlatformResource
from mlplatform.features.feast.repository import apply_dataset, open_store
from mlplatform.features.online.read import read_rows, read_windows
from mlplatform.features.retrieval import load_history
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.promotion.active_config import active_config_path, read_active_pair, read_active_versions
from mlplatform.promotion.by_hand import promote_version
from mlplatform.promotion.reproduce import reproduce_pair
from mlplatform.promotion.rollback import repair, roll_back
from mlplatform.promotion.scoring import answer_part
from mlplatform.registry.digests import file_digests
from mlplatform.registry.forecaster import CONTRACT_FILE
from mlplatform.registry.pairs import LATEST, PREVIOUS, PRODUCTION, STAGING, PairIntegrityError, PairStore
from mlplatform.registry.tables import input_panel
from mlplatform.registry.tracking import open_tracking
from mlplatform.training.cross_validation import prepare_fold
from mlplatform.tuning.tuner import tune
from mlplatform_tests.compatibility.make_state import versions
from mlplatform_tests.compatibility.small_experiments import EXPERIMENTS
from mlplatform_tests.compatibility.stored_state import BEFORE_ROOMS, StoredState
from mlplatform_tests.fixtures.keys import write_key

NETWORKS = frozenset({"pump_nlinear", "pump_tft"})
VERSIONS = {"pump_xgboost": 2, "pump_ridge": 2}
PAIRS = [(name, number) for name in EXPERIMENTS for number in range(1, VERSIONS.get(name, 1) + 1)]
UNITS = [1, 2]
# What MLflow adds to a stored model when someone loads it by its registered name.
FROM_MLFLOW = "registered_model_meta"
# How the tags begin that hold the histories of aliases, and those that hold what the checks of a promotion found.
HISTORY, CHECK = "alias_history.", "check."
ONLY_MLFLOW = """
import sys, mlflow, pandas
for name in sys.argv[1:]:
    model = mlflow.pyfunc.load_model(f"models:/{name}_forecaster@production")
    model.predict(pandas.read_parquet(f"{name}.parquet")).to_parquet(f"{name}.answers.parquet")
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredState:
    """The state as it was stored. For reading only."""
    return StoredState.unpack(BEFORE_ROOMS, tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> StoredState:
    """Another copy, to change; every test that does works on an experiment of its own."""
    return StoredState.unpack(BEFORE_ROOMS, tmp_path_factory.mktemp("changed"))


def is_exact(stored: StoredState, experiment: str) -> bool:
    """Return whether this machine computes the bits of the machine that the state was made on."""
    needed = ("machine", "network kernels") if experiment in NETWORKS else ("machine",)
    here = versions()
    return all(stored.made_by[key] == here[key] for key in needed)


def require_exact(stored: StoredState, experiment: str) -> None:
    """Skip a test that trains again where training cannot give the same bits."""
    if not is_exact(stored, experiment):
        pytest.skip(f"this machine trains {experiment} with other bits: {stored.note}")


def expected_answers(stored: StoredState, experiment: str, version: int) -> pd.DataFrame:
    return pd.read_parquet(stored.expected / f"{experiment}_{version}.parquet")


def assert_same(found: pd.DataFrame, expected: pd.DataFrame, stored: StoredState, experiment: str) -> None:
    """Compare answers with those the state was stored with."""
    if is_exact(stored, experiment):
        pd.testing.assert_frame_equal(found, expected, check_exact=True, obj=stored.note)
    else:
        pd.testing.assert_frame_equal(found, expected, rtol=1e-5, obj=stored.note)


def run_job(state: StoredState, experiment: str, job: str, **run_config: Any) -> ExecuteInProcessResult:
    definitions = build_defs(
        experiments=[load_experiment(experiment, settings=state.settings)],
        resources={
            "platform": PlatformResource(environment=state.environ),
            "io_manager": ArtifactIOManager(root=str(state.settings.assets_dir)),
        },
    )
    with DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def(job).execute_in_process(run_config=run_config, instance=instance)


class Kept:
    """What no one may change about the stored versions of the registry: files, tags, and the history of aliases."""

    def __init__(self, state: StoredState) -> None:
        self.state = state
        self.files, self.tags, self.histories = self._files(), self._tags(), self._histories()

    def check(self) -> None:
        files, tags, histories = self._files(), self._tags(), self._histories()
        assert {path: files.get(path) for path in self.files} == self.files
        for version, stored in self.tags.items():
            new = tags[version]
            # A promotion checks again and records what it finds: at least what readers of then expect.
            checks = {key for key in stored if key.startswith(CHECK)}
            assert all(json.loads(stored[key]).keys() <= json.loads(new[key]).keys() for key in checks)
            assert {key: stored[key] for key in stored.keys() - checks}.items() <= new.items()
        for name, entries in self.histories.items():
            assert entries.items() <= histories[name].items()
            # Whoever reads one entry of a history, of then or of now, can read all.
            assert len({tuple(json.loads(text)) for text in histories[name].values()}) == 1

    def _files(self) -> dict[str, str]:
        found = file_digests(self.state.root / "home" / "mlflow" / "artifacts")
        return {path: digest for path, digest in found.items() if Path(path).name != FROM_MLFLOW}

    def _tags(self) -> dict[tuple[str, str], dict[str, str]]:
        versions = self.state.pairs.client.search_model_versions()
        return {(version.name, str(version.version)): dict(version.tags) for version in versions}

    def _histories(self) -> dict[str, dict[str, str]]:
        models = self.state.pairs.client.search_registered_models()
        return {
            model.name: {key: text for key, text in model.tags.items() if key.startswith(HISTORY)}
            for model in models
            if model.name.endswith("_model")
        }


class TestPairs:
    """What stands in the model registry."""

    def test_the_aliases_stand_for_the_pairs_they_stood_for(self, stored: StoredState) -> None:
        expected = json.loads((stored.expected / "aliases.json").read_text())
        found: dict[str, dict[str, int]] = {}
        for name in EXPERIMENTS:
            pairs = {alias: stored.pairs.find(name, alias) for alias in (PRODUCTION, STAGING, PREVIOUS)}
            found[name] = {alias: pair.version for alias, pair in pairs.items() if pair is not None}
            assert stored.pairs.resolve(name, LATEST).version == VERSIONS.get(name, 1)
        assert found == expected

    def test_a_pair_of_then_is_refused_where_signatures_are_asked_for_until_someone_signs_it(
        self, changed: StoredState, tmp_path: Path
    ) -> None:
        key, kept = write_key(tmp_path, "mine"), Kept(changed)
        store = PairStore(replace(changed.settings, signing_key=key.private, verify_keys=(key.public,)))
        pair = store.resolve("parts_xgboost", 1)
        with pytest.raises(PairIntegrityError, match=r"version 1 of 'parts_xgboost', pair .* is not signed"):
            store.load(pair)
        pair = store.sign("parts_xgboost", 1, who="test", why="a test")
        store.verify(pair)
        store.load(pair)
        kept.check()

    def test_their_history_is_read(self, stored: StoredState) -> None:
        changes = [
            (change.alias, change.from_version, change.to_version) for change in stored.pairs.history("pump_xgboost")
        ]
        assert changes == [(STAGING, None, 1), (PRODUCTION, None, 1), (STAGING, 1, 2), (PRODUCTION, 1, 2)]
        assert all(change.who.startswith("Dagster run ") for change in stored.pairs.history("pump_xgboost"))

    @pytest.mark.parametrize(("experiment", "version"), PAIRS)
    def test_a_pair_verifies_and_answers_with_the_same_bits(
        self, stored: StoredState, experiment: str, version: int
    ) -> None:
        pairs, config = stored.pairs, load_experiment(experiment, settings=stored.settings)
        pair = pairs.resolve(experiment, version)
        pairs.verify(pair)
        if is_exact(stored, experiment):
            assert pairs.reproduce_example(pair) == [], stored.note
        frame = read_part(stored.settings, config.dataset.name, config.split.version_id, REFERENCE)
        found = answer_part(pairs.load(pair), create_data_module(config, frame), frame)._asdict()
        with np.load(stored.expected / f"{experiment}_{version}_reference.npz") as expected:
            assert {part for part, values in found.items() if isinstance(values, np.ndarray)} == set(expected)
            for part, values in expected.items():
                if is_exact(stored, experiment):
                    assert np.array_equal(found[part].view(np.uint32), values.view(np.uint32)), stored.note
                else:
                    np.testing.assert_allclose(found[part], values, rtol=1e-5, err_msg=stored.note)

    def test_the_card_of_a_pair_is_read(self, stored: StoredState) -> None:
        pair = stored.pairs.resolve("pump_tft", PRODUCTION)
        card = stored.pairs.card(pair)
        assert (card["pair_id"], card["digests"]) == (pair.pair_id, dict(pair.digests))

    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    def test_plain_mlflow_answers_with_the_code_that_is_stored_in_the_model(
        self, stored: StoredState, experiment: str
    ) -> None:
        pairs = stored.pairs
        pair = pairs.resolve(experiment, PRODUCTION)
        rows, answer = pairs.example(pair)
        open_tracking(stored.settings)
        models = {
            role: mlflow.pyfunc.load_model(f"models:/{experiment}_{role}@{PRODUCTION}")
            for role in ("preprocessor", "model", "forecaster")
        }
        for role, model in models.items():
            code = sys.modules[type(model.unwrap_python_model()).__module__].__file__
            assert code is not None
            assert Path(code).is_relative_to(stored.root), f"the {role} runs code of {code}"
        assert_same(
            models["forecaster"].predict(rows), expected_answers(stored, experiment, pair.version), stored, experiment
        )
        # In two steps, as the pair: what the preprocessor gives is what the model takes.
        outputs = models["model"].predict(models["preprocessor"].predict(rows))
        forecaster = pairs.load(pair)
        answers = forecaster.postprocess(outputs)
        assert answers.tobytes() == forecaster.predict(input_panel(pair.contract, rows)).tobytes()
        assert answers.shape == answer.shape

    def test_a_process_that_knows_only_mlflow_answers_with_the_same_bits(
        self, stored: StoredState, tmp_path: Path
    ) -> None:
        """Nothing of the platform is imported before the stored code asks for it, in the order in which it asks."""
        pairs, chosen = stored.pairs, ["parts_random_forest", "pump_ridge"]
        for name in chosen:
            rows, _ = pairs.example(pairs.resolve(name, PRODUCTION))
            rows.to_parquet(tmp_path / f"{name}.parquet")
        done = subprocess.run(
            [sys.executable, "-c", ONLY_MLFLOW, *chosen],
            env={**os.environ, **stored.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for name in chosen:
            found = pd.read_parquet(tmp_path / f"{name}.answers.parquet")
            assert_same(found, expected_answers(stored, name, 1), stored, name)


class TestReproduction:
    """Training again from what a run recorded."""

    @pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name != "pump_tft"])
    def test_a_pair_is_built_again_bit_for_bit(self, stored: StoredState, experiment: str) -> None:
        require_exact(stored, experiment)
        reproduction = reproduce_pair(stored.pairs, stored.pairs.resolve(experiment, PRODUCTION))
        differing = [comparison for comparison in reproduction.comparisons if not comparison.agrees]
        if "catboost" in experiment:
            assert [comparison.what for comparison in differing] == ["artifacts of the model"], stored.note
        else:
            assert differing == [], stored.note
        assert set(reproduction.data.values()) == {"the split file"}

    def test_the_job_builds_an_earlier_version_again(self, stored: StoredState) -> None:
        require_exact(stored, "pump_xgboost")
        asked = {"experiment": "pump_xgboost", "version": 1}
        result = run_job(stored, "pump_xgboost", "reproduce", ops={"reproduce": {"config": asked}})
        (event,) = result.filter_events(lambda event: event.event_type_value == "STEP_OUTPUT")
        shown = {key: value.value for key, value in event.step_output_data.metadata.items()}
        assert (shown["version"], shown["agrees_bit_for_bit"]) == (1, True), f"{shown['comparisons']}\n{stored.note}"


class TestTrainingRuns:
    """What the steps of a training run left for the next ones."""

    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    def test_stored_steps_belong_to_the_experiment_as_it_is_configured(
        self, stored: StoredState, experiment: str
    ) -> None:
        config = load_experiment(experiment, settings=stored.settings)
        assets = ArtifactStore(stored.settings.assets_dir)
        candidate = assets.read(asset_key(experiment, TUNED_MODEL), None, Candidate)
        overridden = experiment in VERSIONS
        assert candidate.config.model_copy(update={"model": config.model}) == config
        assert (candidate.config.model != config.model) == overridden
        for fold in config.split.fold_names:
            cut = assets.read(asset_key(experiment, CV_FOLDS), fold, StoredFold)
            assert cut.config_digest == config.fold_digest()
            assert assets.read(asset_key(experiment, FOLD_PREPROCESSOR), fold, TransformManager).fitted_
        pair = stored.pairs.of_run(experiment, candidate.run_id)
        forecaster = stored.pairs.load(pair)
        inputs = forecaster.preprocess(input_panel(pair.contract, stored.pairs.example(pair)[0]))
        assert candidate.model.predict(inputs).tobytes() == forecaster.infer(inputs).tobytes()

    def test_a_stored_study_is_gone_on_with(self, stored: StoredState, tmp_path: Path) -> None:
        config = load_experiment("pump_catboost", settings=stored.settings)
        assets = ArtifactStore(stored.settings.assets_dir)
        rows = read_part(stored.settings, config.dataset.name, config.split.version_id, TRAIN)
        train = create_data_module(config, rows)
        folds = [
            prepare_fold(
                name,
                train,
                assets.read(asset_key(config.name, CV_FOLDS), name, StoredFold).fold,
                assets.read(asset_key(config.name, FOLD_PREPROCESSOR), name, TransformManager),
            )
            for name in config.split.fold_names
        ]
        (journal,) = (stored.settings.studies_dir / config.name).glob("*.journal")
        copy = Path(shutil.copytree(journal.parent, tmp_path / "study")) / journal.name
        candidate = assets.read(asset_key(config.name, TUNED_MODEL), None, Candidate)
        tuning = tune(config, folds, copy)
        # With the seconds that they took: no trial was run again.
        assert tuning.trials == candidate.report.trials
        assert tuning.best.fold_scores == candidate.report.candidate.folds

    def test_the_next_run_uses_the_reference_set_and_meets_the_champion(self, changed: StoredState) -> None:
        before = Kept(changed)
        settings = changed.settings
        manifest = read_manifest(settings, "pump", "pump_v1")
        assert run_job(changed, "pump_random_forest", "train_pump_random_forest").success
        assert read_manifest(settings, "pump", "pump_v1").parts == manifest.parts
        pair = changed.pairs.resolve("pump_random_forest", STAGING)
        assert (pair.version, changed.pairs.resolve("pump_random_forest", PRODUCTION).version) == (2, 1)
        tags = changed.pairs.client.get_run(pair.run_id).data.tags
        assert tags["promotion.outcome"] == "not_better"
        assert {tags[f"{key}.source"] for key in VERSION_GROUPS} == {"active_config.yaml"}
        # The same data, configuration and seed: what is trained today has the bits of what was trained then.
        if is_exact(changed, "pump_random_forest"):
            # What is said about it in the contract, such as limits, has grown since.
            before_files, files = changed.pairs.resolve("pump_random_forest", 1).files, pair.files
            for role in ("preprocessor", "model"):
                state = {path: digest for path, digest in before_files[role].items() if f"artifacts/{role}/" in path}
                state.pop(f"artifacts/{role}/{CONTRACT_FILE}")
                assert state.items() <= files[role].items(), changed.note
        before.check()


class TestAliases:
    """Moving the aliases of stored pairs."""

    def test_a_rollback_goes_to_the_previous_pair(self, changed: StoredState) -> None:
        name, before, settings = "pump_xgboost", Kept(changed), changed.settings
        keys = list(yaml.safe_load(active_config_path(name, settings).read_text()))
        done = roll_back(changed.pairs, name, name, who="operator", why="a test")
        assert (done.pair.version, done.replaced, done.integrity.problems) == (1, 2, ())
        assert changed.pairs.resolve(name, PREVIOUS).version == 2
        assert read_active_pair(name, settings) == 1
        assert read_active_versions(name, settings) == {key: done.pair.tags[key] for key in VERSION_GROUPS}
        assert list(yaml.safe_load(active_config_path(name, settings).read_text())) == keys
        before.check()

    def test_the_pair_behind_staging_passes_the_gate(self, changed: StoredState) -> None:
        name, before = "pump_ridge", Kept(changed)
        config = load_experiment(name, settings=changed.settings)
        promotion = promote_version(config, changed.pairs, who="operator", why="a test")
        assert (promotion.promoted, promotion.outcome, promotion.production) == (True, "better", 2)
        assert changed.pairs.resolve(name, PREVIOUS).version == 1
        before.check()

    def test_a_repair_finds_nothing_to_do(self, changed: StoredState) -> None:
        done = repair(changed.pairs, "parts_xgboost", "parts_xgboost")
        assert (done.registry.repaired, done.registry.damaged, done.wrote_active_config) == ((), (), False)


class TestFeatures:
    """Feast's registry and stores, by the class paths that stand in their configuration."""

    def test_windows_and_rows_are_read_from_the_online_store(self, stored: StoredState) -> None:
        pump = load_dataset("pump", stored.settings)
        columns = tuple(pump.columns)
        panels = {
            "windows": read_windows(pump, UNITS, columns, pump.window_steps, stored.settings),
            "rows": read_rows(pump, UNITS, columns, stored.settings),
        }
        for name, panel in panels.items():
            with np.load(stored.expected / f"{name}.npz") as expected:
                assert np.array_equal(panel.timestamps, expected["timestamps"])
                for column in columns:
                    values, wanted = np.asarray(panel.columns[column]), expected[column]
                    if values.dtype == object:
                        assert values.astype(str).tolist() == wanted.tolist()
                    else:
                        assert values.tobytes() == wanted.tobytes()

    def test_history_is_read_from_the_offline_store(self, stored: StoredState) -> None:
        pump = load_dataset("pump", stored.settings)
        history = load_history(pump, tuple(pump.columns), stored.settings)
        pd.testing.assert_frame_equal(history, self._history(stored), check_exact=True)

    def test_a_feature_store_yaml_of_then_opens_the_repository(
        self, stored: StoredState, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from feast import FeatureStore

        monkeypatch.setenv("MLPLATFORM_HOME", str(stored.settings.home))
        store = FeatureStore(repo_path=str(stored.root / "feature_repo"))
        assert {view.name for view in store.list_feature_views()} == {"pump_features", "pump_windows", "parts_features"}
        names = [f"pump_features:{column}" for column in ("flow", "heat", "valve")]
        history = self._history(stored)
        latest = history.groupby("entity_id").tail(1)
        online = store.get_online_features(names, [{"entity_id": unit} for unit in UNITS]).to_df()
        asked = history.loc[history["heat"].notna(), ["entity_id", "event_timestamp"]].iloc[::7]
        joined = store.get_historical_features(asked, names).to_df()
        wanted = asked.merge(history)
        joined = asked.merge(joined)
        for column in ("flow", "heat", "valve"):
            assert online.set_index("entity_id")[column].tolist() == latest.set_index("entity_id")[column].tolist()
            assert joined[column].tolist() == wanted[column].tolist()

    def test_a_feature_repository_of_then_describes_the_same_views(
        self, stored: StoredState, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in stored.environ.items():
            monkeypatch.setenv(name, value)
        found = runpy.run_path(str(stored.root / "feature_repo" / "definitions.py"))
        views = {name: item for name, item in found.items() if name.endswith(("_features", "_windows"))}
        assert self._described(views.values()) == self._views(stored)

    def test_a_dataset_is_applied_to_the_stored_registry_again(self, changed: StoredState) -> None:
        settings = changed.settings
        pump = load_dataset("pump", settings)
        before = self._views(changed)
        assert set(apply_dataset(pump, settings)) == {"pump_entity", "pump_features", "pump_windows"}
        assert self._views(changed) == before
        assert len(read_windows(pump, UNITS, ("heat",), 12, settings).timestamps) == 12 * len(UNITS)

    def _history(self, stored: StoredState) -> pd.DataFrame:
        return pd.read_parquet(stored.expected / "history.parquet")

    def _views(self, state: StoredState) -> Sequence[Any]:
        store = open_store(state.settings)
        return self._described(store.registry.list_feature_views(store.project, allow_cache=False))

    def _described(self, views: Iterable[Any]) -> Sequence[Any]:
        return sorted(
            (view.name, sorted(str(field) for field in view.schema), str(view.batch_source.path)) for view in views
        )
