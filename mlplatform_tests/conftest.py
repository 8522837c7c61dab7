"""Fixtures for all tests: a migrated MLflow database to copy, and one trained installation to read from."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlplatform.testing.yard import Yard

HOME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests off the caller's installation, before any test module imports the code location."""
    # Tests run side by side and their models are tiny: threads would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config.stash[HOME] = tempfile.mkdtemp(prefix="mlplatform-tests-")
    os.environ["MLPLATFORM_HOME"] = config.stash[HOME]
    for name in ("MLPLATFORM_CONF_DIR", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Import the code location, as soon as what is imported is measured: where tests run side by side, from here on."""
    config = session.config
    # The process that only hands out tests to others needs nothing of this, and they wait for it.
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    # Nothing that is imported is garbage, but the collector would look through all of it again and again.
    gc.disable()
    # Not by `pytest_plugins`: that would import it before `pytest_configure`. What libraries warn of while they are
    # imported here, pytest would print and not collect.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        config.pluginmanager.import_plugin("mlplatform_tests.fixtures.pairs")


def pytest_collection_finish() -> None:
    """Collect garbage from here on, leaving alone what was there before the first test."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what importing the code location left behind."""
    shutil.rmtree(config.stash[HOME], ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def no_clean_process_per_training_run() -> Iterator[None]:
    """Starting a process to load a pair takes seconds; only the tests of that process and of the command line do it."""
    from mlplatform import promotion
    from mlplatform.promotion import checks as candidate_checks
    from mlplatform.promotion import integrity
    from mlplatform.registry.pairs import PairInfo, PairStore

    def check_here(settings: Settings, info: PairInfo) -> integrity.IntegrityReport:
        return integrity.check_integrity(PairStore(settings), info)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidate_checks, "check_in_clean_process", check_here)
        patch.setattr(promotion, "prepare_clean_process", lambda _settings: None)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: side by side, one of them at the end would leave the other cores idle."""
    slow = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """MLflow keeps what it last worked on in the environment, where later settings and processes would find it.

    Not by a fixture: those of a session or a module, which start servers, come before any of a test.
    """
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database. Its first use takes seconds for migrations, so tests start from copies of this one."""
    from mlplatform.registry.tracking import client_for
    from mlplatform.settings import sqlite_file
    from mlplatform_tests.fixtures.shared import made_once

    def settings_in(folder: Path) -> Settings:
        return Settings.from_env({"MLPLATFORM_HOME": str(folder)})

    def migrate(folder: Path) -> None:
        client_for(settings_in(folder)).search_experiments(max_results=1)

    folder = made_once(tmp_path_factory, "mlflow", migrate)
    database = sqlite_file(settings_in(folder).mlflow_tracking_uri)
    assert database is not None
    return database


@pytest.fixture(scope="session")
def trained_yard(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    """An installation after one training run, which promoted version 1. For reading only: copy it to change it."""
    from mlplatform.testing.yard import TRAIN, Yard
    from mlplatform_tests.fixtures.shared import made_once

    def train(folder: Path) -> None:
        yard = Yard.create(folder, mlflow_database, has_history=True)
        assert yard.run(TRAIN).success

    trained = made_once(tmp_path_factory, "trained", train)
    return Yard.at(trained).clone_to(tmp_path_factory.mktemp("yard"), has_history=True)


@pytest.fixture
def yard(trained_yard: Yard, mlflow_database: Path, tmp_path: Path) -> Yard:
    """A copy of the trained installation with an empty model registry, for the test to change."""
    return trained_yard.copy_to(tmp_path, mlflow_database)
