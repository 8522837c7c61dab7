"""A clean process loads a pair from the registry and reproduces its stored answer, or says why not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlplatform.promotion.integrity import CleanProcess, check_integrity
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform.settings import Settings
from mlplatform.testing.tiny_pair import NAME, TinyRegistry, tiny_forecaster
from mlplatform_tests.fixtures.keys import write_key

VALUES = 6


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> TinyRegistry:
    folder = tmp_path_factory.mktemp("integrity")
    (folder / "mlflow").mkdir()
    shutil.copy(mlflow_database, folder / "mlflow" / "mlflow.db")
    registry = TinyRegistry.create(Settings.from_env({"MLPLATFORM_HOME": str(folder)}))
    registry.register(tiny_forecaster())
    return registry


@pytest.fixture
def info(registry: TinyRegistry) -> PairInfo:
    return registry.store.resolve(NAME, "1")


@pytest.fixture
def damaged(registry: TinyRegistry, info: PairInfo) -> Iterator[Path]:
    """The booster's file with one byte flipped; it is whole again afterwards."""
    uri = registry.store.client.get_model_version_download_uri(f"{NAME}_model", str(info.version))
    folder = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/model"))
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    yield path
    path.write_bytes(whole)


@pytest.mark.integration
def test_a_clean_process_finds_a_whole_pair_whole(registry: TinyRegistry, info: PairInfo) -> None:
    report = CleanProcess(registry.settings).check(info)
    assert (report.version, report.pair_id) == (1, info.pair_id)
    assert (report.problems, report.values) == ((), VALUES)


@pytest.mark.integration
def test_a_clean_process_names_the_file_that_was_changed(registry: TinyRegistry, info: PairInfo, damaged: Path) -> None:
    (problem,) = CleanProcess(registry.settings).check(info).problems
    assert damaged.name in problem
    assert "changed after registration" in problem


@pytest.mark.integration
def test_a_clean_process_asks_for_the_signatures_that_this_one_does_and_never_has_the_key_to_sign(
    registry: TinyRegistry, info: PairInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = write_key(tmp_path, "mine")
    monkeypatch.setenv("MLPLATFORM_SIGNING_KEY", str(key.private))
    monkeypatch.setenv("MLPLATFORM_SIGNING_KEY_PASSWORD", "none")
    settings = replace(registry.settings, signing_key=key.private, verify_keys=(key.public,))
    process = CleanProcess(settings)
    environment = Path(f"/proc/{process._process.pid}/environ")
    assert not environment.exists() or b"MLPLATFORM_SIGNING_KEY" not in environment.read_bytes()
    (problem,) = process.check(info).problems
    assert "is not signed, and MLPLATFORM_VERIFY_KEY asks for signatures" in problem
    assert check_integrity(PairStore(settings), info).problems == (problem,)


def test_a_process_that_dies_is_a_problem_that_tells_why(registry: TinyRegistry, info: PairInfo) -> None:
    elsewhere = replace(registry.settings, mlflow_tracking_uri="sqlite:////proc/no/such/folder/mlflow.db")
    (problem,) = CleanProcess(elsewhere).check(info).problems
    assert "ended with status 1" in problem
    assert "/proc/no" in problem


def test_a_process_that_is_closed_leaves_nothing_behind(registry: TinyRegistry) -> None:
    process = CleanProcess(registry.settings)
    process.close()
    assert process._process.returncode is not None


def test_another_answer_than_the_stored_one_is_a_problem(
    registry: TinyRegistry, info: PairInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = registry.store
    rows, answer = store.example(info)
    wrong = answer.copy()
    wrong.flat[2] = np.nextafter(wrong.flat[2], np.float32(np.inf))
    monkeypatch.setattr(PairStore, "example", lambda _store, _info: (rows, wrong))
    (problem,) = check_integrity(store, info).problems
    assert "1 of 6 values differ" in problem


def test_a_damaged_file_is_a_problem_and_nothing_is_loaded(
    registry: TinyRegistry, info: PairInfo, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PairStore, "reproduce_example", lambda *_: pytest.fail("it was loaded"))
    (problem,) = check_integrity(registry.store, info).problems
    assert damaged.name in problem
