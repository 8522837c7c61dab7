"""Artifacts that were changed, added, removed or replaced are refused by name, before anything reads them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import xgboost

from mlplatform.preprocessing.manager import TransformManager
from mlplatform.registry import forecaster as forecaster_module
from mlplatform.registry.pairs import ROLES, PairInfo, PairIntegrityError, PairStore, artifacts
from mlplatform.settings import Settings
from mlplatform.testing.tiny_pair import NAME, TinyRegistry, tiny_forecaster

LOADERS = (
    (TransformManager, "load"),
    (forecaster_module, "load_model"),
    (forecaster_module.Contract, "from_json"),
    (artifacts, "read_example"),
    (xgboost.Booster, "load_model"),
    (np, "load"),
    (pd, "read_parquet"),
    (pickle, "load"),
    (pickle, "loads"),
)


@pytest.fixture(scope="module")
def registered(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PairStore, PairInfo]:
    """A pair in a registry whose artifacts the tests may damage, as long as they put them back."""
    from mlplatform.testing.yard import place_database

    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("tampering"))})
    place_database(mlflow_database, settings)
    registry = TinyRegistry.create(settings)
    info = registry.register(tiny_forecaster())
    registry.store.promote(NAME, 1, "test", "a test")
    return registry.store, info


@pytest.fixture
def loaders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the loaders that were called since, all of which refuse."""
    called: list[str] = []

    def instrumented(name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> None:
            called.append(name)
            raise AssertionError(f"{name} read an artifact that was not verified")

        return refuse

    for owner, name in LOADERS:
        monkeypatch.setattr(owner, name, instrumented(name))
    return called


def folder_of(store: PairStore, role: str) -> Path:
    """Return the folder where MLflow keeps a registered model."""
    uri = store.client.get_model_version_download_uri(f"{NAME}_{role}", "1")
    return Path(mlflow.artifacts.download_artifacts(uri))


def readers(store: PairStore, info: PairInfo, role: str) -> Iterator[Any]:
    """Yield all that reads a role's files."""
    yield lambda: store.verify(info)
    if role == "forecaster":
        yield lambda: store.example(info)
        yield lambda: store.card(info)
    else:
        yield lambda: store.load(info)


def refusals(store: PairStore, info: PairInfo, role: str) -> list[str]:
    """Return the integrity error of every reader of a role."""
    found = []
    for read in readers(store, info, role):
        with pytest.raises(PairIntegrityError) as error:
            read()
        found.append(str(error.value))
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_byte_flipped_in_any_file_is_refused_by_name_and_nothing_is_deserialised(
    registered: tuple[PairStore, PairInfo], loaders: list[str], role: str
) -> None:
    store, info = registered
    folder = folder_of(store, role)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert {path.relative_to(folder).as_posix() for path in files} == set(info.files[role])
    for path in files:
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        path.write_bytes(flipped)
        for message in refusals(store, info, role):
            assert f"{NAME}_{role} version 1" in message
            assert f": {name} has SHA-256" in message
            assert info.files[role][name] in message
        path.write_bytes(content)
    store.verify(info)
    assert loaders == []


@pytest.mark.parametrize("role", ROLES)
def test_files_that_are_missing_or_renamed_are_named(
    registered: tuple[PairStore, PairInfo], loaders: list[str], role: str
) -> None:
    store, info = registered
    contracts = sorted(folder_of(store, role).rglob("contract.json"))
    for path in contracts:
        moved = path.with_name("contracts.json")
        path.rename(moved)
        for message in refusals(store, info, role):
            assert "contract.json is missing" in message
            assert "contracts.json was added" in message
        moved.rename(path)
    assert contracts
    assert loaders == []


class Malicious:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "name", ["python_model.pkl", "artifacts/model/state/extra.pkl", "__init__.py", "sitecustomize.py"]
)
def test_an_added_file_is_refused_and_not_executed(
    registered: tuple[PairStore, PairInfo], loaders: list[str], tmp_path: Path, role: str, name: str
) -> None:
    store, info = registered
    trace, path = tmp_path / "executed", folder_of(store, role) / name
    new_folders = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    code = f"import os; os.mkdir({str(trace)!r})".encode()
    path.write_bytes(pickle.dumps(Malicious(trace)) if name.endswith(".pkl") else code)
    for message in refusals(store, info, role):
        assert f"{name} was added" in message
    path.unlink()
    for parent in new_folders:
        parent.rmdir()
    assert not trace.exists()
    assert loaders == []


@pytest.mark.parametrize("role", ROLES)
def test_a_malicious_pickle_in_place_of_any_file_is_refused_and_not_executed(
    registered: tuple[PairStore, PairInfo], loaders: list[str], tmp_path: Path, role: str
) -> None:
    store, info = registered
    trace, folder = tmp_path / "executed", folder_of(store, role)
    for name in info.files[role]:
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(pickle.dumps(Malicious(trace)))
        for message in refusals(store, info, role):
            assert f"{name} has SHA-256" in message
        path.write_bytes(content)
    assert not trace.exists()
    assert loaders == []
    # The trap works: it is only never read.
    monkey = pickle.dumps(Malicious(trace))
    pickle._loads(monkey)  # type: ignore[attr-defined]
    assert trace.exists()


def test_a_preprocessor_of_another_pair_is_refused(registered: tuple[PairStore, PairInfo], loaders: list[str]) -> None:
    store, info = registered
    path = folder_of(store, "preprocessor") / "artifacts" / "preprocessor" / "preprocessor.json"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"limit": 2', b'"limit": 1'))
    assert path.read_bytes() != content
    for message in refusals(store, info, "preprocessor"):
        assert "preprocessor.json has SHA-256" in message
    path.write_bytes(content)
    assert loaders == []


def test_a_damaged_pair_is_neither_promoted_nor_rolled_back_to(registered: tuple[PairStore, PairInfo]) -> None:
    store, info = registered
    path = folder_of(store, "forecaster") / "MLmodel"
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    with pytest.raises(PairIntegrityError, match="MLmodel has SHA-256"):
        store.promote(NAME, 1, "test", "a test")
    assert store.repair(NAME).damaged[0].startswith("version 1 (behind production, staging): the artifacts of")
    path.write_bytes(content)
    store.verify(info)


def test_missing_artifacts_are_an_integrity_error(registered: tuple[PairStore, PairInfo]) -> None:
    store, info = registered
    folder = folder_of(store, "model")
    folder.rename(folder.with_name("away"))
    with pytest.raises(PairIntegrityError, match=f"{NAME}_model version 1 cannot be read"):
        store.load(info)
    folder.with_name("away").rename(folder)


def test_what_mlflow_itself_adds_is_no_tampering(registered: tuple[PairStore, PairInfo]) -> None:
    store, info = registered
    mlflow.pyfunc.load_model(f"models:/{NAME}_forecaster@production")
    assert (folder_of(store, "forecaster") / "registered_model_meta").exists()
    store.verify(info)
    (folder_of(store, "forecaster") / "registered_model_meta").unlink()


def test_plain_mlflow_refuses_a_damaged_model_too(registered: tuple[PairStore, PairInfo]) -> None:
    store, _ = registered
    for role, part in (("forecaster", "model"), ("model", "model"), ("preprocessor", "preprocessor")):
        path = folder_of(store, role) / "artifacts" / part / "contract.json"
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        with pytest.raises(ValueError, match="changed after it was stored"):
            mlflow.pyfunc.load_model(f"models:/{NAME}_{role}@production")
        path.write_bytes(content)
        (folder_of(store, role) / "registered_model_meta").unlink(missing_ok=True)
