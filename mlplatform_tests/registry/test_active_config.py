"""The active configuration: what the last promotion used, for the next run to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlplatform.config import ConfigError, load_experiment
from mlplatform.registry.active_config import active_config_path, read_active_versions, write_active_config
from mlplatform.settings import Settings

EXPERIMENT = "diabetes_xgboost"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})


def test_before_the_first_promotion_nothing_is_active(settings: Settings) -> None:
    assert read_active_versions(EXPERIMENT, settings) == {}


def test_what_was_written_is_read(settings: Settings) -> None:
    config = load_experiment(EXPERIMENT, settings=settings)
    path = write_active_config(EXPERIMENT, config.versions, 3, settings)
    assert read_active_versions(EXPERIMENT, settings) == config.versions
    document = yaml.safe_load(path.read_text())
    assert document["pair_version"] == 3
    assert document["promoted_at"].endswith("+00:00")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("text", ["", "[]", "split_version: diabetes_v1\n"])
def test_a_file_that_is_something_else_is_refused(settings: Settings, text: str) -> None:
    path = active_config_path(EXPERIMENT, settings)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"active_config\.yaml must hold split_version"):
        read_active_versions(EXPERIMENT, settings)
