"""What the tabular tree families promise beyond the contract of every family."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from mlplatform.datamodule.samples import TabularSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import DirectFitModel, FitOptions, create_model
from mlplatform.models.trees.random_forest import Forest
from mlplatform.models.trees.tabular import BoostedTabular
from mlplatform.plugins import MODELS
from mlplatform.training.trainers import trainer_for

LEVELS = (0.1, 0.5, 0.9)
BUDGET = {"catboost_tabular": "iterations", "xgboost_tabular": "num_boost_round"}


class AbandonedError(Exception):
    """Raised by a progress callback."""


def table(seed: int, rows: int = 300) -> TabularSamples:
    noise = np.random.default_rng(seed)
    values = noise.normal(size=(rows, 4)).astype(np.float32)
    labels = (2 * values[:, 0] + noise.normal(size=rows)).astype(np.float32)
    return TabularSamples(values, labels, ("a", "b", "c", "d"), 0)


def tree_model(family: str, quantiles: tuple[float, ...] = ()) -> DirectFitModel:
    spec = ModelSpec("regression", ("a", "b", "c", "d"), quantiles=quantiles)
    model = create_model(family, {BUDGET[family]: 60}, spec)
    assert isinstance(model, DirectFitModel)
    return model


@pytest.mark.parametrize("family", BUDGET)
def test_quantiles_never_cross_cover_their_share_and_their_median_is_the_prediction(family: str) -> None:
    model = tree_model(family, LEVELS)
    model.fit(table(0), table(1))
    quantiles, held_out = model.predict_quantiles(table(2)), table(2)
    assert quantiles.shape == (300, 3)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert model.predict(held_out).tobytes() == np.ascontiguousarray(quantiles[:, 1]).tobytes()
    inside = (quantiles[:, 0] <= held_out.labels) & (held_out.labels <= quantiles[:, 2])
    assert 0.6 < inside.mean() < 0.95


def test_a_round_of_parallel_trees_counts_once_and_is_cut_whole() -> None:
    spec = ModelSpec("regression", ("a", "b", "c", "d"))
    params = {"num_boost_round": 200, "num_parallel_tree": 3, "subsample": 0.5, "learning_rate": 0.3}
    model, again = (create_model("xgboost_tabular", params, spec) for _ in range(2))
    result = trainer_for(model).fit(model, table(0), table(1), FitOptions())
    (rounds,) = result.iterations
    assert rounds == int(np.argmin(result.history)) + 1 < 200
    trainer_for(again).fit(again, table(0), None, FitOptions(iterations=(rounds,)))
    assert again.predict(table(2)).tobytes() == model.predict(table(2)).tobytes()
    assert isinstance(model, BoostedTabular)
    assert len(model.booster_.get_dump()) == 3 * rounds


@pytest.mark.parametrize("family", BUDGET)
def test_a_search_reaches_single_splits_and_leaves_the_learning_rate_to_early_stopping(family: str) -> None:
    for task in ("regression", "classification"):
        space = MODELS.get(family).search_space(task)
        (depth,) = {"depth", "max_depth"} & set(space)
        assert space[depth].low == 1
        assert "learning_rate" not in space


def test_leaves_may_hold_rows_that_a_classification_is_sure_of() -> None:
    """A row weighs p(1 - p), so at the least weight that a regression may search, nine rows at p = 0.9 make a leaf."""
    train = replace(table(0), labels=(table(0).values[:, 0] > 0).astype(np.float32), classes=2)
    losses = {}
    for task in ("regression", "classification"):
        weight = MODELS.get("xgboost_tabular").search_space(task)["min_child_weight"].low
        params = {"num_boost_round": 100, "learning_rate": 0.3, "min_child_weight": weight, "reg_lambda": 0.0}
        model = create_model("xgboost_tabular", params, spec_of("classification", 2))
        trainer_for(model).fit(model, train, None)
        chosen = model.predict(train)[np.arange(300), train.labels.astype(np.int64)]
        losses[task] = float(-np.log(chosen).mean())
    assert losses["classification"] < 0.5 * losses["regression"]


@pytest.mark.parametrize("family", BUDGET)
def test_progress_reports_the_best_loss_of_every_tree_and_may_abandon_the_fit(family: str) -> None:
    seen: list[tuple[int, float]] = []
    result = tree_model(family).fit(table(0), table(1), FitOptions(on_progress=lambda *report: seen.append(report)))
    assert [step for step, _ in seen] == list(range(len(result.history)))
    np.testing.assert_allclose([loss for _, loss in seen], np.minimum.accumulate(result.history))

    def abandon(step: int, _loss: float) -> None:
        if step == 3:
            raise AbandonedError

    with pytest.raises(AbandonedError):
        tree_model(family).fit(table(0), table(1), FitOptions(on_progress=abandon))


def spec_of(task: Literal["regression", "classification"], classes: int = 3) -> ModelSpec:
    return ModelSpec(task, ("a", "b", "c", "d"), classes=classes if task == "classification" else 0)


def with_gaps(samples: TabularSamples) -> TabularSamples:
    values = samples.values.copy()
    values[np.random.default_rng(9).random(values.shape) < 0.1] = np.nan
    return replace(samples, values=values)


@pytest.mark.parametrize("gaps_in_training", [False, True])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_random_forest_answers_as_scikit_learn_does_missing_values_included(
    task: Literal["regression", "classification"], gaps_in_training: bool
) -> None:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    train, held_out = table(0), with_gaps(table(2))
    if task == "classification":
        train = replace(train, labels=np.clip(np.floor(train.labels) + 1, 0, 2).astype(np.float32), classes=3)
    train = with_gaps(train) if gaps_in_training else train
    model = create_model("random_forest_tabular", {"n_estimators": 20, "min_samples_leaf": 3}, spec_of(task))
    trainer_for(model).fit(model, train, None, FitOptions(seed=4))
    kind = RandomForestRegressor if task == "regression" else RandomForestClassifier
    peer = kind(20, min_samples_leaf=3, max_features=0.33, max_samples=1.0, random_state=4)
    peer.fit(train.values, train.labels)
    expected = peer.predict(held_out.values) if task == "regression" else peer.predict_proba(held_out.values)
    np.testing.assert_allclose(model.predict(held_out), expected, rtol=3e-7, atol=3e-7)


def test_a_random_forest_does_not_depend_on_the_number_of_workers() -> None:
    answers = set()
    for workers in (1, 3):
        model = create_model("random_forest_tabular", {"n_estimators": 9}, spec_of("regression"))
        trainer_for(model).fit(model, table(0), None, FitOptions(seed=1, workers=workers))
        answers.add(model.predict(table(2)).tobytes())
    assert len(answers) == 1


def test_a_class_that_training_lacks_has_probability_zero() -> None:
    train = replace(table(0), labels=(2 * (table(0).labels > 0)).astype(np.float32), classes=3)
    model = create_model("random_forest_tabular", {"n_estimators": 5}, spec_of("classification"))
    trainer_for(model).fit(model, train, None)
    answers = model.predict(table(2))
    assert (answers[:, 1] == 0).all()
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-6)


def test_a_forest_answers_several_outputs_in_blocks_as_scikit_learn_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.ensemble import RandomForestRegressor

    values = table(0).values
    outputs = np.column_stack([values[:, 0], values[:, 1] ** 2, values.sum(axis=1)])
    peer = RandomForestRegressor(15, random_state=0).fit(values, outputs)
    forest = Forest.of(peer.estimators_)
    held_out = table(3).values
    whole = forest.predict(held_out)
    np.testing.assert_allclose(whole, peer.predict(held_out), rtol=1e-6, atol=1e-6)
    monkeypatch.setattr("mlplatform.models.trees.random_forest.BLOCK", 7)
    assert forest.predict(held_out).tobytes() == whole.tobytes()


@pytest.mark.parametrize("iterations", [(), (40,)])
def test_catboost_may_grow_trees_that_find_no_split(iterations: tuple[int, ...]) -> None:
    def flags(seed: int) -> TabularSamples:
        noise = np.random.default_rng(seed)
        values = (noise.random((40, 4)) < 0.1).astype(np.float32)
        return TabularSamples(values, (values[:, 0] + noise.normal(0, 0.1, 40)).astype(np.float32), tuple("abcd"))

    params = {"iterations": 60, "patience": 60, "depth": 1, "rsm": 0.25, "subsample": 0.5, "learning_rate": 0.03}
    model = create_model("catboost_tabular", params, ModelSpec("regression", tuple("abcd")))
    result = trainer_for(model).fit(model, flags(0), flags(1), FitOptions(iterations=iterations))
    assert result.iterations == (iterations or (int(np.argmin(result.history)) + 1,))
    again = create_model("catboost_tabular", params, ModelSpec("regression", tuple("abcd")))
    trainer_for(again).fit(again, flags(0), None, FitOptions(iterations=result.iterations))
    np.testing.assert_allclose(again.predict(flags(2)), model.predict(flags(2)), rtol=1e-5)


@pytest.mark.parametrize("quantiles", [(), (0.5,), LEVELS], ids=str)
@pytest.mark.parametrize("family", BUDGET)
def test_a_constant_target_is_predicted_as_it_is(family: str, quantiles: tuple[float, ...]) -> None:
    model = tree_model(family, quantiles)
    train, validation = (replace(table(seed), labels=np.full(300, 3, np.float32)) for seed in (0, 1))
    assert model.fit(train, validation).iterations == (1,)
    np.testing.assert_allclose(model.predict(table(2)), 3, rtol=1e-6)
