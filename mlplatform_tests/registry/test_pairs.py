"""Pairs in a real MLflow registry: one version number, one commit point, verified before anything is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from mlplatform.datamodule.panel import Panel
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.registry import forecaster as forecaster_module
from mlplatform.registry.digests import folder_digest
from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.pairs import ROLES, PairInfo, PairIntegrityError, PairNotFoundError, PairStore
from mlplatform.registry.tracking import open_tracking
from mlplatform_tests.registry.conftest import Register
from mlplatform_tests.yard import EXPERIMENT

Tampering = Callable[[Path], object]


def aliases(store: PairStore, role: str) -> dict[str, int]:
    found = store.client.get_registered_model(f"{EXPERIMENT}_{role}").aliases
    return {alias: int(version) for alias, version in found.items()}


def artifact(store: PairStore, version: int, role: str) -> Path:
    uri = store.client.get_model_version_download_uri(f"{EXPERIMENT}_{role}", str(version))
    return Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/{role}"))


def panel_of(forecaster: Forecaster, rows: pd.DataFrame) -> Panel:
    return Panel.from_frame(rows, forecaster.contract.columns)


def test_three_models_share_a_version_a_pair_id_and_digests(store: PairStore, register: Register) -> None:
    first, second = register(), register()
    assert (first.version, second.version) == (1, 2)
    assert first.pair_id != second.pair_id
    for info in (first, second):
        tags = [store.client.get_model_version(f"{EXPERIMENT}_{role}", str(info.version)).tags for role in ROLES]
        for key in ("pair_id", "preprocessor_digest", "model_digest", "split_version"):
            assert len({tag[key] for tag in tags}) == 1
        assert info.preprocessor_digest == folder_digest(artifact(store, info.version, "preprocessor"))
        assert info.model_digest == folder_digest(artifact(store, info.version, "model"))
    assert {role: aliases(store, role) for role in ROLES} == {role: {"staging": 2} for role in ROLES}


def test_a_pair_is_registered_whatever_experiment_the_process_worked_on_before(
    store: PairStore, register: Register
) -> None:
    open_tracking(store.settings)
    mlflow.set_experiment("another experiment")
    assert register().version == 1
    assert mlflow.active_run() is None


def test_a_pair_is_found_by_alias_number_newest_and_run(stocked: PairStore, forecaster: Forecaster) -> None:
    first = stocked.promote(stocked.resolve(EXPERIMENT, "1"))
    refs = ("production", "staging", "latest", "1", "2")
    resolved = {ref: stocked.resolve(EXPERIMENT, ref).version for ref in refs}
    assert resolved == {"production": 1, "staging": 3, "latest": 3, "1": 1, "2": 2}
    assert stocked.of_run(EXPERIMENT, first.run_id) == stocked.resolve(EXPERIMENT, "production") == first
    assert first.contract == forecaster.contract


def test_what_is_not_there_is_named(stocked: PairStore) -> None:
    for ref in ("previous", "canary", "4", "0", "latest-and-greatest", "v1", "9" * 30):
        with pytest.raises(PairNotFoundError, match=f"{EXPERIMENT}.*{ref}"):
            stocked.resolve(EXPERIMENT, ref)


def test_an_empty_registry_says_which_job_to_run(store: PairStore) -> None:
    for ref in ("production", "1", "latest"):
        with pytest.raises(PairNotFoundError, match=f"run the job train_{EXPERIMENT}"):
            store.resolve(EXPERIMENT, ref)
    assert store.find(EXPERIMENT, "production") is None


def test_a_run_without_a_pair_is_named(stocked: PairStore) -> None:
    with pytest.raises(PairNotFoundError, match="no-such-run"):
        stocked.of_run(EXPERIMENT, "no-such-run")


def test_a_loaded_pair_predicts_the_same_bits(
    store: PairStore, register: Register, forecaster: Forecaster, reference_rows: pd.DataFrame
) -> None:
    loaded = store.load(register())
    panel = panel_of(forecaster, reference_rows)
    expected = forecaster.predict(panel)
    assert expected.shape == (2, 6, 1)
    np.testing.assert_array_equal(loaded.predict(panel).view(np.uint32), expected.view(np.uint32))
    assert loaded.contract == forecaster.contract


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


TAMPERING: dict[str, tuple[str, Tampering]] = {
    "a byte of the preprocessor's state": ("preprocessor", lambda folder: flip_a_byte(folder / "preprocessor.json")),
    "a byte of the preprocessor's contract": ("preprocessor", lambda folder: flip_a_byte(folder / "contract.json")),
    "a byte of the model's header": ("model", lambda folder: flip_a_byte(folder / "model.json")),
    "a byte of the weights": ("model", lambda folder: flip_a_byte(max((folder / "state").iterdir(), key=_size))),
    "a file more": ("model", lambda folder: (folder / "state" / "extra.bin").write_bytes(b"")),
    "a file less": ("model", lambda folder: (folder / "contract.json").unlink()),
    "a file under another name": ("model", lambda folder: (folder / "model.json").rename(folder / "models.json")),
}


def _size(path: Path) -> int:
    return path.stat().st_size


@pytest.fixture
def nothing_is_deserialised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("an artifact was deserialised before its digest was verified")

    monkeypatch.setattr(TransformManager, "load", refuse)
    monkeypatch.setattr(forecaster_module, "load_model", refuse)


def refusal(read: Callable[[PairInfo], object], info: PairInfo) -> str:
    """Return the integrity error that reading the pair ends with, or an empty text."""
    try:
        read(info)
    except PairIntegrityError as error:
        return str(error)
    return ""


@pytest.mark.usefixtures("nothing_is_deserialised")
def test_changed_artifacts_are_refused_before_they_are_deserialised(
    store: PairStore, register: Register, tmp_path: Path
) -> None:
    info = register()
    for what, (role, tamper) in TAMPERING.items():
        folder = artifact(store, info.version, role)
        shutil.copytree(folder, tmp_path / "untouched")
        tamper(folder)
        registered = info.preprocessor_digest if role == "preprocessor" else info.model_digest
        for read in (store.load, store.verify):
            message = refusal(read, info)
            for part in (f"{EXPERIMENT}_{role}", "version 1", registered, folder_digest(folder)):
                assert part in message, what
        shutil.rmtree(folder)
        shutil.move(tmp_path / "untouched", folder)
    store.verify(info)


@pytest.mark.usefixtures("nothing_is_deserialised")
def test_a_preprocessor_from_another_pair_is_refused(
    store: PairStore, register: Register, weak_forecaster: Forecaster
) -> None:
    first, second = register(), register(weak_forecaster)
    target = artifact(store, first.version, "preprocessor")
    shutil.rmtree(target)
    shutil.copytree(artifact(store, second.version, "preprocessor"), target)
    with pytest.raises(PairIntegrityError, match=second.preprocessor_digest):
        store.load(first)


def test_missing_artifacts_are_an_integrity_error(store: PairStore, register: Register) -> None:
    info = register()
    shutil.rmtree(artifact(store, info.version, "model"))
    with pytest.raises(PairIntegrityError, match=f"{EXPERIMENT}_model version 1 cannot be read"):
        store.load(info)


def test_a_partner_with_another_pair_id_is_refused(stocked: PairStore) -> None:
    info = stocked.resolve(EXPERIMENT, "staging")
    stocked.client.set_model_version_tag(f"{EXPERIMENT}_preprocessor", "3", "pair_id", "stranger")
    for read in (lambda: stocked.resolve(EXPERIMENT, "staging"), lambda: stocked.verify(info)):
        with pytest.raises(PairIntegrityError, match=f"'stranger', but {EXPERIMENT}_model has '{info.pair_id}'"):
            read()


def test_a_deleted_partner_is_refused(stocked: PairStore) -> None:
    stocked.client.delete_model_version(f"{EXPERIMENT}_preprocessor", "1")
    with pytest.raises(PairIntegrityError, match=f"{EXPERIMENT}_preprocessor"):
        stocked.resolve(EXPERIMENT, "1")


def test_two_halves_with_different_contracts_are_no_pair(
    store: PairStore, register: Register, forecaster: Forecaster
) -> None:
    other = Forecaster(replace(forecaster.contract, horizon=3), forecaster.preprocessor, forecaster.model)
    folders = [artifact(store, register(pair).version, "preprocessor") for pair in (forecaster, other)]
    with pytest.raises(ValueError, match="not a pair"):
        Forecaster.load(folders[1], artifact(store, 1, "model"))


def promote(store: PairStore, *versions: int) -> None:
    for version in versions:
        store.promote(store.resolve(EXPERIMENT, str(version)))


def test_promotion_moves_every_mirror_and_keeps_the_replaced_pair_as_previous(stocked: PairStore) -> None:
    assert stocked.resolve(EXPERIMENT, "1").promoted_at is None
    promote(stocked, 1, 2)
    assert stocked.resolve(EXPERIMENT, "1").promoted_at is not None
    expected = {"staging": 3, "production": 2, "previous": 1}
    assert {role: aliases(stocked, role) for role in ROLES} == dict.fromkeys(ROLES, expected)
    promote(stocked, 2)
    assert aliases(stocked, "model") == expected


def test_rolling_back_and_forth_trades_places(stocked: PairStore) -> None:
    promote(stocked, 1, 2)
    assert stocked.rollback(EXPERIMENT).version == 1
    assert aliases(stocked, "model") == {"staging": 3, "production": 1, "previous": 2}
    assert stocked.rollback(EXPERIMENT).version == 2
    assert aliases(stocked, "model") == {"staging": 3, "production": 2, "previous": 1}


def test_without_a_previous_pair_there_is_nothing_to_roll_back_to(stocked: PairStore) -> None:
    promote(stocked, 1)
    with pytest.raises(PairNotFoundError, match="previous"):
        stocked.rollback(EXPERIMENT)
    # A promotion that was cut off can leave `previous` on the production pair itself.
    stocked.set_alias(EXPERIMENT, "previous", 1)
    with pytest.raises(PairNotFoundError, match="previous"):
        stocked.rollback(EXPERIMENT)


def test_a_damaged_pair_is_not_rolled_back_to(store: PairStore, register: Register) -> None:
    for _ in range(2):
        store.promote(register())
    flip_a_byte(artifact(store, 1, "model") / "model.json")
    with pytest.raises(PairIntegrityError):
        store.rollback(EXPERIMENT)
    assert aliases(store, "model") == {"staging": 2, "production": 2, "previous": 1}


def test_mirrors_found_behind_are_repaired_by_the_next_write(stocked: PairStore) -> None:
    promote(stocked, 1, 2)
    stocked.client.set_registered_model_alias(f"{EXPERIMENT}_preprocessor", "production", "1")
    stocked.client.delete_registered_model_alias(f"{EXPERIMENT}_forecaster", "previous")
    stocked.set_alias(EXPERIMENT, "staging", 3)
    expected = {"staging": 3, "production": 2, "previous": 1}
    assert {role: aliases(stocked, role) for role in ROLES} == dict.fromkeys(ROLES, expected)
