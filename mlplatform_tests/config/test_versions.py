"""Versions as overrides, and files that are named after the version they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlplatform.config import (
    ConfigError,
    apply_versions,
    load_experiment,
)
from mlplatform.settings import Settings
from mlplatform.testing.experiments import (
    FEATURES,
    MODEL,
    NAME,
    SPLIT,
    write_experiment,
    write_yaml,
)


def test_versions_become_overrides(conf: Path, settings: Settings) -> None:
    write_experiment(conf, NAME, allowed={"model": ["pump_nlinear_v1"]})
    versions = {
        "split_version": "pump_v1@20240105T0600",
        "feature_version": "pump_v1",
        "model_version": "pump_nlinear_v1",
    }
    config = load_experiment(NAME, apply_versions(NAME, versions, settings), settings)
    assert config.versions == versions
    assert config.split.as_of is not None
    assert config.split.as_of.isoformat() == "2024-01-05T06:00:00+00:00"
    assert config.model.family == "nlinear"


@pytest.mark.parametrize(
    ("key", "version", "message"),
    [
        (
            "data_version",
            "pump_v1",
            r"unknown version key 'data_version'; allowed: split_version, feature_version, model",
        ),
        ("model_version", "pump_v9", r"model_version 'pump_v9' is unknown; known: .*pump_v1.*xgboost_v1"),
        (
            "model_version",
            "xgboost_v1",
            r"model_version 'xgboost_v1' is not allowed for 'pump_xgboost'; allowed: pump_v1; to allow it, "
            r"write `allowed: \{model: \[xgboost_v1\]\}` in the experiment's YAML",
        ),
        ("model_version", "pump_v1@20240105T0600", r"only a split version takes a cut-off"),
        ("split_version", "pump_v1@", r"split_version 'pump_v1@': .*written <version>@YYYYMMDDTHHMM"),
        ("split_version", "pump_v1@2024-01-05", r"written <version>@YYYYMMDDTHHMM"),
        ("split_version", "pump_v1@20241305T0600", r"'20241305T0600' is not a date and time"),
        ("split_version", "@20240105T0600", r"is unknown; known: "),
    ],
)
def test_versions_that_cannot_be_used_are_refused(key: str, version: str, message: str, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_versions(NAME, {key: version}, settings)


@pytest.mark.parametrize(("group", "values"), [("split", SPLIT), ("features", FEATURES), ("model", MODEL)])
def test_a_version_that_is_not_the_name_of_its_file_is_refused(
    group: str, values: dict[str, Any], conf: Path, settings: Settings
) -> None:
    write_yaml(conf, f"{group}/pump_v1", values | {"version": "pump_v9"})
    with pytest.raises(
        ConfigError, match=rf"{group}/pump_v1\.yaml: version is 'pump_v9', but must equal the file's name"
    ):
        load_experiment(NAME, settings=settings)
    write_yaml(conf, f"{group}/pump_v1", values)
    write_yaml(conf, f"{group}/pump_v2", values)
    assert load_experiment(NAME, settings=settings).name == NAME
    with pytest.raises(ConfigError, match=rf"{group}/pump_v2\.yaml: version is 'pump_v1'"):
        load_experiment(NAME, [f"{group}=pump_v2"], settings)
