"""Pairs in a real MLflow registry: one version number, one commit point, and everything a person wants to know."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlplatform.datamodule.panel import Panel
from mlplatform.models.trees import MergedBoosters
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.registry.digests import folder_digest
from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.pairs import ROLES, PairIntegrityError, PairNotFoundError, outcome
from mlplatform.registry.pairs.evidence import PROMOTION_GATE, SERVING_PARITY, Evidence, tag_name
from mlplatform.registry.pairs.example import example_rows
from mlplatform.registry.tracking import open_tracking
from mlplatform.settings import PACKAGE_ROOT, Settings
from mlplatform.testing.tiny_pair import COLUMNS, NAME, TinyRegistry, tiny_forecaster, tiny_rows


def test_three_models_share_a_version_a_pair_id_partners_and_digests(tiny: TinyRegistry) -> None:
    store = tiny.store
    pairs = [store.resolve(NAME, version) for version in (1, 2, 3)]
    assert len({pair.pair_id for pair in pairs}) == 3
    for pair in pairs:
        tags = [store.client.get_model_version(f"{NAME}_{role}", str(pair.version)).tags for role in ROLES]
        shared = ["pair_id", "contract", "family", *(f"partner.{role}" for role in ROLES)]
        shared += [f"{role}_digest" for role in ROLES]
        for key in shared:
            assert len({tag[key] for tag in tags}) == 1
        assert {tags[0][f"partner.{role}"] for role in ROLES} == {str(pair.version)}


def test_equal_bits_have_equal_digests_and_others_have_others(tiny: TinyRegistry, tmp_path: Path) -> None:
    first, second, third = (tiny.store.resolve(NAME, version).digests for version in (1, 2, 3))
    assert second == third
    assert all(first[role] != second[role] for role in ROLES)
    (tmp_path / "preprocessor").mkdir()
    tiny_forecaster().preprocessor.save(tmp_path / "preprocessor")
    contract = tiny.store.resolve(NAME, 2).contract.to_json()
    (tmp_path / "preprocessor" / "contract.json").write_text(contract)
    assert folder_digest(tmp_path / "preprocessor") == second["preprocessor"]


def test_a_pair_is_registered_whatever_experiment_the_process_worked_on_before(empty: Settings) -> None:
    registry = TinyRegistry.create(empty)
    open_tracking(empty)
    mlflow.set_experiment("another experiment")
    assert registry.register(tiny_forecaster()).version == 1
    assert mlflow.active_run() is None


def test_a_pair_is_found_by_alias_number_newest_and_run(tiny: TinyRegistry) -> None:
    store = tiny.store
    first = store.promote(NAME, 1, "test", "a test")
    refs = ("production", "staging", "latest", "1", 2)
    assert {ref: store.resolve(NAME, ref).version for ref in refs} == {
        "production": 1,
        "staging": 3,
        "latest": 3,
        "1": 1,
        2: 2,
    }
    assert store.resolve(NAME) == first
    assert store.of_run(NAME, tiny.run_id).version == 3


def test_what_is_not_there_is_named(tiny: TinyRegistry) -> None:
    for ref in ("previous", "canary", "4", "0", "latest-and-greatest", "v1", "9" * 30):
        with pytest.raises(PairNotFoundError, match=f"{NAME}.*{ref}"):
            tiny.store.resolve(NAME, ref)
    with pytest.raises(PairNotFoundError, match="no-such-run"):
        tiny.store.of_run(NAME, "no-such-run")


def keep(tiny: TinyRegistry, version: int, check: str, passed: bool, summary: str) -> None:
    """Keep what a check found about a version."""
    tag = Evidence(passed, summary).to_tag()
    tiny.store.client.set_model_version_tag(f"{NAME}_model", str(version), tag_name(check), tag)


def test_a_pair_that_is_not_in_production_says_what_kept_it_out(tiny: TinyRegistry) -> None:
    def message() -> str:
        with pytest.raises(PairNotFoundError) as caught:
            tiny.store.resolve(NAME)
        return str(caught.value)

    tiny.store.client.delete_registered_model_alias(f"{NAME}_model", "production")
    found = f"no pair '{NAME}' with the alias 'production': version 3 "
    assert message().startswith(
        f"{found}has not been through the promotion gate; run mlplatform train {NAME}, or the job train_{NAME}, again"
    )
    keep(tiny, 3, PROMOTION_GATE, True, "mae 1 is best")
    assert message().startswith(f"{found}passed the promotion gate (mae 1 is best), but nothing promoted it")
    keep(tiny, 3, PROMOTION_GATE, False, "mae 3 does not beat 2")
    assert message().startswith(f"{found}was refused by the promotion gate: mae 3 does not beat 2")
    keep(tiny, 3, SERVING_PARITY, False, "two values differ")
    assert message().startswith(f"{found}failed the check serving_parity: two values differ")


def test_what_was_in_production_says_until_when_and_what_ended_it(tiny: TinyRegistry) -> None:
    store = tiny.store

    def become(version: int) -> str:
        return outcome(store.resolve(NAME, version), store.history(NAME))

    def when() -> str:
        moved = store.history(NAME)[-1].when
        assert moved is not None
        return f"{moved:%Y-%m-%d %H:%M} UTC"

    keep(tiny, 3, PROMOTION_GATE, True, "mae 1 is best")
    store.promote(NAME, 1, "test", "a test")
    store.promote(NAME, 3, "test", "mae 1 is best")
    assert become(1) == f"was in production until {when()}, replaced by version 3"
    assert become(2) == "has not been through the promotion gate"
    store.rollback(NAME, who="test", why="worse at night")
    assert become(3) == f"was in production until {when()}, then rolled back to version 1: worse at night"
    assert store.refusal(NAME) == f"version 3 {become(3)}"
    later = Evidence(False, "mae 3 does not beat 2", at="2999-01-01T00:00:00+00:00").to_tag()
    store.client.set_model_version_tag(f"{NAME}_model", "3", tag_name(PROMOTION_GATE), later)
    assert become(3).endswith("at night; since then it was refused by the promotion gate: mae 3 does not beat 2")
    store.client.delete_registered_model_alias(f"{NAME}_model", "production")
    assert become(1) == "was in production until it was changed outside the platform, replaced by none"


def test_a_rollback_without_a_previous_pair_says_that_there_is_none(tiny: TinyRegistry) -> None:
    tiny.store.client.delete_registered_model_alias(f"{NAME}_model", "production")
    for tag in tiny.store.client.get_registered_model(f"{NAME}_model").tags:
        tiny.store.client.delete_registered_model_tag(f"{NAME}_model", tag)
    with pytest.raises(PairNotFoundError, match="none is in production, and none was before, so there"):
        tiny.store.rollback(NAME, who="test", why="a test")
    tiny.store.promote(NAME, 2, "test", "a test")
    with pytest.raises(PairNotFoundError, match="version 2 is the first, so there is nothing to go back to"):
        tiny.store.rollback(NAME, who="test", why="a test")
    assert tiny.store.resolve(NAME).version == 2


def test_an_empty_registry_says_which_job_to_run(empty: Settings) -> None:
    store = TinyRegistry.create(empty).store
    for ref in ("production", "1", "latest"):
        with pytest.raises(PairNotFoundError, match=f"run mlplatform train {NAME}, or the job train_{NAME}"):
            store.resolve(NAME, ref)
    assert store.find(NAME, "production") is None
    for change in (
        lambda: store.promote(NAME, 1, "test", "a test"),
        lambda: store.rollback(NAME, who="test", why="a test"),
        lambda: store.repair(NAME),
        lambda: store.history(NAME),
    ):
        with pytest.raises(PairNotFoundError, match=f"run mlplatform train {NAME}, or the job train_{NAME}"):
            change()


def test_a_merge_that_answers_the_stored_example_otherwise_is_given_up(
    tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = MergedBoosters.answers
    monkeypatch.setattr(MergedBoosters, "answers", lambda self, features: answers(self, features) + 1)
    # The rows beside the splits find nothing.
    monkeypatch.setattr("mlplatform.models.trees.merged.differing_values", lambda *_: 0)
    loaded = tiny.store.load(tiny.store.resolve(NAME, 2))
    assert loaded.model.inference.startswith("separate: merged they answer 6 of 6 values")
    assert "answer more slowly" in caplog.text
    panel = Panel.from_frame(tiny_rows(), COLUMNS)
    assert loaded.predict(panel).tobytes() == tiny_forecaster().predict(panel).tobytes()


def test_a_loaded_pair_predicts_the_same_bits(tiny: TinyRegistry) -> None:
    loaded = tiny.store.load(tiny.store.resolve(NAME, 2))
    assert loaded.model.inference == "merged: one answer of 3 boosters"
    panel = Panel.from_frame(tiny_rows(), COLUMNS)
    expected = tiny_forecaster().predict(panel)
    assert expected.shape == (2, 3, 1)
    np.testing.assert_array_equal(loaded.predict(panel).view(np.uint32), expected.view(np.uint32))


CLEAN_PROCESS = """
import sys
from mlplatform.registry.pairs import PairStore
from mlplatform.settings import Settings

