"""The tuner: the first trial is the configuration's own, the others stay in bounds, poor ones are cut short."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest

from mlplatform.config import ExperimentConfig, SearchDimension
from mlplatform.models import FitOptions, create_model
from mlplatform.plugins import MODELS
from mlplatform.settings import Settings
from mlplatform.testing.experiments import prepare_folds, pump_config, pump_module
from mlplatform.testing.search_process import searching
from mlplatform.training.cross_validation import FoldData
from mlplatform.training.trainers import trainer_for
from mlplatform.tuning.choice import is_beyond_noise
from mlplatform.tuning.objective import FittedTrial, fit_on_folds, unseen_bounds
from mlplatform.tuning.study.pruner import MedianAtStep
from mlplatform.tuning.study.study import load_study
from mlplatform.tuning.tuner import FOLD_BUDGET, tune

optuna.logging.set_verbosity(optuna.logging.WARNING)


DEPTH = {"max_depth": SearchDimension(type="int", low=1, high=4)}


def test_the_first_trial_is_the_configuration_itself(
    config: ExperimentConfig, folds: list[FoldData], tmp_path: Path
) -> None:
    result = tune(config, folds, tmp_path / "journal")
    assert result.best.params == config.model.params
    assert [trial["state"] for trial in result.trials] == ["COMPLETE"]
    direct = fit_on_folds(config, folds, "xgboost", dict(config.model.params))
    assert result.best.fold_scores == direct.fold_scores
    assert result.trials[0]["loss"] == direct.mean("mae")


def test_the_second_trial_of_a_default_space_is_what_the_family_would_try_first(
    config: ExperimentConfig, folds: list[FoldData], tmp_path: Path
) -> None:
    model = config.model.model_copy(update={"search_space": None})
    tuning = config.tuning.model_copy(update={"trials": 2, "alternatives": True})
    own = config.model_copy(update={"model": model, "tuning": tuning})
    result = tune(own, folds, tmp_path / "journal")
    (changes,) = MODELS.get("xgboost").alternatives(MODELS.get("xgboost").Params(**model.params), own)
    configured, alternative = result.trials
    # The table's own column is the trial's score.
    assert changes["loss"] == alternative["params.loss"]
    assert {key: alternative[key] for key in changes if key != "loss"} == {
        key: value for key, value in changes.items() if key != "loss"
    }
    direct = [fit_on_folds(own, folds, "xgboost", {**model.params, **each}).mean("mae") for each in ({}, changes)]
    assert [configured["loss"], alternative["loss"]] == direct
    # A space of one's own is all that is searched.
    other = searching(config, DEPTH, trials=2, alternatives=True)
    assert "on_linear" not in tune(other, folds, tmp_path / "other").trials[1]


def test_the_best_trial_has_the_smallest_loss(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    tuned = searching(config, DEPTH, trials=5, pruner_startup_trials=5)
    result = tune(tuned, folds, tmp_path / "journal")
    losses = [trial["loss"] for trial in result.trials]
    assert len(losses) == 5
    assert result.best.mean("mae") == min(losses)
    best = result.trials[int(np.argmin(losses))]
    assert result.best.params["max_depth"] == best.get("max_depth", config.model.params["max_depth"])
    assert result.best.params["num_boost_round"] == config.model.params["num_boost_round"]
    assert 0 < result.best.fit_seconds < result.fit_seconds
    assert all(1 <= trial["max_depth"] <= 4 for trial in result.trials[1:])


def test_the_configuration_stays_unless_the_gain_is_beyond_noise(
    config: ExperimentConfig, folds: list[FoldData], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuned = {"trials": 5, "pruner_startup_trials": 5}
    longer = {"num_boost_round": SearchDimension(type="int", low=20, high=40)}
    free = tune(searching(config, longer, **tuned), folds, tmp_path / "free")
    bound = tune(searching(config, longer, **tuned, standard_errors=1e6), folds, tmp_path / "bound")
    assert free.best.params != config.model.params
    assert bound.best.params == config.model.params
    assert [row["loss"] for row in bound.trials] == [row["loss"] for row in free.trials]
    # Its bounds were kept: it is not fitted again.
    assert len(bound.best.bounds) == len(folds)
    assert not [record for record in caplog.records if "fitted again" in record.message]


@pytest.mark.parametrize(
    ("metric", "best", "is_beyond"),
    [
        ("mae", (0.9, 1.9, 2.8), True),
        ("mae", (0.5, 2.2, 2.9), False),
        ("mae", (1.0, 2.0, 3.0), False),
        ("r2", (1.1, 2.1, 3.2), True),
        ("r2", (0.9, 1.9, 2.8), False),
    ],
)
def test_a_gain_is_measured_in_standard_errors_over_the_folds(
    metric: str, best: tuple[float, ...], is_beyond: bool
) -> None:
    first, second = (
        FittedTrial({}, tuple({metric: score} for score in scores), ((), (), ()), 0.0)
        for scores in ((1.0, 2.0, 3.0), best)
    )
    assert is_beyond_noise(first, second, metric, 1.0) is is_beyond


def test_a_score_that_grows_is_maximised(settings: Settings, tmp_path: Path) -> None:
    greater = searching(pump_config(settings, "metric=r2"), DEPTH, trials=4, pruner_startup_trials=4)
    result = tune(greater, prepare_folds(pump_module(greater)), tmp_path / "journal")
    assert result.best.mean("r2") == max(-trial["loss"] for trial in result.trials)
    assert result.best.mean("r2") > 0


def test_an_empty_space_is_one_trial(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    result = tune(searching(config, {}, trials=9), folds, tmp_path / "journal")
    assert len(result.trials) == 1


def test_the_same_seed_tries_the_same_values(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    tuned = searching(config, DEPTH | {"subsample": SearchDimension(type="float", low=0.5, high=1.0)}, trials=4)
    first, second = (
        [{**trial, "seconds": None} for trial in tune(tuned, folds, tmp_path / f"{k}.journal").trials] for k in range(2)
    )
    assert first == second


def test_the_study_is_written_to_the_journal(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    journal = tmp_path / "studies" / "pump" / "run.journal"
    result = tune(searching(config, DEPTH, trials=2), folds, journal)
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.load_study(study_name=config.name, storage=optuna.storages.JournalStorage(backend))
    assert [trial.value for trial in study.trials] == [trial["loss"] for trial in result.trials]
    steps = study.trials[0].intermediate_values
    assert {step // FOLD_BUDGET for step in steps} == {0, 1}
    assert steps[2 * FOLD_BUDGET - 1] == study.trials[0].value


def test_the_time_limit_stops_the_search(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    result = tune(searching(config, DEPTH, trials=500, timeout_s=0.4), folds, tmp_path / "journal")
    assert 1 <= len(result.trials) < 500


def test_every_trial_is_logged(
    config: ExperimentConfig, folds: list[FoldData], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        tune(searching(config, DEPTH, trials=2, pruner_startup_trials=2), folds, tmp_path / "journal")
    lines = [record.message for record in caplog.records if record.message.startswith("trial ")]
    assert [line.split(":")[0] for line in lines] == ["trial 1/2 complete", "trial 2/2 complete"]


def test_poor_trials_are_pruned_and_cost_less(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    """One learning rate learns next to nothing; a trial with it must not reach the last fold."""
    hopeless = {"learning_rate": SearchDimension(type="categorical", choices=(1e-6,))}
    result = tune(searching(config, hopeless, trials=3, pruner_startup_trials=1), folds, tmp_path / "journal")
    assert [trial["state"] for trial in result.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    # What they last reported is on another scale than a finished trial's.
    assert [trial["loss"] is None for trial in result.trials] == [False, True, True]
    assert result.best.params == config.model.params
    patient = tune(searching(config, hopeless, trials=3, pruner_startup_trials=9), folds, tmp_path / "patient")
    assert [trial["state"] for trial in patient.trials] == ["COMPLETE"] * 3


def test_a_search_without_any_result_says_so(settings: Settings, folds: list[FoldData], tmp_path: Path) -> None:
    diverging = pump_config(settings, "model=pump_nlinear_v1", "model.params.learning_rate=1e30")
    with pytest.raises(RuntimeError, match=r"none of the 1 trials of 'pump_xgboost' completed: .*learning_rate"):
        tune(searching(diverging, {}), folds, tmp_path / "journal")


def test_bounds_for_calibration_come_from_fits_that_did_not_stop_on_their_fold(
    config: ExperimentConfig, folds: list[FoldData]
) -> None:
    params = {**config.model.params, "num_boost_round": 30, "patience": 1, "learning_rate": 0.3}
    trial = fit_on_folds(config, folds, "xgboost", params)
    found = unseen_bounds(config, folds, "xgboost", trial)
    others = [trial.iterations(without=position) for position in range(len(folds))]
    for fold, bounds, iterations in zip(folds, found, others, strict=True):
        model = create_model("xgboost", params, fold.spec)
        trainer_for(model).fit(model, fold.train, None, FitOptions(iterations=iterations, seed=config.seed))
        np.testing.assert_array_equal(bounds.point, model.predict(fold.validation))
    # What stops nowhere has nothing to go by, nor has a single fold.
    fixed = fit_on_folds(config, folds, "ridge", {})
    assert unseen_bounds(config, folds, "ridge", fixed) is fixed.bounds
    assert unseen_bounds(config, folds[:1], "xgboost", trial) is trial.bounds


def test_a_refit_takes_the_median_per_sub_model() -> None:
    trial = FittedTrial({}, ({"mae": 1.0}, {"mae": 2.0}, {"mae": 6.0}), ((1, 9), (4, 5), (2, 5)), 0.0)
    assert trial.iterations() == (2, 5)
    assert trial.mean("mae") == 3.0
    assert trial.std("mae") == pytest.approx(float(np.std([1, 2, 6])))
    assert FittedTrial({}, ({"mae": 1.0},), ((),), 0.0).iterations() == ()


def test_what_folds_keep_between_trials_is_bounded(config: ExperimentConfig) -> None:
    folds = prepare_folds(pump_module(config))
    params = dict(config.model.params)
    first = fit_on_folds(config, folds, "xgboost", params, workers=1)
    sizes, reused = [], 0
    for bins in range(8, 38):
        matrices = set(map(id, folds[0].train.cache.values()))
        # Every third trial also has other features than the one before.
        changed = {"max_bin": bins, "target_lags": [1, 2 + bins // 3]}
        fit_on_folds(config, folds, "xgboost", {**params, **changed}, workers=1)
        for samples in (folds[0].train, folds[0].validation):
            sizes.append(max(Counter(kind for kind, _ in samples.cache).values()))
        reused += bool(matrices & set(map(id, folds[0].train.cache.values())))
    assert max(sizes) == 2
    assert reused > 20
    assert fit_on_folds(config, folds, "xgboost", params, workers=1).fold_scores == first.fold_scores


# Pruner


def study_with(*trials: dict[int, float]) -> optuna.Study:
    study = optuna.create_study()
    for reports in trials:
        study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values=reports))
    return study


def running(reports: dict[int, float]) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, intermediate_values=reports)


@pytest.mark.parametrize(
    ("reports", "is_pruned"),
    [
        ({}, False),
        ({0: 2.0}, False),  # the median itself
        ({0: 2.1}, True),
        ({0: 0.1, 5: 30.1}, True),  # one good step does not excuse the latest
        ({0: 0.1, 5: 29.9}, False),
        ({7: 99.0}, False),  # nothing to compare with
        ({0: float("nan")}, True),
    ],
)
def test_a_trial_is_compared_at_its_latest_step_only(reports: dict[int, float], is_pruned: bool) -> None:
    study = study_with({0: 1.0, 5: 10.0}, {0: 2.0, 5: 30.0}, {0: 3.0, 5: 50.0})
    assert MedianAtStep(startup_trials=3, warmup_steps=0).prune(study, running(reports)) is is_pruned


def test_nothing_is_pruned_before_enough_trials_and_steps() -> None:
    study = study_with({3: 1.0}, {3: 1.0})
    assert MedianAtStep(startup_trials=2, warmup_steps=3).prune(study, running({3: 9.0}))
    assert not MedianAtStep(startup_trials=3, warmup_steps=3).prune(study, running({3: 9.0}))
    assert not MedianAtStep(startup_trials=2, warmup_steps=4).prune(study, running({3: 9.0}))
    assert not MedianAtStep(startup_trials=0, warmup_steps=0).prune(study_with(), running({3: 9.0}))


def test_pruning_at_folds_hears_of_folds_only(config: ExperimentConfig, folds: list[FoldData], tmp_path: Path) -> None:
    tuned = searching(config, DEPTH, trials=3, pruner_startup_trials=3, prune_at="fold")
    result = tune(tuned, folds, tmp_path / "journal")
    steps = {step for trial in load_study(tuned, tmp_path / "journal").trials for step in trial.intermediate_values}
    assert steps == {(position + 1) * FOLD_BUDGET - 1 for position in range(len(folds))}
    assert result.counts == "3 of 3 trials completed"


def test_a_search_says_how_many_trials_completed(
    config: ExperimentConfig, folds: list[FoldData], tmp_path: Path
) -> None:
    poor = {"learning_rate": SearchDimension(type="float", low=1e-4, high=2e-4)}
    result = tune(searching(config, poor, trials=3, pruner_startup_trials=1), folds, tmp_path / "journal")
    assert result.counts == "1 of 3 trials completed, 2 pruned"


@pytest.mark.parametrize("preset", ["quick", "standard", "parallel"])
def test_presets_let_enough_trials_complete(preset: str, settings: Settings) -> None:
    tuning = pump_config(settings, f"tuning={preset}").tuning
    assert tuning.prune_at == "fold"
    assert tuning.pruner_startup_trials >= 4
