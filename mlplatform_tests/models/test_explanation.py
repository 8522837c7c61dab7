"""Explanations add up to the answers, name the inputs that matter, and are refused where they would not be exact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.datamodule import ModelSpec, TabularSamples
from mlplatform.models import CannotExplainError, Contributions, FitOptions, create_model, load_model, save_model
from mlplatform.models.forecasting import strategy_features, strategy_rows
from mlplatform_tests.models.test_lag_features import CHANNELS, OTHER, PLANNED, TARGET, rich_samples, rich_spec

FORECASTS: dict[str, dict[str, Any]] = {
    "xgboost": {"num_boost_round": 12, "max_depth": 3},
    "catboost": {"iterations": 12, "depth": 3},
}
TABLES: dict[str, dict[str, Any]] = {
    "xgboost_tabular": {"num_boost_round": 12, "num_parallel_tree": 2},
    "catboost_tabular": {"iterations": 12, "depth": 3},
}
LAGS = {"target_lags": [1, 4], "target_means": [3], "covariate_lags": [2], "covariate_means": []}
# Leaves are summed in another order, and in XGBoost in single precision.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("scaling", ["", "window"], ids=["scaled before", "scaled by window"])
@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)], ids=["point", "quantiles"])
@pytest.mark.parametrize("strategy", ["direct", "horizon_feature"])
@pytest.mark.parametrize("family", FORECASTS)
def test_shares_and_base_add_up_to_every_step_of_a_forecast(
    family: str, strategy: str, quantiles: tuple[float, ...], scaling: str, tmp_path: Path
) -> None:
    samples, spec = rich_samples(), rich_spec(quantiles=quantiles, targets=(TARGET, OTHER), scaling=scaling, season=3)
    samples = replace(samples, targets=spec.targets)
    model: Any = create_model(family, {**FORECASTS[family], **LAGS, "strategy": strategy}, spec)
    model.fit(samples, None, FitOptions())
    save_model(model, family, tmp_path / "model")
    loaded: Any = load_model(tmp_path / "model")
    some = samples.select(np.array([3, 30]))
    found = loaded.explain(some)
    assert isinstance(found, Contributions)
    assert found.values.shape == (2, spec.horizon, 2, len(found.features))
    np.testing.assert_allclose(found.base + found.values.sum(axis=-1), loaded.predict(some), **CLOSE)
    assert len(found.features) == strategy_rows(some, spec, loaded.params).shape[1]
    # Merged, apart and as fitted are the same trees.
    np.testing.assert_array_equal(model.explain(some).values, found.values)


def test_features_are_named_as_they_are_filled() -> None:
    samples, spec = rich_samples(), rich_spec()
    model: Any = create_model("xgboost", {**FORECASTS["xgboost"], **LAGS}, spec)
    names = strategy_features(spec, model.params)
    rows = strategy_rows(samples, spec, model.params)
    origin = samples.origins[5]
    columns = dict(zip(CHANNELS, samples.values.T, strict=True))
    for feature, value in zip(names, rows[5], strict=True):
        column = columns.get(feature.input, samples.values[:, 0])
        last, here = column[origin], origin - (feature.lag or 0) + (feature.step or 0)
        expected = {
            "level": column[here],
            "change": column[here] - last,
            "mean": column[origin + 1 - (feature.length or 1) : origin + 1].mean() - last,
            "known": column[here] - (last if feature.input == "planned" else 0),
            "calendar": value,
        }
        assert value == pytest.approx(expected[feature.kind], abs=1e-6), feature


def test_the_input_that_makes_the_target_has_the_shares() -> None:
    samples, spec = rich_samples(rows=400), rich_spec()
    samples.values[:, TARGET] = 3 * samples.values[:, PLANNED]
    model: Any = create_model("xgboost", {"num_boost_round": 30, "max_depth": 3, **LAGS}, spec)
    model.fit(samples, None, FitOptions())
    found = model.explain(samples.select(np.arange(0, 300, 10)))
    for step in range(spec.horizon):
        weight = np.abs(found.values[:, step, 0]).sum(axis=0)
        top = found.features[int(weight.argmax())]
        assert (top.input, top.kind, top.step) == ("planned", "known", step + 1)


@pytest.mark.parametrize("task", ["regression", "quantiles", "two classes", "three classes"])
@pytest.mark.parametrize("family", TABLES)
def test_shares_and_base_add_up_to_what_rows_of_a_table_are_answered(family: str, task: str) -> None:
    noise = np.random.default_rng(0)
    values = noise.normal(size=(200, 4)).astype(np.float32)
    values[noise.random(values.shape) < 0.05] = np.nan
    classes = {"two classes": 2, "three classes": 3}.get(task, 0)
    score = np.nan_to_num(values[:, 0]) * 3 + np.nan_to_num(values[:, 1])
    labels = np.digitize(score, np.linspace(-1, 1, classes - 1)) if classes else score
    channels = ("a", "b", "c", "d")
    samples = TabularSamples(values, labels.astype(np.float32), channels, classes)
    spec = ModelSpec(
        task="classification" if classes else "regression",
        channels=channels,
        classes=classes,
        quantiles=(0.1, 0.5, 0.9) if task == "quantiles" else (),
    )
    model: Any = create_model(family, TABLES[family], spec)
    model.fit(samples, None, FitOptions())
    found = model.explain(samples)
    assert [feature.input for feature in found.features] == list(channels)
    sums = found.base + found.values.sum(axis=-1)
    if found.space == "log_odds":
        sums = 1 / (1 + np.exp(-sums))
    elif found.space == "scores":
        sums = np.exp(sums) / np.exp(sums).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(sums, model.predict(samples), **CLOSE)
    assert found.space == {0: "output", 2: "log_odds", 3: "scores"}[classes]


def test_what_has_no_exact_explanation_says_which_families_have() -> None:
    samples, spec = rich_samples(), rich_spec()
    recursive: Any = create_model("xgboost", {**FORECASTS["xgboost"], **LAGS, "strategy": "recursive"}, spec)
    recursive.fit(samples, None, FitOptions())
    with pytest.raises(CannotExplainError, match="train with 'direct' or 'horizon_feature'"):
        recursive.explain(samples)
    with pytest.raises(CannotExplainError, match=r"families that have for task forecast: .*catboost.*tft.*xgboost"):
        create_model("repeat_last", {}, spec).explain(samples)


def test_a_fusion_transformer_tells_the_weights_of_every_sample() -> None:
    samples, spec = rich_samples(), rich_spec()
    model: Any = create_model("tft", {"hidden": 8, "heads": 1}, spec)
    model.module = model.build()
    some = samples.select(np.array([0, 9]))
    weights = model.explain(some)
    assert len(weights) == 2
    for each in weights:
        for group in (each.static, each.past, each.future):
            assert sum(group.values()) == pytest.approx(1, abs=1e-5)
    assert weights[1].past == model.interpret(some.select(np.array([1]))).past
