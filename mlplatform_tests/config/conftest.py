"""Fixtures of the configuration tests: a small experiment in a folder of its own, and the packaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlplatform.settings import Settings
from mlplatform.testing.experiments import write_conf


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    write_conf(tmp_path / "conf")
    return tmp_path / "conf"


@pytest.fixture
def settings(tmp_path: Path, conf: Path) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(conf)})


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("packaged"))})
