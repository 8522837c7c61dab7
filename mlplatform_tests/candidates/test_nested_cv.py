"""Nested cross-validation: outer folds that the search never reads, and an audit that notices when it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlplatform.candidates import nested_cv
from mlplatform.candidates.candidate import Candidate, train_candidate
from mlplatform.candidates.nested_cv import (
    OuterResult,
    check_outer_folds,
    outer_folds,
    outer_test,
    outer_training,
    run_procedure,
    score_outer_fold,
    summary,
)
from mlplatform.config import ConfigError, load_experiment
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.folds import Fold
from mlplatform.plugins import METRICS
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.settings import Settings
from mlplatform.testing.experiments import pump_config, pump_frame, pump_settings
from mlplatform.testing.row_audit import RecordedPanel, audit_rows, poison
from mlplatform.training import DemandError
from mlplatform.training.cross_validation import fit_preprocessor, prepare_fold
from mlplatform.training.evaluation import score_part
from mlplatform.training.leakage import find_leaks

SEARCH = (
    "++model.search_space.max_depth={type: int, low: 2, high: 4}",
    "tuning.trials=3",
    "tuning.timeout_s=null",
    "++tuning.standard_errors=0",
)
HOUR = np.timedelta64(1, "h")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return pump_settings(tmp_path_factory.mktemp("pump"))


def pump(settings: Settings, *overrides: str) -> DataModule:
    """A forecast with an inner search and two outer folds."""
    config = pump_config(settings, "++nested.outer_folds=2", *SEARCH, *overrides)
    return create_data_module(config, pump_frame(hours=200))


def cancer(settings: Settings, *overrides: str) -> DataModule:
    """A classification of noise with three outer folds; every fifteenth row has no label."""
    config = load_experiment(
        "breast_cancer_xgboost",
        ["++nested.outer_folds=3", "split.folds=2", "model.params.num_boost_round=8", *SEARCH, *overrides],
        settings,
    )
    rows = 90
    noise = np.random.default_rng(0)
    frame = pd.DataFrame({name: noise.normal(size=rows).astype(np.float32) for name in config.features.columns})
    labels = np.where(frame.iloc[:, 0] + noise.normal(size=rows) > 0, "malignant", "benign").astype(object)
    labels[::15] = None
    moment = pd.Timestamp("2000-01-01", tz="UTC")
    return create_data_module(config, frame.assign(entity_id=np.arange(rows), event_timestamp=moment, diagnosis=labels))


def whole_units(settings: Settings) -> DataModule:
    """A forecast whose folds, outer and inner, hold out whole units."""
    config = pump_config(
        settings,
        "++nested.outer_folds=2",
        "split.cv.name=group_kfold",
        "~split.cv.params.validation_steps",
        *SEARCH,
    )
    return create_data_module(config, pump_frame(hours=60, units=(1, 2, 3, 4)))


MODULES = (pump, cancer, whole_units)
Make = Callable[[Settings], DataModule]


class TestOuterFolds:
    """Where the outer border runs, and what lies on either side."""

    def test_forecasts_are_cut_by_time_with_the_horizon_purged(self, settings: Settings) -> None:
        module = pump(settings)
        end = module.panel.timestamps.max() + HOUR
        for k, fold in enumerate(outer_folds(module)):
            train, test = outer_training(module, fold), outer_test(module, fold)
            cutoff = end - (2 - k) * 24 * HOUR
            assert train.panel.timestamps.max() == cutoff - HOUR
            assert train.panel.timestamps[train.rows + 3].max() == cutoff - HOUR
            assert test.panel.timestamps[test.rows + 1].min() == cutoff
            assert test.panel.timestamps.max() == cutoff + 23 * HOUR

    def test_sliding_windows_slide_inside_an_expanding_outer_fold(self, settings: Settings) -> None:
        module = pump(settings, "split.cv.name=sliding", "++split.cv.params.train_steps=60")
        for fold in outer_folds(module):
            assert module.panel.timestamps[fold.fit_rows].min() == module.panel.timestamps.min()
            train = outer_training(module, fold)
            assert all(len(np.unique(train.panel.timestamps[each.fit_rows])) == 60 for each in train.folds())

    @pytest.mark.parametrize("make", MODULES)
    def test_both_sides_hold_the_very_rows_of_the_whole(self, settings: Settings, make: Make) -> None:
        module = make(settings)
        feature = module.config.features.columns[0]
        for fold in outer_folds(module):
            for part, samples in (
                (outer_training(module, fold), fold.train),
                (outer_test(module, fold), fold.validation),
            ):
                assert len(part.rows) == len(samples) > 0
                values, whole = part.panel.columns[feature], module.panel.columns[feature]
                np.testing.assert_array_equal(values[part.rows], whole[samples])
                np.testing.assert_array_equal(part.panel.row_entities[part.rows], module.panel.row_entities[samples])
            manager = fit_preprocessor(module, fold.fit_rows)
            test = outer_test(module, fold)
            np.testing.assert_array_equal(test.truth(manager, test.rows), module.truth(manager, fold.validation))
            window, own = (
                module.samples(manager, manager.transform(module.panel), fold.validation),
                test.samples(manager, manager.transform(test.panel), test.rows),
            )
            if module.config.task == "forecast":
                np.testing.assert_array_equal(own.inputs(), window.inputs())

    @pytest.mark.parametrize("make", MODULES)
    def test_they_pass_the_leakage_check(self, settings: Settings, make: Make) -> None:
        module = make(settings)
        for fold in outer_folds(module):
            assert find_leaks(module, fold, fit_preprocessor(module, fold.fit_rows)) == []

    def test_an_experiment_without_them_says_what_to_set(self, settings: Settings) -> None:
        with pytest.raises(ValueError, match=r"nested\.outer_folds of 'pump_xgboost' is 0"):
            outer_folds(pump(settings, "nested.outer_folds=0"))

    def test_too_few_are_refused_by_the_configuration(self, settings: Settings) -> None:
        with pytest.raises(ConfigError, match=r"nested\.outer_folds 1 is too few for 'stratified_kfold'; .*at least 2"):
            cancer(settings, "nested.outer_folds=1")

    def test_training_rows_too_few_for_the_inner_folds_say_so(self, settings: Settings, tmp_path: Path) -> None:
        module = pump(settings, "nested.outer_folds=7")
        with pytest.raises(ValueError, match=r"cannot be split again: fold 0 of 2 has 0 .*nested.outer_folds than 7"):
            run_procedure(module, outer_folds(module)[0], tmp_path / "journal")


class TestProcedure:
    """What is run and scored on an outer fold."""

    @pytest.mark.parametrize("make", MODULES)
    def test_the_result_is_that_of_training_on_the_outer_rows_alone(
        self, settings: Settings, make: Make, tmp_path: Path
    ) -> None:
        module = make(settings)
        fold = outer_folds(module)[0]
        result = score_outer_fold("outer_0", module, fold, tmp_path / "journal")
        candidate = run_procedure(module, fold, tmp_path / "again")
        test = outer_test(module, fold)
        assert result.outer == score_part(test, candidate.manager, candidate.model).metrics
        assert result.params == candidate.report.params
        assert (result.train_samples, result.test_samples) == (len(fold.train), len(fold.validation))
        assert result.trials == 3
        assert set(result.baselines) == {baseline.name for baseline in module.config.baselines}
        metric = module.config.metric
        best = min(row["loss"] for row in candidate.report.trials if row["loss"] is not None)
        assert METRICS.get(metric).loss(result.inner[metric]) == pytest.approx(best)

    def test_a_result_is_stored_and_comes_back(self, settings: Settings, tmp_path: Path) -> None:
        module = pump(settings, "tuning.trials=1")
        result = score_outer_fold("outer_1", module, outer_folds(module)[1], tmp_path / "journal")
        result.save(tmp_path)
        assert OuterResult.load(tmp_path) == result

    def test_the_summary_sets_the_procedure_beside_the_baselines(self) -> None:
        first = OuterResult("outer_0", {}, (), {"mae": 1.0}, {"mae": 2.0}, {"naive": {"mae": 3.0}}, 10, 5, 1)
        second = replace(first, name="outer_1", outer={"mae": 4.0}, baselines={"naive": {"mae": 3.0}})
        assert summary([first, second], "xgboost", "mae") == [
            {"model": "xgboost", "mae mean": 3.0, "mae std": 1.0},
            {"model": "naive", "mae mean": 3.0, "mae std": 0.0},
        ]


def tune_on_all_rows(module: DataModule, fold: Fold, journal: Path) -> Candidate:
    """A procedure that should not exist: its inner folds are cut from all rows."""
    folds = [
        prepare_fold(name, module, each, fit_preprocessor(module, each.fit_rows))
        for name, each in zip(module.config.split.fold_names, module.folds(), strict=True)
    ]
    return train_candidate(module.config, outer_training(module, fold), folds, {}, journal)


class TestAudit:
    """The proof that no outer test row is read."""

    @pytest.mark.parametrize("make", MODULES)
    def test_the_procedure_reads_the_outer_training_rows_and_no_other(
        self, settings: Settings, make: Make, tmp_path: Path
    ) -> None:
        module = make(settings)
        for k, fold in enumerate(outer_folds(module)):
            audit = audit_rows(module, fold, tmp_path / str(k))
            assert audit.touched.tolist() == []
            assert audit.differences == ()
            np.testing.assert_array_equal(audit.read, np.sort(fold.fit_rows))

    @pytest.mark.filterwarnings("ignore:overflow encountered")
    def test_a_search_on_all_rows_is_found(self, settings: Settings, tmp_path: Path) -> None:
        module = pump(settings)
        fold = outer_folds(module)[0]
        audit = audit_rows(module, fold, tmp_path, tune_on_all_rows)
        np.testing.assert_array_equal(audit.touched, np.flatnonzero(~module.row_mask(fold.fit_rows)))
        # No trial completes on poisoned rows.
        assert "error" in audit.differences

    def test_a_preprocessor_fitted_on_one_test_row_is_found(
        self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = pump(settings)
        fold = outer_folds(module)[0]
        row = int(fold.fit_rows.max()) + 1

        def greedy(module: DataModule, fold: Fold, journal: Path) -> Candidate:
            peek = TransformManager.for_experiment(module.config).fit(
                module.panel.take(module.row_mask(np.append(fold.fit_rows, row)))
            )
            with monkeypatch.context() as patch:
                patch.setattr(nested_cv, "fit_preprocessor", lambda *_: peek)
                return run_procedure(module, fold, journal)

        audit = audit_rows(module, fold, tmp_path, greedy)
        assert audit.touched.tolist() == [row]
        assert "trials" in audit.differences

    def test_taking_rows_reads_none_and_using_a_column_reads_its_rows(self, settings: Settings) -> None:
        panel = pump(settings).panel
        seen = np.zeros(panel.rows, dtype=bool)
        watched = RecordedPanel.record(panel, seen)
        mask = np.zeros(panel.rows, dtype=bool)
        mask[[3, 250, 251]] = True
        part = watched.take(mask).take(np.array([False, True, True]))
        assert "flow" in part.columns
        assert not seen.any()
        np.testing.assert_array_equal(part.matrix(["flow"])[:, 0], panel.columns["flow"][[250, 251]])
        assert np.flatnonzero(seen).tolist() == [250, 251]
        assert part.row_entities.tolist() == [2, 2]

    def test_poison_is_everywhere_outside_and_nowhere_inside(self, settings: Settings) -> None:
        panel = pump(settings).panel
        mask = np.arange(panel.rows) % 3 == 0
        poisoned = poison(panel, mask)
        for name, values in panel.columns.items():
            changed = poisoned.columns[name]
            np.testing.assert_array_equal(changed[~mask], values[~mask])
            bad = set(map(str, changed[mask]))
            assert bad == ({"None", "poisoned"} if values.dtype == object else {"nan", str(np.float32(1e30))})


def test_what_a_metric_cannot_score_is_refused_before_the_first_outer_fold(settings: Settings) -> None:
    module = pump(settings, "nested.outer_folds=2", "extra_metrics=[rmsle]")
    folds = dict(zip(module.config.nested.fold_names, outer_folds(module), strict=True))
    check_outer_folds(module, folds)
    heat = module.panel.columns["heat"].copy()
    heat[module.panel.timestamps > np.datetime64("2024-01-06")] = -1
    module.panel = module.panel.with_columns({**module.panel.columns, "heat": heat})
    with pytest.raises(DemandError, match="outer_1, test rows: metric 'rmsle' needs true values of at least 0"):
        check_outer_folds(module, {"outer_1": folds["outer_1"]})
