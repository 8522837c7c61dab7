"""The strategies of the tree families: shapes, recursion beside a plain loop, quantiles, threads and storage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.datamodule.samples import WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import FitOptions, FitResult, create_model, load_model, save_model
from mlplatform.models.forecasting import strategies as forecast_strategies
from mlplatform.models.forecasting.lag_features import origin_features, step_features
from mlplatform.models.forecasting.strategies import StrategyForecast, learning_table
from mlplatform_tests.models.test_lag_features import HORIZON, LOOKBACK, OTHER, SITE, TARGET, rich_samples, rich_spec

SIZES: dict[str, dict[str, Any]] = {
    "xgboost": {"num_boost_round": 6, "patience": 2, "max_depth": 2, "subsample": 0.8},
    "catboost": {"iterations": 6, "patience": 2, "depth": 2},
    "random_forest": {"n_estimators": 4, "min_samples_leaf": 3},
}
BOOSTED = ("xgboost", "catboost")
STRATEGIES = ("direct", "horizon_feature", "recursive")
WITH_QUANTILES = ("direct", "horizon_feature")
LEVELS = (0.1, 0.5, 0.9)
EVERY = [(family, strategy) for family in SIZES for strategy in STRATEGIES]


def fit(
    family: str, strategy: str, spec: ModelSpec, samples: WindowSamples | None = None, **options: Any
) -> tuple[StrategyForecast, FitResult]:
    params = options.pop("params", {})
    model = create_model(family, {**SIZES[family], "strategy": strategy, "target_lags": (1, 4), **params}, spec)
    assert isinstance(model, StrategyForecast)
    train = aimed(rich_samples() if samples is None else samples, spec)
    validation = aimed(rich_samples(1), spec)
    return model, model.fit(train, validation, FitOptions(**options))


def aimed(samples: WindowSamples, spec: ModelSpec) -> WindowSamples:
    return replace(samples, targets=spec.targets, cache={})


@pytest.mark.parametrize(("family", "strategy"), EVERY)
@pytest.mark.parametrize("targets", [(TARGET,), (OTHER, TARGET)], ids=str)
def test_every_strategy_forecasts_several_targets_and_survives_storage(
    family: str, strategy: str, targets: tuple[int, ...], tmp_path: Path
) -> None:
    spec = replace(rich_spec(), targets=targets)
    model, result = fit(family, strategy, spec)
    samples = aimed(rich_samples(2), spec)
    forecast = model.predict(samples)
    assert forecast.shape == (len(samples), HORIZON, len(targets))
    assert np.isfinite(forecast).all()
    if family in BOOSTED:
        assert len(result.iterations) == len(targets) * (HORIZON if strategy == "direct" else 1)
    save_model(model, family, tmp_path / "model")
    assert load_model(tmp_path / "model").predict(samples).tobytes() == forecast.tobytes()


@pytest.mark.parametrize(("family", "strategy"), EVERY)
def test_a_window_alone_is_answered_as_in_a_batch(family: str, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = fit(family, strategy, rich_spec())
    samples = rich_samples(2)
    together = model.predict(samples)
    for position in (0, 7, len(samples) - 1):
        alone = model.predict(samples.select(np.array([position])))
        assert alone[0].tobytes() == together[position].tobytes()
    monkeypatch.setattr(forecast_strategies, "BLOCK", 5)
    monkeypatch.setattr("mlplatform.models.trees.random_forest.BLOCK", 7)
    assert model.predict(samples).tobytes() == together.tobytes()


@pytest.mark.parametrize(("family", "strategy"), EVERY)
def test_the_number_of_workers_does_not_change_a_bit(family: str, strategy: str) -> None:
    spec, samples = rich_spec(), rich_samples(2)
    (one, first), (two, second) = (fit(family, strategy, spec, workers=workers) for workers in (1, 2))
    assert first == second
    assert one.predict(samples).tobytes() == two.predict(samples).tobytes()


@pytest.mark.parametrize(("family", "strategy"), EVERY)
def test_only_known_columns_are_read_behind_the_origin(family: str, strategy: str) -> None:
    model, _ = fit(family, strategy, rich_spec())
    samples, origin = rich_samples(2), 30
    one = replace(samples, origins=np.array([origin]), cache={})
    values = samples.values.copy()
    values[: origin - LOOKBACK + 1] = 1e6
    values[np.ix_(range(origin + 1, len(values)), [TARGET, SITE, OTHER])] = -1e6
    blind = replace(one, values=values, timestamps=samples.timestamps[: origin + 1], cache={})
    assert model.predict(blind).tobytes() == model.predict(one).tobytes()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_known_column_that_drives_the_target_is_made_use_of(strategy: str) -> None:
    """The target is the planned value plus a slow walk."""
    spec = rich_spec()
    params = {"num_boost_round": 40, "max_depth": 3}
    model, _ = fit("xgboost", strategy, spec, rich_samples(rows=600), params=params)
    blind, _ = fit("xgboost", strategy, replace(spec, known=()), rich_samples(rows=600), params=params)
    samples = rich_samples(2, rows=600)
    errors = [float(np.abs(one.predict(samples) - samples.outputs()).mean()) for one in (model, blind)]
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("family", SIZES)
def test_recursion_equals_a_plain_loop(family: str) -> None:
    spec = replace(rich_spec(), targets=(TARGET, OTHER))
    model, _ = fit(family, "recursive", spec)
    samples = aimed(rich_samples(2), spec)
    forecast = model.predict(samples)
    next_step = replace(spec, horizon=1)
    for position in (0, 20):
        origin = samples.origins[position]
        series = samples.values[: origin + 1].copy()
        for step in range(HORIZON):
            row = series[-1].copy()
            row[list(spec.known)] = samples.values[origin + step + 1, list(spec.known)]
            extended = np.vstack([series, row])
            window = replace(samples, values=extended, origins=np.array([len(series) - 1]), horizon=1, cache={})
            features = [
                origin_features(window, next_step, model.params, with_known=False),
                step_features(window, next_step, model.params, 1),
            ]
            change = model.changes(np.ascontiguousarray(np.hstack(features)))[0, :, 0]
            extended[-1, list(spec.targets)] = series[-1, list(spec.targets)] + change
            series = extended
            assert forecast[position, step].tobytes() == series[-1, list(spec.targets)].tobytes()


def test_rows_of_the_step_strategy_are_bounded_and_evenly_spread() -> None:
    spec, samples = rich_spec(), rich_samples()
    model, _ = fit("xgboost", "horizon_feature", spec, params={"max_origins": 5})
    table = learning_table(samples, spec, model.params)
    assert len(table.features) == 5 * HORIZON
    chosen = np.linspace(0, len(samples) - 1, 5).astype(int)
    outputs, last = samples.outputs()[chosen, :, 0], samples.values[samples.origins[chosen], TARGET]
    assert table.labels[:, 0].tolist() == (outputs - last[:, None]).ravel().tolist()
    assert (table.features[:, -7].reshape(5, HORIZON) == [1, 2, 3]).all()


@pytest.mark.parametrize("levels", [LEVELS, (0.5,)], ids=str)
@pytest.mark.parametrize("strategy", WITH_QUANTILES)
@pytest.mark.parametrize("family", BOOSTED)
def test_quantiles_do_not_cross_and_predict_is_their_median(
    family: str, strategy: str, levels: tuple[float, ...], tmp_path: Path
) -> None:
    spec = replace(rich_spec(), targets=(OTHER, TARGET), quantiles=levels)
    model, _ = fit(family, strategy, spec)
    samples = aimed(rich_samples(2), spec)
    quantiles = model.predict_quantiles(samples)
    assert quantiles.shape == (len(samples), HORIZON, 2, len(levels))
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    assert model.predict(samples).tobytes() == np.ascontiguousarray(quantiles[..., levels.index(0.5)]).tobytes()
    save_model(model, family, tmp_path / "model")
    assert load_model(tmp_path / "model").predict_quantiles(samples).tobytes() == quantiles.tobytes()


@pytest.mark.parametrize("family", BOOSTED)
def test_quantiles_cover_what_they_say(family: str) -> None:
    spec = rich_spec(quantiles=LEVELS)
    size = {"num_boost_round": 60} if family == "xgboost" else {"iterations": 60}
    samples = rich_samples(rows=800)
    model, _ = fit(family, "direct", spec, samples, params={**size, "patience": 60})
    quantiles, outputs = model.predict_quantiles(samples)[:, :, 0], samples.outputs()[..., 0]
    for position, level in enumerate(LEVELS):
        assert abs(float((outputs <= quantiles[..., position]).mean()) - level) < 0.1


@pytest.mark.parametrize("family", BOOSTED)
def test_recursion_refuses_quantiles(family: str) -> None:
    with pytest.raises(ValueError, match=r"'recursive' cannot be fitted to quantiles.*use 'direct'"):
        create_model(family, {"strategy": "recursive"}, rich_spec(quantiles=LEVELS))


@pytest.mark.parametrize(("family", "strategy"), [(family, strategy) for family in BOOSTED for strategy in STRATEGIES])
def test_progress_is_told_and_may_end_the_fit(family: str, strategy: str) -> None:
    told: list[tuple[int, float]] = []
    _, result = fit(family, strategy, rich_spec(), on_progress=lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == list(range(len(result.history)))
    running = np.cumsum(result.history) / np.arange(1, 1 + len(told))
    expected = running if strategy == "direct" else np.minimum.accumulate(result.history)
    np.testing.assert_allclose([loss for _, loss in told], expected, rtol=1e-6)

    def prune(step: int, loss: float) -> None:
        told.append((step, loss))
        raise InterruptedError

    told.clear()
    with pytest.raises(InterruptedError):
        fit(family, strategy, rich_spec(), on_progress=prune)
    assert len(told) == 1


@pytest.mark.parametrize("family", BOOSTED)
def test_missing_values_are_read(family: str) -> None:
    samples = rich_samples()
    samples.values[20:23, [TARGET, OTHER]] = np.nan
    wanted = [at for at in range(len(samples)) if np.isfinite(samples.outputs()[at]).all()]
    for strategy in STRATEGIES:
        model, _ = fit(family, strategy, rich_spec(), samples.select(np.array(wanted)))
        assert np.isfinite(model.predict(samples)).all()


@pytest.mark.parametrize("iterations", [None, 5])
@pytest.mark.parametrize(
    ("family", "strategy", "quantiles"),
    [(*each, ()) for each in EVERY]
    + [(family, strategy, levels) for family in BOOSTED for strategy in WITH_QUANTILES for levels in ((0.5,), LEVELS)],
)
def test_a_constant_target_is_forecast_as_it_is(
    family: str, strategy: str, quantiles: tuple[float, ...], iterations: int | None, tmp_path: Path
) -> None:
    """No tree finds a split, and no row has a gradient."""
    spec = rich_spec(quantiles=quantiles)
    train, validation, samples = (rich_samples(seed, rows=200) for seed in range(3))
    for each in (train, validation, samples):
        each.values[:, TARGET] = 3
    model = create_model(family, {**SIZES[family], "strategy": strategy, "target_lags": (1, 4)}, spec)
    assert isinstance(model, StrategyForecast)
    fixed = (iterations,) * model.models if iterations else ()
    result = model.fit(train, validation, FitOptions(iterations=fixed))
    if family in BOOSTED:
        assert result.iterations == (fixed or (1,) * model.models)
    forecast = model.predict(samples)
    np.testing.assert_allclose(forecast, 3, rtol=1e-6)
    save_model(model, family, tmp_path / "model")
    assert load_model(tmp_path / "model").predict(samples).tobytes() == forecast.tobytes()


def test_a_forest_answers_as_scikit_learn_does() -> None:
    from sklearn.ensemble import RandomForestRegressor

    spec, samples = rich_spec(), rich_samples()
    model, _ = fit("random_forest", "direct", spec, samples, seed=3)
    table = learning_table(samples, spec, model.params)
    own = {"n_estimators", "max_depth", "min_samples_leaf", "max_features", "max_samples"}
    forest = RandomForestRegressor(**model.params.model_dump(include=own), random_state=3)
    forest.fit(table.features, table.labels)
    unseen = learning_table(rich_samples(2), spec, model.params).features
    np.testing.assert_allclose(model.changes(unseen)[..., 0], forest.predict(unseen), rtol=1e-5, atol=1e-6)
