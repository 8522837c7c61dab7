"""What single model families promise beyond the contract."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from mlplatform.datamodule.samples import TabularSamples, WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import DirectFitModel, create_model
from mlplatform.models.forecasting.lag_features import LagFeatureParams, origin_features
from mlplatform.testing.model_samples import HORIZON, LOOKBACK, spec_for, table, windows


def direct(family: str, spec: ModelSpec, **params: object) -> DirectFitModel:
    model = create_model(family, params, spec)
    assert isinstance(model, DirectFitModel)
    return model


def test_repeat_last_repeats_the_last_value() -> None:
    samples = windows(targets=(2, 0))
    forecast = direct("repeat_last", spec_for("forecast", (2, 0))).predict(samples)
    for position, origin in enumerate(samples.origins):
        for step in range(HORIZON):
            assert forecast[position, step].tolist() == samples.values[origin, [2, 0]].tolist()


@pytest.mark.parametrize("name", ["repeat_last", "seasonal_naive"])
def test_a_rule_repeats_the_last_observed_value_where_nothing_fills_gaps(name: str) -> None:
    samples = windows()
    values = samples.values.copy()
    values[samples.origins[0]] = np.nan
    gappy = replace(samples, values=values, origins=samples.origins[:1], cache={})
    model = create_model(name, {} if name == "repeat_last" else {"season": 1}, spec_for("forecast"))
    expected = samples.values[samples.origins[0] - 1, list(samples.targets)]
    np.testing.assert_array_equal(model.predict(gappy), np.broadcast_to(expected, (1, HORIZON, len(expected))))


@pytest.mark.parametrize("season", [1, 2, 5, LOOKBACK])
def test_seasonal_naive_repeats_the_last_season(season: int) -> None:
    samples = windows()
    forecast = direct("seasonal_naive", spec_for("forecast"), season=season).predict(samples)
    for position, origin in enumerate(samples.origins):
        for step in range(HORIZON):
            earlier = origin + 1 + step
            while earlier > origin:
                earlier -= season
            assert forecast[position, step, 0] == samples.values[earlier, 1]


def test_a_season_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match=f"season 13 is longer than the lookback {LOOKBACK}"):
        direct("seasonal_naive", spec_for("forecast"), season=13).predict(windows())


def test_ridge_solves_the_penalised_least_squares_problem() -> None:
    samples, alpha = windows(targets=(0, 2)), 0.05
    model = direct("ridge", spec_for("forecast", (0, 2)), alpha=alpha)
    model.fit(samples, None)
    inputs, outputs = samples.inputs().astype(np.float64), samples.outputs().astype(np.float64)
    last = inputs[:, -1:, [0, 2]]
    x = (inputs[:, :, [0, 2]] - last).transpose(2, 0, 1).reshape(-1, LOOKBACK)
    y = (outputs - last).transpose(2, 0, 1).reshape(-1, HORIZON)
    centred_x, centred_y = x - x.mean(axis=0), y - y.mean(axis=0)
    weights = np.linalg.solve(centred_x.T @ centred_x + len(x) * alpha * np.eye(LOOKBACK), centred_x.T @ centred_y)
    intercept = y.mean(axis=0) - x.mean(axis=0) @ weights
    expected = (x @ weights + intercept).reshape(2, len(samples), HORIZON).transpose(1, 2, 0) + last
    np.testing.assert_allclose(model.predict(samples), expected, rtol=1e-4, atol=1e-5)


def test_dummy_answers_with_the_mean_and_the_class_shares() -> None:
    regression = direct("dummy", spec_for("regression"))
    numbers = TabularSamples(np.zeros((4, 4), np.float32), np.array([1, 2, 3, 6], np.float32), tuple("abcd"))
    regression.fit(numbers, None)
    assert regression.predict(numbers).tolist() == [3, 3, 3, 3]
    classification = direct("dummy", spec_for("classification"))
    labels = TabularSamples(np.zeros((4, 4), np.float32), np.array([0, 2, 2, 2], np.float32), tuple("abcd"), 3)
    classification.fit(labels, None)
    assert classification.predict(labels)[0].tolist() == [0.25, 0, 0.75]


def test_the_linear_model_names_the_columns_with_missing_values() -> None:
    samples = table("regression")
    samples.values[3, [1, 2]] = np.nan
    with pytest.raises(ValueError, match="cannot read missing values, found in b, c; add an impute step"):
        direct("linear", spec_for("regression")).fit(samples, None)


@pytest.mark.parametrize(("family", "task"), [("ridge", "forecast"), ("linear", "regression")])
def test_samples_of_another_kind_are_refused(family: str, task: str) -> None:
    model = direct(family, spec_for(task))
    wrong = table("regression") if task == "forecast" else windows()
    with pytest.raises(TypeError, match=r"is fitted to (Window|Tabular)Samples, but got (Tabular|Window)Samples"):
        model.fit(wrong, None)


def test_gradient_boosting_reads_missing_values() -> None:
    samples = table("regression")
    samples.values[3, [1, 2]] = np.nan
    model = direct("xgboost_tabular", spec_for("regression"), num_boost_round=3)
    model.fit(samples, None)
    assert np.isfinite(model.predict(samples)).all()


def test_gradient_boosting_stops_early_at_its_best_round() -> None:
    noise = np.random.default_rng(0)
    train = table("regression")
    unrelated = replace(train, labels=noise.normal(size=60).astype(np.float32), cache={})
    model = direct("xgboost_tabular", spec_for("regression"), num_boost_round=200, patience=3, learning_rate=0.5)
    result = model.fit(train, unrelated)
    (best,) = result.iterations
    assert best == int(np.argmin(result.history)) + 1
    assert len(result.history) == best + 3


def features(samples: WindowSamples, **params: object) -> np.ndarray:
    spec = spec_for("forecast")
    return origin_features(samples, spec, LagFeatureParams.model_validate(params), with_known=False)


def test_window_features_equal_plain_loops() -> None:
    samples = windows()
    matrix = features(
        samples,
        target_lags=[1, 5, LOOKBACK],
        target_means=[4, 99],
        covariate_lags=[2],
        covariate_means=[],
        calendar=True,
    )
    for row, origin in zip(matrix, samples.origins, strict=True):
        a, b, c = (samples.values[:, channel] for channel in range(3))
        mean = b[origin - 3 : origin + 1].mean()
        expected = [a[origin], a[origin - 2] - a[origin]]
        expected += [b[origin], b[origin - 1] - b[origin], b[origin - 5] - b[origin], mean - b[origin]]
        expected += [c[origin], c[origin - 2] - c[origin]]
        hours = float(origin)  # the series starts on a Monday at midnight
        seconds = samples.timestamps[origin].astype("datetime64[s]").astype(int)
        angles = [2 * np.pi * hours / 24, 2 * np.pi * (seconds % 604_800) / 604_800]
        expected += [*np.sin(angles), *np.cos(angles)]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", ["target_lags", "target_means", "covariate_lags", "covariate_means"])
def test_steps_into_the_future_are_refused(key: str) -> None:
    for steps in ([-1], [0]):
        with pytest.raises(ValidationError, match=f"{key}.0"):
            create_model("xgboost", {key: steps}, spec_for("forecast"))


def test_models_with_other_features_do_not_share_a_matrix() -> None:
    """Trials and baselines meet on the same samples; each must be fitted on its own features."""
    settings = {"num_boost_round": 3, "calendar": False, "target_means": [], "covariate_means": []}
    shared, held_out = windows(), windows(1)
    answers = []
    for lags in ([1, 2], [3, 4]):
        alone, beside = (direct("xgboost", spec_for("forecast"), target_lags=lags, **settings) for _ in range(2))
        alone.fit(windows(), windows(1))
        beside.fit(shared, held_out)
        answers.append(beside.predict(windows(2)))
        assert answers[-1].tobytes() == alone.predict(windows(2)).tobytes()
    assert answers[0].tobytes() != answers[1].tobytes()


def test_trials_with_the_same_features_share_a_matrix() -> None:
    samples = windows()
    for depth in (2, 3):
        direct("xgboost", spec_for("forecast"), num_boost_round=1, max_depth=depth).fit(samples, None)
    matrices = [key for key in samples.cache if key[0] == "quantile_matrix"]
    first = len(matrices)
    direct("xgboost", spec_for("forecast"), num_boost_round=1, max_bin=16).fit(samples, None)
    assert len([key for key in samples.cache if key[0] == "quantile_matrix"]) == 2 * first


def test_boosted_forecasts_follow_the_level() -> None:
    samples = windows()
    model = direct("xgboost", spec_for("forecast"), num_boost_round=3, calendar=False)
    model.fit(samples, None)
    shift = np.float32(1024)  # exact in float32 beside values of size one
    coarse = replace(samples, values=(np.round(samples.values * 64) / 64).astype(np.float32), cache={})
    shifted = replace(coarse, values=coarse.values + shift, cache={})
    difference = model.predict(shifted) - model.predict(coarse)
    assert float(np.abs(difference - shift).max()) < 0.5


def test_nlinear_follows_the_level_exactly() -> None:
    from mlplatform.training.trainers import trainer_for

    samples = windows()
    model = create_model("nlinear", {"max_epochs": 1}, spec_for("forecast"))
    trainer_for(model).fit(model, samples, None)
    shifted = replace(samples, values=samples.values + np.float32(10), cache={})
    np.testing.assert_allclose(model.predict(shifted), model.predict(samples) + 10, rtol=1e-5)
