"""The active configuration: what the last promotion used, for the next run to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlplatform.config import ConfigError, load_experiment
from mlplatform.promotion.active_config import (
    active_config_path,
    read_active_pair,
    read_active_versions,
    write_active_config,
)
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


GOOD = "split_version: diabetes_v1\nfeature_version: diabetes_all_v1\nmodel_version: xgboost_tabular_v1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold split_version, feature_version, model_version, but holds NoneType"),
        ("[]", "but holds list"),
        ("just words", "but holds str"),
        ("a: [1", "is not YAML"),
        ("\0", "is not YAML"),
        ("split_version: diabetes_v1\n", "feature_version is missing"),
        (GOOD.replace("xgboost_tabular_v1", "3"), "model_version is 3, expected the name of a version"),
        (GOOD.replace("diabetes_v1", "'../../etc'"), r"split_version is '\.\./\.\./etc', expected the name"),
        (GOOD.replace("diabetes_v1", "diabetes_v1@yesterday"), "split_version is 'diabetes_v1@yesterday'"),
        (GOOD.replace("diabetes_all_v1", "[]"), r"feature_version is \[\]"),
    ],
)
def test_garbage_is_refused_with_file_key_and_what_to_do(settings: Settings, text: str, message: str) -> None:
    path = active_config_path(EXPERIMENT, settings)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_active_versions(EXPERIMENT, settings)
    assert str(path) in str(error.value)
    assert "delete the file" in str(error.value)
    assert read_active_pair(EXPERIMENT, settings) is None


def test_the_pair_it_was_written_for_can_be_told(settings: Settings) -> None:
    assert read_active_pair(EXPERIMENT, settings) is None
    config = load_experiment(EXPERIMENT, settings=settings)
    write_active_config(EXPERIMENT, config.versions, 3, settings)
    assert read_active_pair(EXPERIMENT, settings) == 3
