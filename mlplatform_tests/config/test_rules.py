"""What is refused, with which words: by key, value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlplatform.config import (
    ConfigError,
    load_experiment,
)
from mlplatform.settings import Settings
from mlplatform.testing.experiments import (
    DATASET,
    FEATURES,
    MODEL,
    NAME,
    PREPROCESSING,
    SPLIT,
    write_experiment,
    write_yaml,
)

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
        r"model\.params\.depth = 3: unknown key; allowed: difference, .*max_depth",
    ),
    (
        "experiment",
        {"baselines": [{"name": "repeat_last", "params": {"season": 6}}]},
        r"baselines\.repeat_last\.params\.season = 6: unknown key; allowed: difference",
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
    (
        "dataset",
        {"frequency": "1M"},
        r"frequency must be a positive time step such as 15min, .* or YS, but is '1M'",
    ),
    ("dataset", {"frequency": None}, r"frequency is missing; a dataset of kind timeseries needs it"),
    ("dataset", {"timezone": "Berlin"}, r"timezone must be the IANA name of a time zone, such as .*, but is 'Berlin'"),
    ("dataset", {"holidays": ["2026-12-25"]}, r"holidays and weekmask are for frequency C, .* but frequency is '1h'"),
    ("dataset", {"week_label": "end"}, r"week_label is for weeks told by a weekday, W-MON to W-SUN, .* is '1h'"),
    ("dataset", {"frequency": "auto", "week_label": "end"}, r"frequency is 'auto'; write the weekday"),
    ("dataset", {"frequency": "W", "week_label": "end"}, r"frequency is 'W'; write the weekday"),
    ("dataset", {"frequency": "W-SUN", "week_label": "middle"}, r"'start' or 'end'"),
    ("dataset", {"frequency": "C", "weekmask": "00"}, r"weekmask must be seven characters, Monday first, .* is '00'"),
    ("dataset", {"frequency": "auto", "weekmask": "1111111"}, r"are for frequency C, .* but frequency is 'auto'"),
    ("dataset", {"window_steps": 0}, r"window_steps must be at least 1 for kind timeseries, but is 0"),
    (
        "dataset",
        {"columns": {"flow": {"min": 5, "max": 5}, "heat": {}, "state": {}}},
        r"dataset\.columns\.flow: min must be below max, but min=5\.0 and max=5\.0",
    ),
    ("dataset", {"columns": {"event_timestamp": {}}}, r"columns must not use the reserved names \['event_timestamp'\]"),
    ("dataset", {"columns": {"Entity_ID": {}}}, r"columns must not use the reserved names \['Entity_ID'\]"),
    ("dataset", {"columns": {"is_context": {}}}, r"columns must not use the reserved names \['is_context'\]; rename"),
    ("dataset", {"columns": {"Until": {}}}, r"columns must not use the reserved names \['Until'\]"),
    ("dataset", {"columns": {"flow": {}, "Flow": {}}}, "columns 'flow' and 'Flow' differ only in case; rename one"),
    ("dataset", {"columns": {"flow": {}, "Time": {}}}, "time_column 'time' and 'Time' differ only in case; rename one"),
    ("dataset", {"entity_column": "Time"}, "time_column 'time' and entity_column 'Time' differ only in case"),
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
        r"preprocessing\.steps\[0\]\.transform: unknown transform 'whiten'; known: box_cox, clip, impute",
    ),
    (
        "preprocessing",
        {"steps": [{"transform": "impute"}, {"transform": "clip", "params": {"lower": 0.9, "upper": 0.1}}]},
        r"preprocessing\.steps\[1\]\.params: lower must be below upper, but lower=0\.9 and upper=0\.1",
    ),
    (
        "experiment",
        {
            "targets": ["heat", "heat_lower"],
            "dataset": {"columns": {"flow": {}, "heat": {}, "heat_lower": {}, "state": {"type": "category"}}},
            "features": {"columns": ["flow", "heat", "heat_lower", "state"]},
        },
        "targets names 'heat_lower', as the interval of target 'heat' is called",
    ),
    (
        "experiment",
        {
            "uncertainty": {"coverage": [0.8, 0.95]},
            "targets": ["heat", "heat_upper_95"],
            "dataset": {"columns": {"flow": {}, "heat": {}, "heat_upper_95": {}, "state": {"type": "category"}}},
            "features": {"columns": ["flow", "heat", "heat_upper_95", "state"]},
        },
        "targets names 'heat_upper_95', as the interval of target 'heat' is called",
    ),
    ("experiment", {"uncertainty": {"coverage": 1.2}}, r"1\.2 must be a share between 0 and 1, several different ones"),
    ("experiment", {"uncertainty": {"coverage": []}}, r"\[\] must be a share between 0 and 1, several different ones"),
    ("experiment", {"uncertainty": {"coverage": [0.8, 0.8]}}, r"\[0\.8, 0\.8\] must be a share .* several different"),
    (
        "experiment",
        {"uncertainty": {"coverage": [0.8, 0.95], "quantiles": [0.1, 0.5, 0.9]}},
        r"quantiles lack \[0\.025, 0\.975\], which coverage 0\.8, 0\.95 and the median need",
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
    (
        "model",
        {"params": {"difference": 12}},
        r"model: 'xgboost' needs a lookback of at least 13, but lookback is 12",
    ),
    (
        "model",
        {"params": {"difference": "season"}},
        r"model\.params\.difference is 'season', which models are told with preprocessing\.scaling auto or window",
    ),
    (
        "model",
        {"params": {"loss": "poisson"}},
        r"model\.params\.loss is 'poisson', which needs 'heat' in its own units, but preprocessing\.steps\[\d\] "
        r"\(scale\) changes them; use preprocessing\.scaling: window",
    ),
    (
        "model",
        {"params": {"loss": "poisson", "difference": 1}},
        r"model\.params\.loss is 'poisson', but differences can be negative",
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
        r"dataset 'pump': 'pump\.csv' .*source\.options\.separator = ';': unknown key; allowed: decimal, thousands",
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
    ("experiment", {"drift": {"group_by": "plant"}}, r"drift\.group_by is 'plant', which is no column of dataset"),
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
    ("diabetes_xgboost", ["metric=mase"], r"metric 'mase' does not fit task 'regression'; it supports: forecast"),
    ("diabetes_xgboost", ["extra_metrics=[rmsse]"], r"extra_metrics 'rmsse' does not fit task 'regression'"),
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
