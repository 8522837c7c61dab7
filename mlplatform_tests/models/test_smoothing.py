"""Exponential smoothing of windows, and families that are averaged with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlplatform.datamodule import WindowSamples
from mlplatform.models import Contributions, Model, create_model, load_model, save_model
from mlplatform.models.forecasting.smoothing import DAMPED, LEVEL_WEIGHTS, smooth
from mlplatform.plugins import MODELS
from mlplatform.testing.model_samples import spec_for, windows
from mlplatform.training import trainer_for

SPEC = replace(spec_for("forecast"), scaling="window", season=4)
HORIZON, STEPS = 6, 30


def walks(count: int = 40, season: int = 0, steps: int = STEPS, seed: int = 0) -> np.ndarray:
    """Return series that wander, with a season if one is asked for, of shape (count, steps)."""
    noise = np.random.default_rng(seed)
    values = 50 + np.cumsum(noise.normal(0.2, 1, (count, steps)), axis=1)
    return values + (5 * np.sin(2 * np.pi * np.arange(steps) / season) if season else 0)


def by_hand(values: np.ndarray, horizon: int) -> np.ndarray:
    """Return the mean of Theta and a damped trend of one series without a season, number by number."""
    best: dict[str, tuple[float, np.ndarray]] = {}
    steps = np.arange(len(values), dtype=np.float64)
    slope = np.polyfit(steps, values, 1)[0]
    for weight in LEVEL_WEIGHTS:
        level, error = values[0], 0.0
        for value in values[1:]:
            error += (value - level) ** 2
            level += weight * (value - level)
        drift = np.arange(horizon) + (1 - (1 - weight) ** len(values)) / weight
        if error < best.get("theta", (np.inf,))[0]:
            best["theta"] = error, level + slope / 2 * drift
    for level_weight, trend_weight, kept in DAMPED:
        level, trend, error = values[0], 0.0, 0.0
        for value in values[1:]:
            expected = level + kept * trend
            error += (value - expected) ** 2
            level = expected + level_weight * (value - expected)
            trend = kept * trend + level_weight * trend_weight * (value - expected)
        ahead = level + trend * np.cumsum(kept ** np.arange(1, horizon + 1))
        if error < best.get("damped", (np.inf,))[0]:
            best["damped"] = error, ahead
    return (best["theta"][1] + best["damped"][1]) / 2


def test_all_windows_at_once_are_what_each_is_by_hand() -> None:
    values = walks()
    expected = np.stack([by_hand(each, HORIZON) for each in values])
    np.testing.assert_allclose(smooth(values, 1, HORIZON), expected, rtol=1e-10)


@pytest.mark.parametrize("season", [1, 4, 5])
def test_a_window_that_begins_late_is_what_it_is_without_its_beginning(season: int) -> None:
    values = walks(season=season)
    late = values.copy()
    late[:, :9] = np.nan
    np.testing.assert_allclose(smooth(late, season, HORIZON), smooth(values[:, 9:], season, HORIZON), rtol=1e-10)


@pytest.mark.parametrize("season", [1, 4, 12])
def test_a_window_alone_has_the_same_bits(season: int) -> None:
    values = walks(season=season)
    values[::3, :7] = np.nan
    together = smooth(values, season, HORIZON)
    alone = np.vstack([smooth(each[None], season, HORIZON) for each in values])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("season", [4, 5, 12])
def test_a_season_goes_on(season: int) -> None:
    steps = np.arange(10 * season + season)
    values = (100 + 10 * np.sin(2 * np.pi * steps / season))[None]
    np.testing.assert_allclose(smooth(values[:, :-season], season, season), values[:, -season:], atol=0.5)


def test_what_is_no_season_is_none_and_a_short_window_has_none() -> None:
    noise = np.random.default_rng(3).normal(0, 1, (200, 60))
    same = (smooth(noise, 12, HORIZON) == smooth(noise, 1, HORIZON)).all(axis=1)
    assert same.mean() > 0.85
    short = walks(season=4)[:, :8]
    np.testing.assert_array_equal(smooth(short, 4, HORIZON), smooth(short, 1, HORIZON))


def test_gaps_move_nothing_and_a_window_of_nothing_is_zero() -> None:
    level = np.full((1, STEPS), 7.0)
    level[0, [3, 4, 17, 29]] = np.nan
    np.testing.assert_allclose(smooth(level, 4, HORIZON), 7.0)
    assert (smooth(np.full((2, STEPS), np.nan), 4, HORIZON) == 0).all()


def fitted(params: dict[str, object], samples: WindowSamples, family: str = "xgboost", spec: object = SPEC) -> Model:
    model = create_model(family, {**MODELS.get(family).example_params(), **params}, spec)  # type: ignore[arg-type]
    trainer_for(model).fit(model, samples, windows(1))
    return model


@pytest.mark.parametrize("params", [{}, {"on_linear": True}, {"strategy": "horizon_feature"}])
@pytest.mark.parametrize("family", ["xgboost", "catboost", "random_forest"])
def test_a_forecast_with_smoothing_is_the_mean_of_both(family: str, params: dict[str, object], tmp_path: Path) -> None:
    samples = windows()
    alone, model = (fitted({**params, **more}, samples, family) for more in ({}, {"with_smoothing": True}))
    smoothing = create_model("smoothing", {}, SPEC)
    expected = (alone.predict(samples) + smoothing.predict(samples)) / 2
    np.testing.assert_allclose(model.predict(samples), expected, rtol=1e-6, atol=1e-6)
    save_model(model, family, tmp_path / "model")
    np.testing.assert_array_equal(load_model(tmp_path / "model").predict(samples), model.predict(samples))


def test_shares_are_those_of_the_trees_half() -> None:
    samples = windows()
    found = fitted({"with_smoothing": True, "on_linear": True}, samples).explain(samples)
    assert isinstance(found, Contributions)
    whole = fitted({"with_smoothing": True, "on_linear": True}, samples).predict(samples)
    np.testing.assert_allclose(found.base + found.values.sum(axis=-1), whole, rtol=1e-4, atol=1e-4)


def test_quantiles_are_moved_with_the_forecast() -> None:
    samples = windows()
    spec = replace(SPEC, quantiles=(0.1, 0.5, 0.9))
    alone, model = (fitted(more, samples, spec=spec) for more in ({}, {"with_smoothing": True}))
    np.testing.assert_allclose(model.predict_quantiles(samples)[..., 1], model.predict(samples), rtol=1e-6)
    widths = [np.diff(each.predict_quantiles(samples), axis=-1) for each in (alone, model)]
    np.testing.assert_allclose(widths[0], widths[1], atol=1e-5)


def test_smoothing_reads_the_history_and_the_others_the_lookback() -> None:
    samples = windows()
    late = samples.select(np.arange(20, len(samples)))
    longer = replace(SPEC, history=SPEC.lookback + 8)
    for family, is_same in (("smoothing", False), ("ridge", True)):
        models = [create_model(family, {}, spec) for spec in (SPEC, longer)]
        for model in models:
            trainer_for(model).fit(model, late, None)
        answers = [model.predict(replace(late, cache={})) for model in models]
        assert np.array_equal(*answers) == is_same


def test_it_is_not_written_where_it_is_not_used() -> None:
    params = MODELS.get("xgboost").Params
    assert "with_smoothing" not in params().model_dump()
    assert params(with_smoothing=True).model_dump()["with_smoothing"] is True
