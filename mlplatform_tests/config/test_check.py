"""The listing of all mistakes, loading what is sound beside what is broken, and all mistakes of one experiment."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mlplatform.config import (
    ConfigError,
    load_all_datasets,
    load_all_experiments,
    load_experiment,
    parse_experiment,
)
from mlplatform.config.__main__ import main
from mlplatform.config.check import check_all
from mlplatform.settings import PACKAGED_CONF, Settings
from mlplatform.testing.experiments import DATASET, NAME, SPLIT, write_experiment, write_yaml


@pytest.fixture(autouse=True)
def few_packaged_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Composing all of the packaged ones takes seconds, and they load in tests of their own."""
    shutil.copytree(PACKAGED_CONF, tmp_path / "packaged")
    for path in (tmp_path / "packaged" / "experiment").glob("*.yaml"):
        if path.stem not in ("fleet_xgboost", "diabetes_xgboost"):
            path.unlink()
    monkeypatch.setattr("mlplatform.settings.PACKAGED_CONF", tmp_path / "packaged")


def break_some(conf: Path) -> None:
    """Write six broken files beside the sound ones."""
    write_experiment(conf, "far", horizon=99, metric="mape", targets=["speed"])
    write_experiment(conf, "unknown_key", horizont=3)
    write_experiment(conf, "unknown_option")
    path = conf / "experiment" / "unknown_option.yaml"
    path.write_text(path.read_text().replace('"/model": "pump_v1"', '"/model": "oracle_v1"'))
    (conf / "experiment" / "torn.yaml").write_text("name: [torn\ntask: forecast")
    (conf / "dataset" / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    write_yaml(conf, "dataset/unused", DATASET | {"name": "other", "source": {"uri": "ftp://pump"}})


def test_what_is_broken_does_not_keep_the_rest_from_loading(conf: Path, settings: Settings) -> None:
    before, none = load_all_experiments(settings)
    assert not none
    break_some(conf)
    experiments, broken = load_all_experiments(settings)
    assert experiments == before
    assert set(broken) == {"far", "unknown_key", "unknown_option", "torn"}
    assert all(isinstance(error, ConfigError) and repr(name) in str(error) for name, error in broken.items())
    datasets, broken_datasets = load_all_datasets(settings)
    assert {"pump", "fleet"} <= set(datasets)
    assert set(broken_datasets) == {"binary", "unused"}
    assert "binary.yaml cannot be read" in str(broken_datasets["binary"])


def test_a_missing_folder_is_no_broken_file(tmp_path: Path) -> None:
    environ = {"MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_CONF_DIR": str(tmp_path / "absent")}
    with pytest.raises(ConfigError, match="absent does not exist; check MLPLATFORM_CONF_DIR"):
        load_all_experiments(Settings.from_env(environ))
    (mistakes,) = check_all(Settings.from_env(environ)).mistakes.values()
    assert "absent does not exist" in mistakes[0]


def test_all_mistakes_of_one_experiment_are_told_at_once(conf: Path, settings: Settings) -> None:
    break_some(conf)
    with pytest.raises(ConfigError) as error:
        load_experiment("far", settings=settings)
    starts = (
        "targets names 'speed', which is not a column of dataset 'pump'",
        "metric: unknown metric 'mape'",
        "horizon 99 is longer than split.cv.params.validation_steps 24",
        "horizon 99 is longer than split.reference_steps 24",
        "horizon 99 is longer than split.test_steps.late 12",
    )
    assert len(error.value.mistakes) == len(starts)
    for start in starts:
        assert any(mistake.startswith(start) for mistake in error.value.mistakes), start
    assert str(error.value) == "experiment 'far' is not valid:\n  " + "\n  ".join(error.value.mistakes)


def test_a_single_mistake_is_told_once(conf: Path, settings: Settings) -> None:
    write_yaml(conf, "split/pump_v1", SPLIT | {"cv": {"name": "expanding", "params": {"validation_steps": 2}}})
    with pytest.raises(ConfigError) as error:
        load_experiment(NAME, settings=settings)
    assert str(error.value) == (
        f"experiment '{NAME}' is not valid:\n"
        "  horizon 3 is longer than split.cv.params.validation_steps 2; allowed: 1 to 2"
    )


def test_stored_values_are_checked_like_composed_ones(settings: Settings) -> None:
    config = load_experiment(NAME, settings=settings)
    stored = json.loads(json.dumps(config.model_dump(mode="json")))
    assert parse_experiment(stored) == config
    with pytest.raises(ConfigError, match=f"experiment '{NAME}' is not valid:\n  lookback 99 and 2 steps of prep"):
        parse_experiment(stored | {"lookback": 99})
    with pytest.raises(ConfigError, match="experiment None is not valid"):
        parse_experiment(None)


def test_the_listing_names_every_file_with_all_its_mistakes(conf: Path, settings: Settings) -> None:
    break_some(conf)
    listing = check_all(settings)
    found = {Path(place).relative_to(conf).as_posix(): mistakes for place, mistakes in listing.mistakes.items()}
    assert list(found) == [
        "experiment/far.yaml",
        "experiment/torn.yaml",
        "experiment/unknown_key.yaml",
        "experiment/unknown_option.yaml",
        "dataset/binary.yaml",
        "dataset/unused.yaml",
    ]
    assert len(found["experiment/far.yaml"]) == 5
    assert found["dataset/unused.yaml"] == (
        "dataset 'unused': name is 'other', but must equal the file's name",
        *(mistake for mistake in found["dataset/unused.yaml"] if "no source reads source.uri 'ftp://pump'" in mistake),
    )
    text = listing.to_text()
    assert "model/oracle_v1" in text
    assert "horizont = 3: unknown key; allowed: name, description" in text
    assert text.endswith(": 11 mistakes")
    assert json.loads(listing.to_json())["mistakes"].keys() == listing.mistakes.keys()


def test_the_listing_covers_the_ways_of_serving(conf: Path, settings: Settings) -> None:
    write_yaml(conf, "serving/huge", {"deployments": {"ModelService": {"replicas": 0}, "Model": {}}})
    listing = check_all(replace(settings, serving_config="tiny"))
    assert listing.servings == 3
    assert listing.mistakes["MLPLATFORM_SERVING_CONFIG"] == ("unknown serving 'tiny'; known: default, fused, huge",)
    (mistakes,) = (found for place, found in listing.mistakes.items() if place.endswith("serving/huge.yaml"))
    assert any("replicas" in mistake for mistake in mistakes)


def test_a_version_that_an_experiment_allows_must_fit_it(conf: Path, settings: Settings) -> None:
    write_experiment(conf, NAME, allowed={"model": ["pump_nlinear_v1", "pump_v9"], "split": ["diabetes_v1"]})
    (mistakes,) = check_all(settings).mistakes.values()
    assert any(mistake.startswith("allowed.model names 'pump_v9': ") for mistake in mistakes)
    assert any(mistake.startswith("allowed.split names 'diabetes_v1': split.cv.name 'kfold'") for mistake in mistakes)
    assert not any("pump_nlinear_v1'" in mistake.partition(":")[0] for mistake in mistakes)


def test_the_program_ends_with_a_status(
    conf: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPLATFORM_HOME", str(settings.home))
    monkeypatch.setenv("MLPLATFORM_CONF_DIR", str(conf))
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "3 experiments, 5 datasets and 2 ways of serving: no mistakes\n"
    break_some(conf)
    assert main(["check", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["datasets"] == 7
