"""From YAML to checked configuration: what loads, from which folders, and what cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlplatform.config import (
    ConfigError,
    experiment_names,
    load_dataset,
    load_experiment,
    options,
    preprocessing_context,
)
from mlplatform.settings import PACKAGED_CONF, Settings
from mlplatform.testing.experiments import (
    DATASET,
    FEATURES,
    MODEL,
    NAME,
    write_yaml,
)

PACKAGED = sorted(path.stem for path in (PACKAGED_CONF / "experiment").glob("*.yaml"))
HEAVY = (
    "pandas",
    "torch",
    "mlflow",
    "feast",
    "sklearn",
    "xgboost",
    "scipy",
    "pandera",
    "optuna",
    "duckdb",
    "ray",
    "dvc",
)


@pytest.mark.parametrize("name", PACKAGED)
def test_every_packaged_experiment_loads(name: str, packaged: Settings) -> None:
    config = load_experiment(name, settings=packaged)
    assert config.name == name
    assert config.metric in config.metrics
    assert config.versions == {
        "split_version": config.split.version,
        "feature_version": config.features.version,
        "model_version": config.model.version,
    }


def test_experiments_are_those_of_both_folders(settings: Settings, packaged: Settings) -> None:
    assert experiment_names(packaged) == tuple(PACKAGED)
    assert experiment_names(settings) == tuple(sorted([*PACKAGED, NAME]))


def test_an_editors_lock_file_is_no_experiment(settings: Settings, conf: Path) -> None:
    load_experiment(NAME, settings=settings)
    (conf / "experiment" / f".#{NAME}.yaml").symlink_to("user@host.1234")
    assert NAME in experiment_names(settings)
    assert not any(name.startswith(".") for name in experiment_names(settings))
    assert load_experiment(NAME, settings=settings).name == NAME


def test_the_options_of_a_group_are_listed(settings: Settings) -> None:
    assert {"pump_v1", "fleet_v1"} <= set(options("split", settings))
    assert options("nothing", settings) == ()


def test_values_are_composed_from_the_groups(settings: Settings) -> None:
    config = load_experiment(NAME, settings=settings)
    assert config.dataset.nominal_step.total_seconds() == 3600
    assert config.dataset.float_columns == ("flow", "heat")
    assert config.dataset.category_columns == ("state",)
    assert config.features.columns == tuple(FEATURES["columns"])
    assert config.split.test_steps == {"late": 12}
    assert config.model.params == MODEL["params"]
    assert config.metrics == ("mae", "rmse")
    assert preprocessing_context(config.preprocessing) == 2


def test_no_columns_stand_for_all_of_them(conf: Path, settings: Settings, packaged: Settings) -> None:
    write_yaml(conf, "features/pump_v1", FEATURES | {"columns": None})
    assert load_experiment(NAME, settings=settings).features.columns == ("flow", "heat", "state")
    table = load_experiment("diabetes_xgboost", ["features.columns=null"], packaged)
    assert set(table.features.columns) == set(table.dataset.columns) - {"progression"}


@pytest.mark.parametrize("trials", [30, 100])
def test_the_searches_of_small_tables_prune_no_trial(packaged: Settings, trials: int) -> None:
    for data in ("diabetes", "breast_cancer"):
        for learner in ("xgboost", "catboost", "random_forest"):
            config = load_experiment(f"{data}_{learner}", [f"tuning.trials={trials}"], packaged)
            assert config.tuning.pruner_startup_trials == trials


def test_a_configuration_is_frozen(settings: Settings) -> None:
    config = load_experiment(NAME, settings=settings)
    with pytest.raises(ValidationError, match="frozen"):
        config.horizon = 5  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.split.folds = 5  # type: ignore[misc]


def test_overrides_change_values_and_choices(settings: Settings) -> None:
    overrides = ["horizon=2", "model=pump_nlinear_v1", "tuning.timeout_s=1.5", "++seed=9", "split.test_steps.b=4"]
    config = load_experiment(NAME, overrides, settings)
    assert (config.horizon, config.model.family, config.tuning.timeout_s, config.seed) == (2, "nlinear", 1.5, 9)
    assert config.split.test_steps == {"late": 12, "b": 4}


def test_several_threads_load_at_once(packaged: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import hydra

    begin = hydra.initialize_config_dir

    def begin_slowly(*given: Any, **named: Any) -> Any:
        time.sleep(0.02)
        return begin(*given, **named)

    monkeypatch.setattr(hydra, "initialize_config_dir", begin_slowly)
    names = ["diabetes_xgboost", "fleet_xgboost", "breast_cancer_xgboost", "fleet_nlinear"]
    # Seeds that nobody has loaded: nothing is remembered of them.
    asked = [(name, seed) for seed in (1001, 1002) for name in names]
    with ThreadPoolExecutor(len(asked)) as pool:
        loaded = list(pool.map(lambda ask: load_experiment(ask[0], [f"seed={ask[1]}"], settings=packaged), asked))
    assert [(each.name, each.seed) for each in loaded] == asked


def test_an_unknown_experiment_lists_the_known_ones(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"unknown experiment 'nothing'; known: .*fleet_xgboost.*pump_xgboost"):
        load_experiment("nothing", settings=settings)


def test_what_an_unknown_experiment_may_have_meant_and_where_it_was_looked_for(
    conf: Path, settings: Settings, packaged: Settings
) -> None:
    with pytest.raises(ConfigError, match=r"unknown experiment 'fleet_xgbost'; did you mean fleet_xgboost[?]; known: "):
        load_experiment("fleet_xgbost", settings=settings)
    with pytest.raises(ConfigError, match=rf"one of your own is a file {conf / 'experiment'}/<name>.yaml$"):
        load_experiment("nothing", settings=settings)
    with pytest.raises(ConfigError, match=r"MLPLATFORM_CONF_DIR is not set, so these are the packaged ones alone$"):
        load_experiment(NAME, settings=packaged)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("horizont=48", r"horizont = 48: unknown key; allowed: .*horizon"),
        ("+model.depth=3", r"model\.depth = 3: unknown key; allowed: version, family, params, search_space"),
        ("model=oracle_v1", r"does not compose: (?s:.*)model/oracle_v1(?s:.*)pump_v1"),
        ("model=", r"does not compose"),
        ("horizon", r"does not compose: (?s:.*)horizon"),
        ("horizon=1,2", r"does not compose: (?s:.*)horizon"),
    ],
)
def test_a_bad_override_is_refused_by_name(override: str, message: str, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(NAME, [override], settings)


@pytest.mark.parametrize(
    ("override", "reason"),
    [("model=zzz", "Could not find 'model/zzz'"), ("tuning={", "no viable alternative"), ("nonsense", "missing EQUAL")],
)
def test_what_does_not_compose_is_told_on_one_line(override: str, reason: str, packaged: Settings) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_experiment("fleet_xgboost", [override], settings=packaged)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert "structured://" not in said
    assert "hydra.cc" not in said


def test_broken_yaml_is_a_configuration_error(conf: Path, settings: Settings) -> None:
    (conf / "split" / "pump_v1.yaml").write_text("version: [pump_v1\nfolds: 2")
    with pytest.raises(ConfigError, match=f"experiment '{NAME}' does not compose: "):
        load_experiment(NAME, settings=settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: odd\ntargets: [load]\n", "'name', 'targets' stand below 'experiment': begin the file with the line "),
        ("", "the file holds nothing, but must hold the line "),
        ("hello", "the file holds {'hello': None}, but must hold the line "),
        ("- name\n- targets\n", "the file holds ['name', 'targets'], but must hold the line "),
    ],
)
def test_a_file_without_hydras_first_line_is_told_of_it_and_of_nothing_else(
    text: str, told: str, conf: Path, settings: Settings
) -> None:
    (conf / "experiment" / "odd.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_experiment("odd", settings=settings)
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(f"{told}'# @package _global_'")


def test_a_missing_configuration_folder_is_named(tmp_path: Path, packaged: Settings) -> None:
    load_experiment("fleet_xgboost", settings=packaged)  # what the cache remembers must not hide the mistake
    environ = {"MLPLATFORM_HOME": str(packaged.home), "MLPLATFORM_CONF_DIR": str(tmp_path / "absent")}
    with pytest.raises(ConfigError, match="absent does not exist; check MLPLATFORM_CONF_DIR"):
        load_experiment("fleet_xgboost", settings=Settings.from_env(environ))


def test_a_users_file_shadows_the_packaged_one(conf: Path, settings: Settings) -> None:
    before = load_experiment("fleet_xgboost", settings=settings)
    values = {"version": "xgboost_v1", "family": "xgboost", "params": {"num_boost_round": 7}}
    write_yaml(conf, "model/xgboost_v1", values)
    after = load_experiment("fleet_xgboost", settings=settings)
    assert (before.model.params["num_boost_round"], after.model.params) == (40, {"num_boost_round": 7})
    assert after.dataset == before.dataset


def test_a_dataset_loads_on_its_own_and_is_checked_alike(conf: Path, settings: Settings) -> None:
    assert load_dataset("pump", settings) == load_experiment(NAME, settings=settings).dataset
    assert load_dataset("fleet", settings).name == "fleet"
    write_yaml(conf, "dataset/pump", DATASET | {"source": {"uri": "pump.csv", "options": {"separator": ";"}}})
    with pytest.raises(ConfigError, match=r"source\.options\.separator = ';': unknown key; allowed: decimal"):
        load_dataset("pump", settings)
    with pytest.raises(ConfigError, match=r"unknown dataset 'nothing'; known: .*fleet.*pump"):
        load_dataset("nothing", settings)


def test_the_fold_digest_follows_what_folds_depend_on(settings: Settings) -> None:
    digests = {
        tuple(overrides): load_experiment(NAME, overrides, settings).fold_digest()
        for overrides in ([], ["seed=4"], ["model=pump_nlinear_v1"], ["lookback=11"], ["split.folds=1"])
    }
    assert digests[()] == digests[("seed=4",)] == digests[("model=pump_nlinear_v1",)]
    assert len(set(digests.values())) == 3


def test_the_code_location_imports_without_heavy_libraries(tmp_path: Path) -> None:
    program = f"""
import sys
import mlplatform.definitions
print([name for name in {HEAVY} if name in sys.modules])
"""
    environ = {**os.environ, "MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_CONF_DIR": ""}
    result = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
