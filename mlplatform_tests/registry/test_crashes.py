"""Registrations and promotions that are cut off anywhere, or run side by side: readers never notice, writers heal."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from mlplatform.datamodule.panel import Panel
from mlplatform.registry import pairs
from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.pairs import ROLES, PairInfo, PairNotFoundError, PairStore
from mlplatform.settings import Settings
from mlplatform_tests.registry.conftest import new_run
from mlplatform_tests.yard import EXPERIMENT, Yard, with_registry

REGISTRY_WRITES = (
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "set_model_version_tag",
)
WRITES_OF_A_REGISTRATION = 15


class Killed(BaseException):
    """The end of a process: nothing in the platform may catch it."""


@dataclass
class Registry:
    """A registry with one production pair, whose artifacts are logged once and registered again and again."""

    settings: Settings
    forecaster: Forecaster
    run_id: str
    logged: dict[str, Any]

    @property
    def store(self) -> PairStore:
        return PairStore(self.settings)

    def register(self) -> PairInfo:
        return self.store.register(EXPERIMENT, self.forecaster, "xgboost", self.run_id)

    def versions(self, role: str) -> dict[int, dict[str, str]]:
        """Return the tags of every version of one of the three models."""
        found = self.store.client.search_model_versions(f"name='{EXPERIMENT}_{role}'")
        return {int(version.version): dict(version.tags) for version in found}

    def check(self) -> None:
        """Check what must hold whatever happened: every version is a whole pair or not there for readers."""
        complete = []
        for version in self.versions("model"):
            pair = self.store.find(EXPERIMENT, str(version))
            if pair is not None:
                self.store.verify(pair)
                complete.append(version)
        assert self.store.resolve(EXPERIMENT, "latest").version == max(complete)
        assert self.store.resolve(EXPERIMENT, "production").version == 1
        assert self.store.resolve(EXPERIMENT, "staging").version in complete

    def check_healed(self, newest: PairInfo) -> None:
        """Check that a registration put everything right that was cut off before it."""
        self.check()
        numbers = {role: sorted(self.versions(role)) for role in ROLES}
        assert numbers == {role: list(range(1, newest.version + 1)) for role in ROLES}
        for version, tags in self.versions("model").items():
            if self.store.find(EXPERIMENT, str(version)) is None:
                assert tags.get("incomplete") == "true" or "pair_id" not in tags
        for ref in ("latest", "staging"):
            assert self.store.resolve(EXPERIMENT, ref) == newest
        expected = {"staging": newest.version, "production": 1}
        for role in ROLES:
            aliases = self.store.client.get_registered_model(f"{EXPERIMENT}_{role}").aliases
            assert {alias: int(version) for alias, version in aliases.items()} == expected


@pytest.fixture(scope="module")
def logged_registry(
    trained_yard: Yard, forecaster: Forecaster, mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Registry:
    settings = with_registry(trained_yard.settings, tmp_path_factory.mktemp("registry"), mlflow_database)
    logged: dict[str, Any] = {}
    log = pairs._log

    def keep(settings: Settings, role: str, run_id: str, artifacts: Any) -> Any:
        logged[role] = log(settings, role, run_id, artifacts)
        return logged[role]

    registry = Registry(settings, forecaster, new_run(settings), logged)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_log", keep)
        registry.store.promote(registry.register())
    return registry


@pytest.fixture
def registry(logged_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A copy of the registry; what was logged before is used again, so that a registration takes milliseconds."""
    database = tmp_path / "mlflow.db"
    shutil.copy(logged_registry.settings.mlflow_tracking_uri.removeprefix("sqlite:///"), database)
    monkeypatch.setattr(pairs, "_log", lambda _settings, role, _run_id, _artifacts: logged_registry.logged[role])
    return replace(
        logged_registry,
        settings=replace(logged_registry.settings, mlflow_tracking_uri=f"sqlite:///{database}"),
    )


