"""The composition cache: used until a file changes, and never a place for secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlplatform.config import (
    ConfigError,
    load_experiment,
)
from mlplatform.settings import Settings
from mlplatform.testing.experiments import (
    DATASET,
    MODEL,
    NAME,
    write_experiment,
    write_yaml,
)


def cached(settings: Settings) -> list[Path]:
    return sorted((settings.home / "cache" / "config").glob("*.json"))


def test_the_cache_is_used_until_a_file_changes(conf: Path, settings: Settings) -> None:
    first = load_experiment(NAME, settings=settings)
    (entry,) = cached(settings)
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"description": "remembered"}))
    assert load_experiment(NAME, settings=settings).description == "remembered"
    write_yaml(conf, "model/pump_v1", MODEL | {"params": {"max_depth": 2}})
    changed = load_experiment(NAME, settings=settings)
    assert (changed.description, changed.model.params) == (first.description, {"max_depth": 2})
    assert len(cached(settings)) == 2


def test_the_cache_notices_a_change_behind_a_linked_folder(tmp_path: Path, conf: Path, settings: Settings) -> None:
    (conf / "model").rename(tmp_path / "models")
    (conf / "model").symlink_to(tmp_path / "models", target_is_directory=True)
    load_experiment(NAME, settings=settings)
    write_yaml(tmp_path / "models", "pump_v1", MODEL | {"params": {"max_depth": 2}})
    assert load_experiment(NAME, settings=settings).model.params == {"max_depth": 2}


def test_a_damaged_cache_entry_is_made_again(settings: Settings) -> None:
    first = load_experiment(NAME, settings=settings)
    (entry,) = cached(settings)
    entry.write_text('{"name": ')
    assert load_experiment(NAME, settings=settings) == first
    assert json.loads(entry.read_text())["name"] == NAME


@pytest.mark.parametrize(
    "reference", ["${oc.env:PUMP_SECRET}", "${ oc.env:PUMP_SECRET}", "${oc.decode:${oc.env:PUMP_SECRET}}"]
)
def test_values_from_the_environment_are_never_written(
    reference: str, conf: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_experiment(conf, NAME, description=reference)
    for value in ("hunter2", "hunter3"):
        monkeypatch.setenv("PUMP_SECRET", value)
        assert load_experiment(NAME, settings=settings).description == value
    files = [path for path in settings.home.rglob("*") if path.is_file()] if settings.home.exists() else []
    assert not any("hunter" in path.read_text() for path in files)


def test_a_first_and_a_remembered_load_agree_on_odd_keys(conf: Path, settings: Settings) -> None:
    text = json.dumps(DATASET).replace('"pump.csv"', '"pump.csv", "options": {1: 2}')
    (conf / "dataset" / "pump.yaml").write_text(text)
    messages = set()
    for _ in range(2):
        with pytest.raises(ConfigError, match="allowed: decimal") as error:
            load_experiment(NAME, settings=settings)
        messages.add(str(error.value))
    assert len(messages) == 1


def test_a_home_that_cannot_be_written_to_is_no_obstacle(tmp_path: Path, conf: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {"MLPLATFORM_HOME": str(tmp_path / "file" / "home"), "MLPLATFORM_CONF_DIR": str(conf)}
    assert load_experiment(NAME, settings=Settings.from_env(environ)).name == NAME