store = PairStore(Settings.from_env())
sys.exit("; ".join(store.reproduce_example(store.resolve("tiny", 3))) or 0)
"""


def test_a_clean_process_reproduces_the_stored_example(tiny: TinyRegistry) -> None:
    rows, answer = tiny.store.example(tiny.store.resolve(NAME, 3))
    assert rows.equals(example_rows(tiny_forecaster().contract, tiny_rows()))
    assert answer.dtype == np.float32
    environ = {
        "MLPLATFORM_HOME": str(tiny.settings.home),
        "MLFLOW_TRACKING_URI": tiny.settings.mlflow_tracking_uri,
        "PYTHONPATH": str(PACKAGE_ROOT.parent),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CLEAN_PROCESS], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_another_answer_to_the_example_is_told_with_place_and_values(
    tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Forecaster.predict

    def nudged(forecaster: Forecaster, panel: Panel) -> np.ndarray:
        answer = predict(forecaster, panel)
        answer[1, 2, 0] = np.nextafter(answer[1, 2, 0], np.float32(np.inf))
        return answer

    monkeypatch.setattr(Forecaster, "predict", nudged)
    (difference,) = tiny.store.reproduce_example(tiny.store.resolve(NAME, 3))
    assert difference.startswith("1 of 6 values differ, first at (1, 2, 0)")


def test_a_pair_that_saves_less_than_it_fitted_is_not_registered(
    empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = TransformManager.save

    def forget(manager: TransformManager, folder: Path) -> None:
        save(manager, folder)
        path = folder / "preprocessor.json"
        document = json.loads(path.read_text())
        document["fitted"].pop()
        path.write_text(json.dumps(document))

    monkeypatch.setattr(TransformManager, "save", forget)
    registry = TinyRegistry.create(empty)
    with pytest.raises(PairIntegrityError, match="does not survive being stored: 6 of 6 values differ"):
        registry.register(tiny_forecaster())
    assert registry.store.find(NAME, "latest") is None


def test_the_model_card_says_what_the_run_recorded(empty: Settings) -> None:
    registry = TinyRegistry.create(empty)
    client = registry.store.client
    metrics = {"reference_mae": 1.25, "fold_0_mae": 1.5, "baseline_repeat_last_reference_mae": 2.5, "fit_seconds": 3.0}
    for key, value in metrics.items():
        client.log_metric(registry.run_id, key, value)
    params = {"split_version": "s1", "feature_version": "f1", "model_version": "m1", "model.max_depth": "3"}
    for key, value in {**params, "data.reference.rows": "24", "data.reference.start": "2026-01-02"}.items():
        client.log_param(registry.run_id, key, value)
    client.set_tag(registry.run_id, "data.reference.sha256", "abc123")
    client.set_tag(registry.run_id, "dvc.reference", "def456")
    open_tracking(empty)
    plot = empty.home / "scores.png"
    plot.write_bytes(b"a picture")
    client.log_artifact(registry.run_id, str(plot), "plots")
    pair = registry.register(tiny_forecaster())

    card = registry.store.card(pair)
    assert card["scores"] == {
        "xgboost": {"reference_mae": 1.25, "fold_0_mae": 1.5},
        "baseline repeat_last": {"reference_mae": 2.5},
    }
    assert card["data"] == {"reference": {"rows": "24", "start": "2026-01-02", "sha256": "abc123", "dvc": "def456"}}
    assert card["versions"] == {key: params[key] for key in ("split_version", "feature_version", "model_version")}
    assert card["params"] == {"max_depth": "3"}
    assert card["digests"] == pair.digests
    assert card["libraries"]["xgboost"]
    assert card["git_commit"] is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", card["git_commit"])
    for role in ROLES:
        description = client.get_model_version(f"{NAME}_{role}", "1").description
        assert "| metric | xgboost | baseline repeat_last |" in description
        assert "| reference_mae | 1.25 | 2.5 |" in description
        assert "| reference | 24 | 2026-01-02 |  | abc123 | def456 |" in description
    assert "artifacts/card/plots/scores.png" in pair.files["forecaster"]


def test_a_partner_with_another_pair_id_is_refused(tiny: TinyRegistry) -> None:
    store = tiny.store
    info = store.resolve(NAME, "staging")
    for role in ROLES[:-1]:
        store.client.set_model_version_tag(f"{NAME}_{role}", "3", "pair_id", "stranger")
        for read in (lambda: store.resolve(NAME, "staging"), lambda: store.verify(info)):
            with pytest.raises(PairIntegrityError, match=f"{NAME}_{role}.*'stranger', but .* has '{info.pair_id}'"):
                read()
        store.client.set_model_version_tag(f"{NAME}_{role}", "3", "pair_id", info.pair_id)


def test_a_deleted_partner_is_refused(tiny: TinyRegistry) -> None:
    tiny.store.client.delete_model_version(f"{NAME}_preprocessor", "1")
    with pytest.raises(PairIntegrityError, match=f"{NAME}_preprocessor"):
        tiny.store.resolve(NAME, 1)


def test_two_halves_with_different_contracts_are_no_pair(tmp_path: Path) -> None:
    forecaster = tiny_forecaster()
    for name, contract in (("one", forecaster.contract), ("other", replace(forecaster.contract, horizon=2))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "contract.json").write_text(contract.to_json())
    with pytest.raises(ValueError, match="not a pair"):
        Forecaster.load(tmp_path / "one", tmp_path / "other")


def test_a_version_made_by_hand_in_between_costs_a_number_and_nothing_else(
    tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, intruded = mlflow.MlflowClient.create_model_version, []

    def intrude(client: mlflow.MlflowClient, name: str, source: str, *args: object, **kwargs: object) -> object:
        if name == f"{NAME}_forecaster" and not intruded:
            intruded.append(create(client, name, source))
        return create(client, name, source, *args, **kwargs)

    monkeypatch.setattr(mlflow.MlflowClient, "create_model_version", intrude)
    pair = tiny.register(tiny_forecaster())
    assert intruded
    assert pair.version == 6
    report = tiny.store.repair(NAME)
    assert (report.repaired, report.damaged, report.latest) == ((), (), 6)


def test_nothing_else_reads_or_moves_aliases() -> None:
    pattern = re.compile(r"by_alias|registered_model_alias|(?<!pairs)\.aliases\b|models:/[^\"']*@")
    readers = {
        path.relative_to(PACKAGE_ROOT.parent).as_posix()
        for package in ("mlplatform", "serving")
        for path in (PACKAGE_ROOT.parent / package).rglob("*.py")
        # Fault injection names MLflow's tables.
        if path.parent != PACKAGE_ROOT / "testing" and pattern.search(path.read_text())
    }
    # The reader of MLflow's file answers `aliases` in the client's place, and only that.
    assert readers == {"mlplatform/registry/pairs/aliases.py", "mlplatform/registry/local_reader.py"}