class Killer:
    """Ends the process, so to speak, after a number of writes to the registry."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.seen = 0
        for name in REGISTRY_WRITES:
            monkeypatch.setattr(MlflowClient, name, self._counted(getattr(MlflowClient, name)))
        monkeypatch.setattr(pairs, "_log", self._counted(pairs._log))

    def _counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def counted(*args: Any, **kwargs: Any) -> Any:
            try:
                return write(*args, **kwargs)
            finally:
                self._count()

        return counted

    def _count(self) -> None:
        self.seen += 1
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.left = None
                raise Killed


@pytest.fixture
def killer(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Killer:
    assert registry
    return Killer(monkeypatch)


def test_the_kills_below_cover_every_write(registry: Registry, killer: Killer) -> None:
    registry.register()
    assert killer.seen == WRITES_OF_A_REGISTRATION


@pytest.mark.parametrize("writes", range(1, WRITES_OF_A_REGISTRATION))
def test_the_next_registration_heals_one_that_was_killed(registry: Registry, killer: Killer, writes: int) -> None:
    killer.left = writes
    with pytest.raises(Killed):
        registry.register()
    registry.check()
    registry.check_healed(registry.register())


@pytest.mark.parametrize("seed", range(2))
def test_kills_in_a_row_also_those_while_healing_leave_nothing_behind(
    registry: Registry, killer: Killer, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    for _ in range(8):
        killer.left = chance.randint(4, WRITES_OF_A_REGISTRATION + 2)
        try:
            registry.register()
        except Killed:
            registry.check()
    killer.left = None
    registry.check_healed(registry.register())


def test_padding_says_what_it_is(registry: Registry, killer: Killer) -> None:
    # Three artifacts and three models come first, then the preprocessor's version and its pair id.
    killer.left = 8
    with pytest.raises(Killed):
        registry.register()
    assert {role: max(registry.versions(role)) for role in ROLES} == {"preprocessor": 2, "forecaster": 1, "model": 1}
    assert registry.register().version == 3
    for role in ("forecaster", "model"):
        padded = registry.versions(role)[2]
        assert (padded["incomplete"], padded["padding_for"]) == ("true", "3")
        assert "pair_id" not in padded
    with pytest.raises(PairNotFoundError, match="version 2"):
        registry.store.resolve(EXPERIMENT, "2")


def test_a_version_that_lost_the_race_for_its_number_is_not_the_newest_pair(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As left by a process killed between creating a version and finding that another run had taken its number.
    create = MlflowClient.create_model_version

    def create_late(client: MlflowClient, name: str, *args: Any, **kwargs: Any) -> Any:
        if name.endswith("_model"):
            uri = registry.logged["model"].model_uri
            create(client, name, uri, registry.run_id, tags={"taken_by": "another run"})
            create(client, name, *args, **kwargs)
            raise Killed
        return create(client, name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", create_late)
        with pytest.raises(Killed):
            registry.register()
    assert {role: max(registry.versions(role)) for role in ROLES} == {"preprocessor": 2, "forecaster": 2, "model": 3}
    registry.check()
    registry.check_healed(registry.register())


@pytest.mark.parametrize("writes", range(1, 8))
def test_a_promotion_that_was_killed_is_whole_or_not_there_and_can_be_repeated(
    registry: Registry, killer: Killer, writes: int
) -> None:
    second = registry.register()
    killer.left = writes
    with pytest.raises(Killed):
        registry.store.promote(second)
    champion = registry.store.resolve(EXPERIMENT, "production")
    assert champion.version in (1, 2)
    registry.store.verify(champion)
    killer.left = None
    registry.store.promote(second)
    for role in ROLES:
        aliases = registry.store.client.get_registered_model(f"{EXPERIMENT}_{role}").aliases
        found = {alias: int(version) for alias, version in aliases.items()}
        assert found["production"] == 2
        assert found["previous"] == 1


def test_registrations_side_by_side_share_no_number(registry: Registry) -> None:
    registered: list[PairInfo] = []
    errors: list[BaseException] = []

    def register_some() -> None:
        try:
            registered.extend(registry.register() for _ in range(3))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=register_some) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({pair.version for pair in registered}) == len(registered) == 6
    for pair in registered:
        registry.store.verify(pair)
    registry.check_healed(registry.register())


def test_a_reader_never_sees_a_mixed_pair(
    store: PairStore,
    forecaster: Forecaster,
    weak_forecaster: Forecaster,
    reference_rows: pd.DataFrame,
) -> None:
    panel = Panel.from_frame(reference_rows, forecaster.contract.columns)
    mixed = Forecaster(forecaster.contract, weak_forecaster.preprocessor, forecaster.model)
    answers = {1: forecaster.predict(panel), 2: weak_forecaster.predict(panel)}
    assert not any(np.array_equal(mixed.predict(panel), answer) for answer in answers.values())
    run_id = new_run(store.settings)
    pair = {
        version: store.register(EXPERIMENT, each, "xgboost", run_id)
        for version, each in ((1, forecaster), (2, weak_forecaster))
    }
    store.promote(pair[1])
    seen: list[int] = []
    errors: list[BaseException] = []
    is_over = threading.Event()

    def read() -> None:
        reader = PairStore(store.settings)
        try:
            while not is_over.is_set():
                info = reader.resolve(EXPERIMENT)
                answer = reader.load(info).predict(panel)
                np.testing.assert_array_equal(answer, answers[info.version])
                seen.append(info.version)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for turn in range(200):
        store.promote(pair[2 - turn % 2])
        if errors or (turn >= 10 and {1, 2} <= set(seen) and len(seen) >= 10):
            break
    is_over.set()
    thread.join()
    assert not errors
    assert set(seen) == {1, 2}


KILLED_PROCESS = """
import os, sys
from dataclasses import replace
from pathlib import Path

import mlflow
from mlflow import MlflowClient

import mlflow.pyfunc, mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store, xgboost
from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.pairs import PairStore
from mlplatform.settings import Settings

preprocessor, model, run_id, name = sys.argv[1:]
settings = Settings.from_env()


def killed_after(writes):
    def counted(write):
        def call(*args, **kwargs):
            nonlocal writes
            answer = write(*args, **kwargs)
            writes -= 1
            if writes == 0:
                os._exit(9)
            return answer
        return call

    for method in ("create_model_version", "set_model_version_tag", "set_registered_model_alias"):
        setattr(MlflowClient, method, counted(getattr(MlflowClient, method)))
    PairStore(settings).register(name, Forecaster.load(Path(preprocessor), Path(model)), "xgboost", run_id)


for writes in (3, 6):
    # The child connects to the registry by itself; nothing was opened before the fork.
    child = os.fork()
    if not child:
        killed_after(writes)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9, status
"""


def test_killed_processes_leave_a_registry_that_heals(logged_registry: Registry, registry: Registry) -> None:
    store = logged_registry.store
    info = store.resolve(EXPERIMENT, "production")
    folders = [
        store._artifact(info, role, digest)
        for role, digest in (("preprocessor", info.preprocessor_digest), ("model", info.model_digest))
    ]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED_PROCESS, *map(str, folders), registry.run_id, EXPERIMENT],
        check=True,
        env={
            "MLPLATFORM_HOME": str(registry.settings.home),
            "MLFLOW_TRACKING_URI": registry.settings.mlflow_tracking_uri,
        },
        stderr=subprocess.DEVNULL,
    )
    assert {role: max(registry.versions(role)) for role in ROLES} == {"preprocessor": 3, "forecaster": 3, "model": 3}
    registry.check()
    registry.check_healed(registry.register())
