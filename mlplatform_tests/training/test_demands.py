"""What no fit and no metric can work with is refused before the first fit, with fold, column and remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.folds import Fold
from mlplatform.plugins import METRICS
from mlplatform.settings import Settings
from mlplatform.testing.experiments import pump_config, pump_frame, pump_settings
from mlplatform.training.demands import DemandError, check_demands


def mistakes_of(
    config: ExperimentConfig, frame: pd.DataFrame, held_out: dict[str, DataModule] | None = None
) -> tuple[str, ...]:
    """Return what is refused in the folds of the rows, and in the held-out parts."""
    module = create_data_module(config, frame)
    folds = dict(zip(config.split.fold_names, module.folds(), strict=True))
    return refused(module, folds, held_out or {})


def refused(module: DataModule, folds: dict[str, Fold], held_out: dict[str, DataModule]) -> tuple[str, ...]:
    try:
        check_demands(module, folds, held_out)
    except DemandError as error:
        return error.mistakes
    return ()


@pytest.fixture(scope="module")
def pump(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return pump_settings(tmp_path_factory.mktemp("pump"))


ALL = "extra_metrics=[rmse,rmsle,smape,mase,r2]"


def test_good_rows_are_taken_with_every_metric(pump: Settings) -> None:
    config = pump_config(pump, ALL)
    module = create_data_module(config, pump_frame())
    assert mistakes_of(config, pump_frame(), {"reference": module}) == ()


def test_a_negative_truth_is_refused_where_it_is_scored(pump: Settings) -> None:
    config, frame = pump_config(pump, ALL), pump_frame()
    last = frame.index[frame["entity_id"] == 2][-10:]
    frame.loc[last, "heat"] = -3.5
    found = mistakes_of(config, frame, {"reference": create_data_module(config, frame)})
    said = (
        "metric 'rmsle' needs true values of at least 0, but column 'heat' goes down to -3.5; use rmse, or send such "
        "rows to quarantine with min: 0 in dataset.columns"
    )
    assert found == (f"fold_1: {said}", f"reference: {said}")


def test_what_never_changes_cannot_scale_errors(pump: Settings) -> None:
    frame = pump_frame()
    frame.loc[frame["event_timestamp"] < "2024-01-05 12:00", "heat"] = 20.0
    found = mistakes_of(pump_config(pump, "extra_metrics=[mase]"), frame)
    said = "metric 'mase' divides by how much a target changes over a season, but column 'heat' never changes in"
    assert [mistake.split(":")[0] for mistake in found] == ["fold_0"]
    assert said in found[0]
    assert "use mae" in found[0]
    assert mistakes_of(pump_config(pump), frame) == ()


def test_a_column_that_a_fold_never_observes_is_named_with_the_fold(pump: Settings) -> None:
    frame = pump_frame()
    frame.loc[frame["event_timestamp"] < "2024-01-05 12:00", "flow"] = np.nan
    (found,) = mistakes_of(pump_config(pump), frame)
    assert found.startswith("fold_0: column 'flow' has no observed value in the training rows")
    assert "leave the column out of features.columns, or use fewer folds" in found


def test_a_scale_of_series_that_are_not_scored_is_none(pump: Settings) -> None:
    frame = pump_frame()
    frame.loc[frame["entity_id"] == 1, "heat"] = 20.0
    both = mistakes_of(pump_config(pump, "extra_metrics=[mase]"), frame)
    ended = frame[(frame["entity_id"] == 1) | (frame["event_timestamp"] < "2024-01-03")].reset_index(drop=True)
    alone = mistakes_of(pump_config(pump, "extra_metrics=[mase]"), ended)
    assert both == ()
    assert [mistake.split(" divides")[0] for mistake in alone] == ["fold_0: metric 'mase'", "fold_1: metric 'mase'"]


LOGARITHM = "preprocessing={{steps: [{{transform: impute}}, {{transform: log, columns: [{}]}}, {{transform: scale}}]}}"


def test_held_out_values_without_a_logarithm_are_refused_where_they_cannot_be_read(pump: Settings) -> None:
    frame = pump_frame()
    frame.loc[frame["event_timestamp"] == "2024-01-06 12:00", ["heat", "flow"]] = -5.0

    def found(column: str, *overrides: str) -> tuple[str, ...]:
        config = pump_config(pump, LOGARITHM.format(column), *overrides)
        return mistakes_of(config, pump_frame(), {"reference": create_data_module(config, frame)})

    said = "reference: column '{}' goes down to -5, which its preprocessing has no number for, and {}; use a larger"
    (target,) = found("heat")
    assert target.startswith(said.format("heat", "nothing can be scored without it"))
    (feature,) = found("flow", "baselines=[{name: lstm}]")
    assert feature.startswith(said.format("flow", "lstm cannot read that"))
    # Ridge does not look at it, and trees read it as missing.
    assert found("flow") == ()
    assert found("flow", "baselines=[{name: repeat_last}]") == ()


def test_gaps_that_a_baseline_cannot_read_are_refused_before_the_first_fit(pump: Settings) -> None:
    unfilled = ("preprocessing={steps: [{transform: scale}]}", "split.folds=1")
    (found,) = mistakes_of(pump_config(pump, *unfilled), pump_frame())
    assert found == (
        "fold_0: column 'heat' has missing values, which ridge cannot read; add an impute step to the preprocessing, "
        "or use a family that reads them"
    )
    assert mistakes_of(pump_config(pump, *unfilled, "baselines=[{name: repeat_last}]"), pump_frame()) == ()


def test_a_part_without_samples_is_refused(pump: Settings) -> None:
    config = pump_config(pump)
    short = create_data_module(config, pump_frame(hours=10))
    assert mistakes_of(config, pump_frame(), {"test_late": short}) == (
        "test_late: has no samples among its 20 rows (lookback 12, horizon 3); give it more rows in split, or shorten "
        "lookback and horizon",
    )


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("bundled"))})
    return load_experiment("breast_cancer_xgboost", ["split.cv={name: kfold}"], settings)


def class_rows(config: ExperimentConfig, labels: list[str]) -> pd.DataFrame:
    """Return rows with these classes; the features are noise."""
    noise = np.random.default_rng(3)
    columns = {name: noise.normal(size=len(labels)).astype(np.float32) for name in config.features.columns}
    times = pd.date_range("2024-01-01", periods=len(labels), freq="1h", tz="UTC", unit="ns")
    keys = {"entity_id": np.arange(len(labels)), "event_timestamp": times}
    return pd.DataFrame({**keys, **columns, config.targets[0]: labels})


def of_rows(train: range, validation: range) -> Fold:
    return Fold(np.array(train), np.array(train), np.array(validation))


def test_a_fold_of_one_class_cannot_be_ranked_and_needs_no_other_metric(classes: ExperimentConfig) -> None:
    (target,) = classes.targets
    module = create_data_module(classes, class_rows(classes, ["a", "b"] * 10 + ["a"] * 10))
    folds = {"fold_0": of_rows(range(20), range(20, 30)), "fold_1": of_rows(range(30), range(20))}
    assert "roc_auc" in classes.metrics
    assert refused(module, folds, {}) == (
        f"fold_0: metric 'roc_auc' needs samples of every class, but column {target!r} has none of 'b' among 10; use "
        "log_loss, a stratified scheme in split.cv, fewer folds or a larger part",
    )


def test_classes_that_training_does_not_see_and_training_on_one_class(classes: ExperimentConfig) -> None:
    (target,) = classes.targets
    module = create_data_module(classes, class_rows(classes, ["a"] * 10 + ["a", "b"] * 10))
    found = refused(module, {"fold_0": of_rows(range(10), range(10, 30))}, {"reference": module})
    assert len(found) == 2
    assert found[0].startswith(f"fold_0: column {target!r} has only the class 'a' in the training rows")
    assert found[1].startswith(f"fold_0: column {target!r} has the classes b, which do not occur in the training rows")


@pytest.mark.parametrize("role", ["model", "baseline"])
def test_catboost_is_not_given_inputs_that_never_change(tmp_path: Path, role: str) -> None:
    chosen = {"model": ["model=catboost_tabular_v1"], "baseline": ["baselines=[{name: catboost_tabular}]"]}
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    config = load_experiment("breast_cancer_xgboost", ["split.cv={name: kfold}", *chosen[role]], settings)
    frame = class_rows(config, ["a", "b"] * 20)
    frame.loc[:29, list(config.features.columns)] = np.float32(1.5)
    module = create_data_module(config, frame)
    folds = {"fold_0": of_rows(range(10, 40), range(10)), "fold_1": of_rows(range(30), range(30, 40))}
    (found,) = refused(module, folds, {})
    names = config.features.columns
    assert found.startswith(f"fold_1: catboost_tabular learns from inputs that change, but {names[0]!r}, {names[1]!r}")
    assert found.endswith(
        f"and {names[-1]!r} never change in the training rows; name other columns in features.columns, or use another "
        "family, or use fewer folds, or other sizes or another scheme in split.cv"
    )


def test_counts_are_told_to_be_none_before_the_first_fit(pump: Settings) -> None:
    frame = pump_frame()
    frame.loc[frame.index[frame["entity_id"] == 2][-10:], "heat"] = -3.5
    family = ["model.family=xgboost", "model.params={loss: poisson}", "model.search_space={}"]
    steps = ("preprocessing={steps: [{transform: impute}]}", "preprocessing.scaling=none")
    (found,) = mistakes_of(pump_config(pump, *steps, *family, "baselines=[{name: repeat_last}]"), frame)
    assert found.startswith(
        "fold_1: xgboost has loss 'poisson', which is for targets of 0 and more, but a preprocessed"
    )
    assert "goes down to -3.5" in found


def test_a_metric_that_demands_nothing_takes_any_truth() -> None:
    silent = {name for name, metric in METRICS if metric.demands is None}
    assert set(METRICS.names()) - silent == {"rmsle", "mase", "rmsse", "roc_auc"}
