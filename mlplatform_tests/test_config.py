"""Experiment configuration: what loads, what is refused and with which words, and the composition cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mlplatform.config import (
    ConfigError,
    apply_versions,
    experiment_names,
    load_dataset,
    load_experiment,
    options,
    preprocessing_context,
    time_step,
)
from mlplatform.settings import PACKAGED_CONF, Settings
from mlplatform.testing.experiments import (
    DATASET,
    FEATURES,
    MODEL,
    NAME,
    PREPROCESSING,
    SPLIT,
    write_conf,
    write_experiment,
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


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    write_conf(tmp_path / "conf")
    return tmp_path / "conf"


@pytest.fixture
def settings(tmp_path: Path, conf: Path) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(conf)})


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("packaged"))})


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
    assert config.dataset.step.total_seconds() == 3600
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


# (group file, values in it that are replaced or added, what the message must say)
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    # keys
    ("experiment", {"horizont": 3}, r"horizont = 3: unknown key; allowed: name, description, task, .*horizon"),
    ("dataset", {"colums": {}}, r"dataset\.colums = {}: unknown key; allowed: name, kind, source, .*columns"),
    (
        "dataset",
        {"columns": {"flow": {"minimum": 0}, "heat": {}, "state": {}}},
        r"dataset\.columns\.flow\.minimum = 0: unknown key; allowed: type, min, max, nullable",
    ),
    (
        "preprocessing",
        {"steps": [{"transform": "scale", "column": ["flow"]}]},
        r"preprocessing\.steps\.0\.column = \['flow'\]: unknown key; allowed: transform, columns, params",
    ),
    (
        "model",
        {"search_space": {"max_depth": {"type": "int", "lowest": 3}}},
        r"model\.search_space\.max_depth\.lowest = 3: unknown key; allowed: type, low, high, step, log, choices",
    ),
    (
        "model",
        {"params": {"depth": 3}},
        r"model\.params\.depth = 3: unknown key; allowed: num_boost_round, .*max_depth",
    ),
    (
        "experiment",
        {"baselines": [{"name": "repeat_last", "params": {"season": 6}}]},
        r"baselines\.repeat_last\.params\.season = 6: unknown key; allowed: none",
    ),
    # types and ranges
    ("experiment", {"horizon": "soon"}, r"horizon = 'soon': .*integer"),
    ("experiment", {"horizon": 0}, r"horizon must be at least 1 for task 'forecast', but is 0"),
    ("experiment", {"task": "ranking"}, r"task = 'ranking': .*'forecast', 'regression' or 'classification'"),
    ("split", {"folds": 0}, r"split\.folds = 0: .*greater than or equal to 1"),
    ("split", {"test_steps": {"late": 0}}, r"split\.test_steps\.late = 0: .*greater than or equal to 1"),
    ("split", {"test_steps": {"../late": 3}}, r"split\.test_steps\.\.\./late.*: .*match pattern"),
    ("model", {"params": {"max_depth": "deep"}}, r"model\.params\.max_depth = 'deep': .*integer"),
    (
        "model",
        {"params": {"target_lags": [1, -1]}},
        r"model\.params\.target_lags\.1 = -1: .*greater than or equal to 1",
    ),
    ("split", {"as_of": "last week"}, r"split\.as_of.*Invalid isoformat string: 'last week'"),
    ("dataset", {"frequency": "1M"}, r"frequency must be a positive time step such as 1h, 15min or 1D, but is '1M'"),
    ("dataset", {"frequency": None}, r"frequency is missing; a dataset of kind timeseries needs it"),
    ("dataset", {"window_steps": 0}, r"window_steps must be at least 1 for kind timeseries, but is 0"),
    (
        "dataset",
        {"columns": {"flow": {"min": 5, "max": 5}, "heat": {}, "state": {}}},
        r"dataset\.columns\.flow: min must be below max, but min=5\.0 and max=5\.0",
    ),
    ("dataset", {"columns": {"event_timestamp": {}}}, r"columns must not use the reserved names \['event_timestamp'\]"),
    # plug-ins
    (
        "model",
        {"family": "oracle", "params": {}},
        r"model\.family: unknown model family 'oracle'; known: .*nlinear.*xgboost",
    ),
    (
        "model",
        {"family": "linear", "params": {}},
        r"model\.family 'linear' does not fit task 'forecast'; .*classification",
    ),
    ("experiment", {"baselines": [{"name": "dummy"}]}, r"baselines 'dummy' does not fit task 'forecast'"),
    ("experiment", {"metric": "mape"}, r"metric: unknown metric 'mape'; known: .*mae"),
    (
        "experiment",
        {"metric": "accuracy"},
        r"metric 'accuracy' does not fit task 'forecast'; it supports: classification",
    ),
    ("experiment", {"extra_metrics": ["roc_auc"]}, r"extra_metrics 'roc_auc' does not fit task 'forecast'"),
    (
        "split",
        {"cv": {"name": "holdout"}},
        r"split\.cv\.name: unknown splitter 'holdout'; known: expanding, group_kfold",
    ),
    (
        "split",
        {"cv": {"name": "kfold"}},
        r"split\.cv\.name 'kfold' does not fit task 'forecast'; it supports: .*regression",
    ),
    ("split", {"cv": {"name": "expanding"}}, r"split\.cv\.params\.validation_steps: Field required"),
    (
        "preprocessing",
        {"steps": [{"transform": "whiten"}]},
        r"preprocessing\.steps\[0\]\.transform: unknown transform 'whiten'; known: clip, impute",
    ),
    (
        "preprocessing",
        {"steps": [{"transform": "impute"}, {"transform": "clip", "params": {"lower": 0.9, "upper": 0.1}}]},
        r"preprocessing\.steps\[1\]\.params: lower must be below upper, but lower=0\.9 and upper=0\.1",
    ),
    # columns
    (
        "features",
        {"columns": ["flow", "heat", "speed"]},
        r"features\.columns names 'speed', which is not a column of dataset 'pump'; allowed: flow, heat, state",
    ),
    ("features", {"columns": ["heat", "heat"]}, r"features\.columns names a column twice: heat, heat"),
    ("features", {"columns": ["flow"]}, r"targets names 'heat', which is not among features\.columns \(flow\)"),
    (
        "experiment",
        {"targets": ["speed"]},
        r"targets names 'speed', which is not a column of dataset 'pump'; allowed: ",
    ),
    ("experiment", {"targets": ["state"]}, r"targets names 'state', which is categorical; .* must be of type float"),
    (
        "preprocessing",
        {"steps": [{"transform": "scale", "columns": ["speed"]}]},
        r"preprocessing\.steps\[0\]\.columns names 'speed', which is not a column of dataset 'pump'; allowed: ",
    ),
    (
        "preprocessing",
        {"steps": [{"transform": "label_encoding", "columns": ["flow"]}]},
        r"preprocessing\.steps\[0\]\.columns names 'flow' of type float, but 'label_encoding' applies to categories; "
        r"allowed: state",
    ),
    # lengths
    ("experiment", {"horizon": 13}, r"horizon 13 is longer than split\.test_steps\.late 12; allowed: 1 to 12"),
    (
        "split",
        {"cv": {"name": "expanding", "params": {"validation_steps": 2}}},
        r"horizon 3 is longer than split\.cv\.params\.validation_steps 2; allowed: 1 to 2",
    ),
    ("split", {"reference_steps": 2}, r"horizon 3 is longer than split\.reference_steps 2; allowed: 1 to 2"),
    ("split", {"reference_steps": None}, r"split\.reference_steps is missing; task 'forecast' needs it"),
    (
        "dataset",
        {"window_steps": 13},
        r"lookback 12 and 2 steps of preprocessing context exceed dataset\.window_steps 13 of 'pump'",
    ),
    (
        "split",
        {"context_steps": 13},
        r"lookback 12 and 2 steps of preprocessing context exceed split\.context_steps 13 of split version 'pump_v1'",
    ),
    (
        "experiment",
        {"baselines": [{"name": "seasonal_naive", "params": {"season": 13}}]},
        r"baselines: 'seasonal_naive' needs a lookback of at least 13, but lookback is 12",
    ),
    # search space
    (
        "model",
        {"search_space": {"depth": {"type": "int", "low": 1, "high": 2}}},
        r"search_space names 'depth'.*max_depth",
    ),
    (
        "model",
        {"search_space": {"max_depth": {"type": "int", "low": 3, "high": 99}}},
        r"model\.search_space\.max_depth = 99\.0: .*less than or equal to 16",
    ),
    (
        "model",
        {"search_space": {"max_depth": {"type": "int", "low": 2.5, "high": 4}}},
        r"low of an int dimension must be a whole number, but is 2\.5",
    ),
    (
        "model",
        {"search_space": {"learning_rate": {"type": "float", "low": 0, "high": 1, "log": True}}},
        r"a log dimension needs low above 0 and no step, but low=0\.0",
    ),
    (
        "model",
        {"search_space": {"subsample": {"type": "categorical", "choices": [0.5, 2]}}},
        r"model\.search_space\.subsample = 2: .*less than or equal to 1",
    ),
    # source
    (
        "dataset",
        {"source": {"uri": "ftp://pump"}},
        r"dataset 'pump': no source reads source\.uri 'ftp://pump' \(scheme 'ftp'\); known schemes: csv, feast",
    ),
    (
        "dataset",
        {"source": {"uri": "pump.csv", "options": {"separator": ";"}}},
        r"dataset 'pump': 'pump\.csv' .*source\.options\.separator = ';': unknown key; allowed: delimiter, decimal",
    ),
    (
        "dataset",
        {"source": {"uri": "pump.csv", "options": {"delimiter": ";;"}}},
        r"source\.options\.delimiter = ';;': .*at most 1 character",
    ),
    (
        "dataset",
        {
            "source": {
                "uri": "simulation://fleet",
                "options": {"faults": [{"kind": "cooling_failure", "begin": "2024"}]},
            }
        },
        r"source\.options\.faults\.0\.begin = '2024': unknown key; allowed: kind, start, end",
    ),
    ("dataset", {"source": {"uri": "pump.csv", "download_url": "https://x/y"}}, r"with download_url needs sha256"),
    # the rest
    ("experiment", {"drift": {"test": "feeling"}}, r"drift\.test: unknown drift test 'feeling'; known: .*wasserstein"),
]
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "dataset": ("dataset/pump", DATASET),
    "features": ("features/pump_v1", FEATURES),
    "split": ("split/pump_v1", SPLIT),
    "preprocessing": ("preprocessing/pump", PREPROCESSING),
    "model": ("model/pump_v1", MODEL),
}


@pytest.mark.parametrize(("group", "changes", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_what_cannot_work_is_refused_by_key_value_and_what_is_allowed(
    group: str, changes: dict[str, Any], message: str, conf: Path, settings: Settings
) -> None:
    if group == "experiment":
        write_experiment(conf, NAME, **changes)
    else:
        name, values = FILES[group]
        write_yaml(conf, name, values | changes)
    with pytest.raises(ConfigError, match=message) as error:
        load_experiment(NAME, settings=settings)
    assert repr(NAME) in str(error.value)


TABULAR_REFUSED: list[tuple[str, list[str], str]] = [
    ("diabetes_xgboost", ["targets=[bmi]"], r"features\.columns contains the target 'bmi'; .* read its own answer"),
    (
        "diabetes_xgboost",
        ["targets=[progression,bmi]"],
        r"targets must name one column for task 'regression', but names",
    ),
    (
        "diabetes_xgboost",
        ["task=classification", "metric=accuracy", "extra_metrics=[]"],
        r"targets names 'progression' of",
    ),
    ("diabetes_xgboost", ["task=forecast"], r"model\.family 'xgboost_tabular' does not fit task 'forecast'"),
    ("diabetes_xgboost", ["metric=log_loss"], r"metric 'log_loss' does not fit task 'regression'"),
    ("diabetes_xgboost", ["split.folds=1"], r"split\.folds 1 is too few for 'kfold'; allowed: at least 2"),
    ("diabetes_xgboost", ["split.reference_fraction=null"], r"split\.reference_fraction is missing; task 'regression'"),
    ("diabetes_xgboost", ["split.stratify_column=colour"], r"split\.stratify_column names 'colour', .*allowed: .*bmi"),
    ("diabetes_xgboost", ["split.cv.name=stratified_kfold"], r"'stratified_kfold' does not fit task 'regression'"),
    ("diabetes_xgboost", ["name=other"], r"name is 'other', but must equal the file's name"),
    ("diabetes_xgboost", ["dataset=fleet"], r"features\.columns names 'age', which is not a column of dataset 'fleet'"),
]


@pytest.mark.parametrize(("name", "overrides", "message"), TABULAR_REFUSED, ids=[item[2] for item in TABULAR_REFUSED])
def test_what_tabular_data_cannot_do_is_refused(
    name: str, overrides: list[str], message: str, packaged: Settings
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(name, overrides, packaged)


def test_an_unknown_experiment_lists_the_known_ones(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"unknown experiment 'nothing'; known: .*fleet_xgboost.*pump_xgboost"):
        load_experiment("nothing", settings=settings)


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


def test_broken_yaml_is_a_configuration_error(conf: Path, settings: Settings) -> None:
    (conf / "split" / "pump_v1.yaml").write_text("version: [pump_v1\nfolds: 2")
    with pytest.raises(ConfigError, match=f"experiment '{NAME}' does not compose: "):
        load_experiment(NAME, settings=settings)


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
    with pytest.raises(ConfigError, match=r"source\.options\.separator = ';': unknown key; allowed: delimiter"):
        load_dataset("pump", settings)
    with pytest.raises(ConfigError, match=r"unknown dataset 'nothing'; known: .*fleet.*pump"):
        load_dataset("nothing", settings)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15min", 900), ("h", 3600), ("2 h", 7200), ("1D", 86_400), ("W", 604_800)]
)
def test_time_steps_are_read(text: str, seconds: int) -> None:
    assert time_step(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0h", "00h", "-1h", "1.5h", "1M", "1h30min", "hour", None])
def test_other_time_steps_are_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match="must be a positive time step"):
        time_step(text)


# Versions


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
            r"model_version 'xgboost_v1' is not allowed for 'pump_xgboost'; allowed: pump_v1",
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


def test_the_fold_digest_follows_what_folds_depend_on(settings: Settings) -> None:
    digests = {
        tuple(overrides): load_experiment(NAME, overrides, settings).fold_digest()
        for overrides in ([], ["seed=4"], ["model=pump_nlinear_v1"], ["lookback=11"], ["split.folds=1"])
    }
    assert digests[()] == digests[("seed=4",)] == digests[("model=pump_nlinear_v1",)]
    assert len(set(digests.values())) == 3


# The composition cache


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
        with pytest.raises(ConfigError, match="allowed: delimiter") as error:
            load_experiment(NAME, settings=settings)
        messages.add(str(error.value))
    assert len(messages) == 1


def test_a_home_that_cannot_be_written_to_is_no_obstacle(tmp_path: Path, conf: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {"MLPLATFORM_HOME": str(tmp_path / "file" / "home"), "MLPLATFORM_CONF_DIR": str(conf)}
    assert load_experiment(NAME, settings=Settings.from_env(environ)).name == NAME


# Import


def test_the_code_location_imports_without_heavy_libraries(tmp_path: Path) -> None:
    program = f"""
import sys
import mlplatform.definitions
print([name for name in {HEAVY} if name in sys.modules])
"""
    environ = {**os.environ, "MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_CONF_DIR": ""}
    result = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


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
